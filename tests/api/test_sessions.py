"""A session's life over HTTP: made, listed, used, ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem


def test_life(client: httpx2.Client) -> None:
    response = client.post("/api/sessions", json={"memory_mb": 256, "workspace_mb": 8, "idle_timeout_s": 100})
    assert response.status_code == 201
    made = response.json()
    path = f"/api/sessions/{made['id']}"
    assert response.headers["location"] == path
    assert made["id"].startswith("ses_")
    assert len(made["id"]) >= 4 + 43, "256 random bits"
    assert made["limits"] == {"memory_mb": 256, "processes": 64, "workspace_mb": 8, "workspace_inodes": 16384}
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    assert 90 < (expires - created).total_seconds() <= 101
    assert made["status"] == "idle"
    assert {**client.get(path).json(), "expires_at": 0} == {**made, "expires_at": 0}
    assert made["id"] in [session["id"] for session in client.get("/api/sessions").json()["sessions"]]
    assert client.post(f"{path}/execute", json={"code": "x = 20"}).json()["session"] == made["id"]
    answer = client.post(f"{path}/execute", json={"code": "x + 1"}).json()
    assert answer["results"] == [{"text/plain": "21"}]
    assert client.delete(path).status_code == 204
    assert made["id"] not in [session["id"] for session in client.get("/api/sessions").json()["sessions"]]


def test_an_empty_body_is_all_defaults(client: httpx2.Client) -> None:
    response = client.post("/api/sessions", content=b"", headers={"content-type": "application/json"})
    assert response.status_code == 201
    assert response.json()["limits"]["memory_mb"] == 1024
    assert client.delete(response.headers["location"]).status_code == 204


def test_sessions_share_nothing(client: httpx2.Client) -> None:
    paths = [client.post("/api/sessions", json={}).headers["location"] for _ in range(2)]
    for number, path in enumerate(paths):
        code = f"import os\nprint('x' in dir(), os.listdir())\nx = {number}\nopen('f{number}', 'w').close()"
        assert client.post(f"{path}/execute", json={"code": code}).json()["stdout"] == "False []\n"
    for number, path in enumerate(paths):
        assert client.post(f"{path}/execute", json={"code": "x"}).json()["results"] == [
            {"text/plain": str(number)}
        ]
        assert client.delete(path).status_code == 204


@pytest.fixture(scope="module")
def strict_gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Few of everything, and short lives."""
    home: Path = tmp_path_factory.mktemp("strict")
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(
            supervisor.path, home, max_sessions=2, max_concurrent=1, max_age_s=1000, idle_timeout_s=1000
        )
        yield gateway
        assert gateway.stop() == 0


def until_gone(client: httpx2.Client, path: str) -> httpx2.Response:
    deadline = time.monotonic() + 20
    while (response := client.get(path)).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return response


def test_unused_and_old_sessions_end(strict_gateway: Gateway) -> None:
    with httpx2.Client(base_url=strict_gateway.url, timeout=30) as client:
        for field in ("idle_timeout_s", "max_age_s"):
            path = client.post("/api/sessions", json={field: 0.3}).headers["location"]
            assert_problem(until_gone(client, path), 410, "session-ended", reason="expired")
            assert client.get("/api/sessions").json() == {"sessions": []}


def test_what_runs_is_not_idle(strict_gateway: Gateway) -> None:
    with httpx2.Client(base_url=strict_gateway.url, timeout=30) as client:
        path = client.post("/api/sessions", json={"idle_timeout_s": 0.5}).headers["location"]
        answer = client.post(f"{path}/execute", json={"code": "import time\ntime.sleep(2)\n5"}).json()
        assert answer["results"] == [{"text/plain": "5"}]
        until_gone(client, path)


def test_no_more_sessions_than_allowed(strict_gateway: Gateway) -> None:
    with httpx2.Client(base_url=strict_gateway.url, timeout=30) as client:
        paths = [client.post("/api/sessions", json={}).headers["location"] for _ in range(2)]
        refused = client.post("/api/sessions", json={})
        assert_problem(refused, 429, "too-many")
        assert refused.headers["retry-after"] == "1"
        for path in paths:
            assert client.delete(path).status_code == 204
        made = client.post("/api/sessions", json={})
        assert made.status_code == 201
        assert client.delete(made.headers["location"]).status_code == 204


def test_no_more_one_shots_than_allowed(strict_gateway: Gateway) -> None:
    with httpx2.Client(base_url=strict_gateway.url, timeout=30) as client:
        body = {"code": "print(1, flush=True)\nimport time\ntime.sleep(6)"}
        with client.stream(
            "POST", "/api/execute", json=body, headers={"accept": "text/event-stream"}
        ) as response:
            seen = False
            for piece in response.iter_text():
                if not seen and "stdout" in piece:
                    seen = True
                    assert_problem(client.post("/api/execute", json={"code": "1"}), 429, "too-many")
            assert seen
        assert client.post("/api/execute", json={"code": "1"}).status_code == 200
