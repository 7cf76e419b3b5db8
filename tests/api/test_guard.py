"""No web page reaches the server: Host, Origin, Fetch Metadata; and what every answer carries."""

from __future__ import annotations

import socket

import httpx2
import pytest

from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]",
        "[::1]:80",
        "onehop.example",
        "onehop.example:443",
    ],
)
def test_our_hosts(client: httpx2.Client, host: str) -> None:
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "",
        "0.0.0.0",
        "[::2]",
        "localhost:x",
        "onehop.example:443:1",
        "onehop.example.org",
    ],
)
def test_foreign_hosts(client: httpx2.Client, host: str) -> None:
    for path in ("/healthz", "/api/sessions", "/docs", "/openapi.json", "/nothing"):
        assert_problem(client.get(path, headers={"host": host}), 403, "forbidden-origin")


def test_two_hosts(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    "origin", ["http://example.org", "null", "http://localhost:1", "file://", "https://app.example.org"]
)
def test_foreign_origins(client: httpx2.Client, origin: str) -> None:
    headers = {"origin": origin, "host": "localhost:8000"}
    assert_problem(client.post("/api/execute", json={"code": "1"}, headers=headers), 403, "forbidden-origin")
    assert_problem(client.get("/api/sessions", headers=headers), 403, "forbidden-origin")


def test_our_own_origin(client: httpx2.Client) -> None:
    headers = {"origin": "http://localhost:8000", "host": "localhost:8000", "sec-fetch-site": "same-origin"}
    response = client.get("/healthz", headers=headers)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_fetch_metadata(client: httpx2.Client, site: str) -> None:
    headers = {"sec-fetch-site": site}
    assert_problem(client.get("/healthz", headers=headers), 403, "forbidden-origin")
    assert_problem(client.get("/docs", headers=headers), 403, "forbidden-origin")
    navigating = {**headers, "sec-fetch-mode": "navigate"}
    assert client.get("/docs", headers=navigating).status_code == 200
    assert_problem(client.get("/api/sessions", headers=navigating), 403, "forbidden-origin")


def test_an_allowed_origin(client: httpx2.Client) -> None:
    headers = {"origin": "https://app.example", "sec-fetch-site": "cross-site"}
    preflight = client.options("/api/execute", headers={**headers, "access-control-request-method": "POST"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization, *"
    response = client.post("/api/execute", json={"code": "1"}, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert response.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    "path", ["/healthz", "/api/sessions", "/nothing", "/docs", "/openapi.json", "/docs/assets/docs.js"]
)
def test_headers_of_every_answer(client: httpx2.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-request-id"].startswith("req_")
    assert "server" not in headers


def test_broken_http(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(b"\x00\xff nonsense\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
