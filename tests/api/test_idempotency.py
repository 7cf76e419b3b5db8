"""A request with an Idempotency-Key is carried out once, whatever the client, the network or the gateway does."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.api.test_executions import EVENTS, parsed

ADD_LINE = "open('lines.txt', 'a').write('x'); print('ran')"


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def lines(client: httpx2.Client, session_id: str) -> str:
    return client.get(f"/api/sessions/{session_id}/files/lines.txt").text


def test_sent_again_is_answered_again(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/execute"
    first = client.post(path, json={"code": ADD_LINE}, headers=key("again"))
    second = client.post(path, json={"code": ADD_LINE}, headers=key("again"))
    assert first.status_code == second.status_code == 200
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["onehop-execution-id"] == first.json()["id"]
    assert second.json() == first.json()
    assert lines(client, session_id) == "x"
    # Without a key the same request is another one.
    client.post(path, json={"code": ADD_LINE})
    assert lines(client, session_id) == "xx"


def test_as_events(client: httpx2.Client) -> None:
    body = {"code": "print('once'); 7"}
    first = client.post("/api/execute", json=body, headers={**EVENTS, **key("events")})
    second = client.post("/api/execute", json=body, headers={**EVENTS, **key("events")})
    assert second.headers["idempotency-replayed"] == "true"
    assert parsed(first.text) == parsed(second.text)
    assert client.post("/api/execute", json=body, headers=key("events")).json()["stdout"] == "once\n"


def test_another_request_with_the_same_key(client: httpx2.Client, session_id: str) -> None:
    assert client.post("/api/execute", json={"code": "1"}, headers=key("other")).status_code == 200
    again = client.post("/api/execute", json={"code": "2"}, headers=key("other"))
    assert_problem(again, 422, "idempotency-key-reused")
    elsewhere = client.post(f"/api/sessions/{session_id}/execute", json={"code": "1"}, headers=key("other"))
    assert_problem(elsewhere, 422, "idempotency-key-reused")


def test_while_it_runs(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/execute"
    body = {"code": f"import time; {ADD_LINE}; time.sleep(60)"}
    with client.stream("POST", path, json=body, headers={**EVENTS, **key("running")}) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
        again = client.post(path, json=body, headers=key("running"))
        assert_problem(again, 409, "idempotency-in-progress")
        assert again.json()["execution"] == execution
        client.post(f"/api/sessions/{session_id}/interrupt", json={})
    ended = client.get(f"/api/executions/{execution}", params={"wait_s": 10}).json()
    assert ended["status"] == "interrupted"
    assert client.post(path, json=body, headers=key("running")).json() == ended
    assert lines(client, session_id) == "x"


def test_many_at_once(client: httpx2.Client, gateway: Gateway, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/execute"
    statuses: list[int] = []

    def send() -> None:
        with httpx2.Client(base_url=gateway.url, timeout=30) as own:
            statuses.append(own.post(path, json={"code": ADD_LINE}, headers=key("crowd")).status_code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    assert lines(client, session_id) == "x"


def test_a_refused_request_leaves_its_key_free(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/execute"
    body = {"code": ADD_LINE, "timeout_s": 1e9}
    assert_problem(client.post(path, json=body, headers=key("refused")), 422, "invalid-request")
    assert client.post(path, json={"code": ADD_LINE}, headers=key("refused")).status_code == 200
    busy = {"code": "while True: print('.', flush=True)", "output_bytes": 10}
    with client.stream("POST", path, json=busy, headers=EVENTS) as response:
        next(response.iter_text())
        again = client.post(path, json={"code": ADD_LINE}, headers=key("busy"))
        assert_problem(again, 409, "session-busy")
        client.post(f"/api/sessions/{session_id}/interrupt", json={})
        execution = response.headers["onehop-execution-id"]
    client.get(f"/api/executions/{execution}", params={"wait_s": 10})
    assert client.post(path, json={"code": ADD_LINE}, headers=key("busy")).json()["status"] == "ok"
    assert lines(client, session_id) == "xx"


@pytest.mark.parametrize("bad", ["a b", "a" * 256, "\u00e9"])
def test_bad_keys(client: httpx2.Client, bad: str) -> None:
    response = client.post(
        "/api/execute", json={"code": "1"}, headers={b"Idempotency-Key": bad.encode("latin-1")}
    )
    assert_problem(response, 422, "invalid-request")


def test_sessions(client: httpx2.Client) -> None:
    first = client.post("/api/sessions", json={"metadata": {"a": "b"}}, headers=key("session"))
    second = client.post("/api/sessions", json={"metadata": {"a": "b"}}, headers=key("session"))
    assert first.status_code == second.status_code == 201
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    client.delete(f"/api/sessions/{first.json()['id']}")
    gone = client.post("/api/sessions", json={"metadata": {"a": "b"}}, headers=key("session"))
    assert_problem(gone, 410, "session-ended")


# --- across gateways ------------------------------------------------------------------------------------


@pytest.fixture
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


def test_a_killed_gateway_runs_nothing_twice(own_supervisor: SupervisorHandle, home: Path) -> None:
    body = {"code": f"import time; {ADD_LINE}; time.sleep(0.5)"}
    with Gateway(own_supervisor.path, home) as first:
        with httpx2.Client(base_url=first.url, timeout=30) as client:
            session = client.post("/api/sessions", json={}, headers=key("s")).json()["id"]
            path = f"/api/sessions/{session}/execute"
            with client.stream("POST", path, json=body, headers={**EVENTS, **key("k")}) as response:
                next(response.iter_text())
                execution = response.headers["onehop-execution-id"]
                first.process.send_signal(signal.SIGKILL)
    with (
        Gateway(own_supervisor.path, home) as second,
        httpx2.Client(base_url=second.url, timeout=30) as client,
    ):
        assert client.post("/api/sessions", json={}, headers=key("s")).json()["id"] == session
        client.get(f"/api/executions/{execution}", params={"wait_s": 10})
        again = client.post(path, json=body, headers=key("k"))
        assert again.json()["id"] == execution
        assert again.json()["status"] == "ok"
        assert again.json()["stdout"] == "ran\n"
        assert lines(client, session) == "x"


def test_a_lost_outcome_stays_lost(environment: Environment, home: Path) -> None:
    """Everything died between the claim and the result: nobody can know, and it is not run again."""
    body = {"code": "import time; print('begun', flush=True); time.sleep(60)"}
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, home) as first:
        with httpx2.Client(base_url=first.url, timeout=30) as client:
            with client.stream(
                "POST", "/api/execute", json=body, headers={**EVENTS, **key("lost")}
            ) as response:
                next(response.iter_text())
                execution = response.headers["onehop-execution-id"]
                first.process.send_signal(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(home / "state" / "onehop.db")) as connection:
        claimed = connection.execute("SELECT made FROM idempotency WHERE key = 'lost'").fetchall()
    assert claimed == [(execution,)]
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, home) as second:
        with httpx2.Client(base_url=second.url, timeout=30) as client:
            again = client.post("/api/execute", json=body, headers=key("lost"))
            assert again.status_code == 200, again.text
            assert again.json()["id"] == execution
            assert again.json()["status"] == "outcome_unknown"
