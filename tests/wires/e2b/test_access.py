"""Who may use a sandbox of E2B's clients, with keys: errors in E2B's own shapes, and what a token opens."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.wires.e2b.test_flows import run

CREATE: dict[str, Any] = {"templateID": "base", "timeout": 60}


class Two:
    """A gateway with keys of two tenants, in E2B's form, and of one who may make one sandbox."""

    def __init__(self, gateway: Gateway, first: str, second: str, limited: str) -> None:
        self.url, self.first, self.second, self.limited = gateway.url + "/e2b", first, second, limited

    def create(self, key: str) -> dict[str, Any]:
        answer = httpx2.post(self.url + "/sandboxes", json=CREATE, headers={"x-api-key": key}, timeout=30)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def two(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    home = tmp_path_factory.mktemp("e2b")
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, home) as gateway:
        with httpx2.Client(base_url=gateway.url, timeout=30) as client:
            admin = client.post("/api/keys", json={"scopes": ["admin"]}).json()["key"]
            client.headers["x-api-key"] = admin
            keys = [
                client.post("/api/keys", json={"e2b": True, "owner": owner, "limits": limits}).json()["key"]
                for owner, limits in (("first", {}), ("second", {}), ("third", {"max_sessions": 1}))
            ]
        yield Two(gateway, *keys)


@pytest.fixture
def box(two: Two) -> Iterator[dict[str, str]]:
    """Headers of a sandbox's own client, without a key."""
    made = two.create(two.first)
    yield {"e2b-sandbox-id": made["sandboxID"], "x-access-token": made["envdAccessToken"]}
    httpx2.delete(f"{two.url}/sandboxes/{made['sandboxID']}", headers={"x-api-key": two.first}, timeout=30)


@pytest.mark.parametrize("flow", ["lifecycle", "signed", "commands"])
def test_the_clients_with_a_key(two: Two, flow: str) -> None:
    run(two.url.removesuffix("/e2b"), flow, "current", two.first)


def test_a_wrong_key(two: Two) -> None:
    for key in ({}, {"x-api-key": "e2b_" + "0" * 40}):
        answer = httpx2.post(two.url + "/sandboxes", json=CREATE, headers=key, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (401, 401)
        assert "key" in answer.json()["message"]


def test_another_tenants_sandbox_is_unknown(two: Two, box: dict[str, str]) -> None:
    name = box["e2b-sandbox-id"]
    with httpx2.Client(base_url=two.url, headers={"x-api-key": two.second}, timeout=30) as other:
        unknown = other.get("/sandboxes/ses_none").json()
        for method, path, body in (
            ("GET", "", None), ("DELETE", "", None), ("POST", "/timeout", {"timeout": 5}),
            ("POST", "/connect", {"timeout": 5}), ("GET", "/metrics", None), ("POST", "/pause", {}),
        ):  # fmt: skip
            answer = other.request(method, f"/sandboxes/{name}{path}", json=body)
            assert (answer.status_code, answer.json()) == (404, unknown), path
        assert name not in other.get("/sandboxes").text
        # A key is not a token: it opens its own sandboxes only, from inside, too.
        answer = other.post("/execute", json={"code": "1"}, headers={"e2b-sandbox-id": name})
        assert (answer.status_code, "was not found" in answer.text) == (502, True)


INSIDE: dict[str, tuple[str, str, Any]] = {
    "cell": ("POST", "/execute", {"code": "1"}),
    "contexts": ("GET", "/contexts", None),
    "file": ("GET", "/files?path=a.txt", None),
    "upload": ("POST", "/files?path=a.txt", b"x"),
    "health": ("GET", "/health", None),
    "processes": ("POST", "/process.Process/List", {}),
    "command": ("POST", "/process.Process/Start", {"process": {"cmd": "true"}}),
    "folder": ("POST", "/filesystem.Filesystem/ListDir", {"path": "."}),
    "stdin": ("POST", "/process.Process/SendInput", {"process": {"pid": 1}, "input": {"stdin": "eA=="}}),
}


def enveloped(body: object) -> bytes:
    raw = json.dumps(body).encode()
    return struct.pack(">BI", 0, len(raw)) + raw


def ask(client: httpx2.Client, name: str, headers: dict[str, str]) -> httpx2.Response:
    method, path, body = INSIDE[name]
    if isinstance(body, bytes):
        return client.request(
            method, path, content=body, headers={**headers, "content-type": "application/octet-stream"}
        )
    if name == "command":
        connect = {**headers, "content-type": "application/connect+json"}
        return client.request(method, path, content=enveloped(body), headers=connect)
    return client.request(method, path, json=body, headers=headers)


@pytest.mark.parametrize("name", INSIDE)
def test_a_token_opens_its_own_sandbox_only(two: Two, box: dict[str, str], name: str) -> None:
    mine = two.create(two.second)
    with httpx2.Client(base_url=two.url, timeout=30) as client:
        control = ask(client, name, box)
        assert control.status_code in (200, 204, 404), control.text
        assert "was not found" not in control.text
        for headers in (
            {**box, "e2b-sandbox-id": mine["sandboxID"]},
            {**box, "x-access-token": mine["envdAccessToken"]},
            {**box, "x-access-token": ""},
            {**box, "x-access-token": box["x-access-token"] + "x"},
            {**box, "e2b-traffic-access-token": mine["envdAccessToken"]},
            {**box, "e2b-sandbox-id": "ses_none"},
        ):
            answer = ask(client, name, headers)
            assert (answer.status_code, answer.json()["code"]) == (502, 502), (headers, answer.text)
            assert "was not found" in answer.json()["message"]
        bare = ask(client, name, {"e2b-sandbox-id": box["e2b-sandbox-id"]})
        assert bare.status_code == 401
        # It opens nothing else.
        token = {"x-access-token": box["x-access-token"], "e2b-sandbox-id": box["e2b-sandbox-id"]}
        for path in ("/api/sessions", f"/e2b/sandboxes/{box['e2b-sandbox-id']}", "/e2b/sandboxes"):
            assert (
                httpx2.get(two.url.removesuffix("/e2b") + path, headers=token, timeout=30).status_code == 401
            )
    httpx2.delete(f"{two.url}/sandboxes/{mine['sandboxID']}", headers={"x-api-key": two.second}, timeout=30)


def test_a_revoked_key_takes_its_tokens_along(environment: Environment, tmp_path: Any) -> None:
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, tmp_path) as gateway:
        with httpx2.Client(base_url=gateway.url, timeout=30) as client:
            admin = client.post("/api/keys", json={"scopes": ["admin"]}).json()["key"]
            client.headers["x-api-key"] = admin
            made = client.post("/api/keys", json={"e2b": True}).json()
            box = client.post("/e2b/sandboxes", json=CREATE, headers={"x-api-key": made["key"]}).json()
            del client.headers["x-api-key"]
            token = {"e2b-sandbox-id": box["sandboxID"], "x-access-token": box["envdAccessToken"]}
            assert client.get("/e2b/health", headers=token).status_code == 204
            assert client.delete(f"/api/keys/{made['id']}", headers={"x-api-key": admin}).status_code == 204
            tenants.until(lambda: client.get("/e2b/health", headers=token).status_code == 401)


def test_over_a_limit(two: Two) -> None:
    first = two.create(two.limited)
    again = httpx2.post(two.url + "/sandboxes", json=CREATE, headers={"x-api-key": two.limited}, timeout=30)
    assert (again.status_code, again.json()["code"]) == (429, 429)
    assert int(again.headers["retry-after"]) >= 1
    httpx2.delete(f"{two.url}/sandboxes/{first['sandboxID']}", headers={"x-api-key": two.limited}, timeout=30)


def test_bodies_that_are_none(two: Two, box: dict[str, str]) -> None:
    key = {"x-api-key": two.first}
    with httpx2.Client(base_url=two.url, timeout=30) as client:

        def told(answer: httpx2.Response) -> tuple[int, Any]:
            return answer.status_code, answer.json()["code"]

        json_type = {"content-type": "application/json"}
        for content in (
            b"",
            b"{",
            b"[]",
            b'{"timeout": 5}',
            b'{"templateID": 5}',
            b'{"templateID": "base", "timeout": -1}',
        ):
            assert told(client.post("/sandboxes", content=content, headers={**key, **json_type})) == (
                400,
                400,
            )
        for content in (b"", b"{", b'{"code": 5}', b'{"code": "1", "language": "cobol"}'):
            assert told(client.post("/execute", content=content, headers={**box, **json_type})) == (400, 400)
        assert told(client.post("/execute", json={"code": "1", "context_id": "../x"}, headers=box)) == (
            404,
            404,
        )
        assert told(client.get("/files", headers=box)) == (400, 400)
        assert told(client.get("/files?path=../../etc/passwd", headers=box)) == (400, 400)
        assert told(client.get("/files?path=none", headers=box)) == (404, 404)
        octets = {**box, "content-type": "application/octet-stream"}
        assert told(
            client.post("/files?path=a", content=b"x", headers={**octets, "content-encoding": "br"})
        ) == (400, 400)
        for broken in (b"no gzip", gzip.compress(b"x" * 1000)[:-9]):
            answer = client.post(
                "/files?path=a", content=broken, headers={**octets, "content-encoding": "gzip"}
            )
            assert told(answer) == (400, 400), answer.text
        whole = gzip.compress(b"x" * 1_000_000)
        answer = client.post("/files?path=a", content=whole, headers={**octets, "content-encoding": "gzip"})
        assert answer.json() == [{"name": "a", "path": "/home/user/a", "type": "file"}]
        assert client.get("/files?path=a", headers=box).content == b"x" * 1_000_000
        bomb = gzip.compress(bytes(600 * 1024 * 1024), 1)
        answer = client.post("/files?path=bomb", content=bomb, headers={**octets, "content-encoding": "gzip"})
        assert answer.status_code in (413, 507), answer.text
        assert client.get("/files?path=bomb", headers=box).status_code == 404
        assert told(client.post("/files?path=a", content=b"x", headers={**octets, "x-metadata-a": "b"})) == (
            501,
            501,
        )
        for path, body in (("/process.Process/List", b"["), ("/filesystem.Filesystem/Stat", b'{"path": 5}')):
            answer = client.post(path, content=body, headers={**box, **json_type})
            assert told(answer) == (400, "invalid_argument")
        missing = client.post("/filesystem.Filesystem/Stat", json={"path": "none"}, headers=box)
        assert told(missing) == (404, "not_found")
        for envelope in (
            b"",
            b"\x00\x00",
            b"\x00\x00\x00\x00\x05{}",
            b"\x01\x00\x00\x00\x02{}",
            b"\x00\xff\xff\xff\xff{}",
            enveloped([]),
        ):
            answer = client.post(
                "/process.Process/Start",
                content=envelope,
                headers={**box, "content-type": "application/connect+json"},
            )
            assert answer.status_code == 200, "errors of streams are told at their end"
            flags, length = struct.unpack(">BI", answer.content[:5])
            assert (flags, length) == (2, len(answer.content) - 5)
            assert json.loads(answer.content[5:])["error"]["code"] in (
                "invalid_argument",
                "resource_exhausted",
            )
        assert client.get("/nothing", headers=key).status_code == 404
