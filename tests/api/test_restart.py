"""The gateway may die at any moment: sessions live on, and every execution is recorded exactly once."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.api.serve import EXIT_SUPERVISOR_LOST
from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.api.test_executions import EVENTS, parsed


@pytest.fixture
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


@pytest.fixture
def first(own_supervisor: SupervisorHandle, home: Path) -> Iterator[Gateway]:
    gateway = Gateway(own_supervisor.path, home)
    yield gateway
    gateway.kill()


@pytest.fixture
def second(own_supervisor: SupervisorHandle, home: Path) -> Iterator[Any]:
    """A function that starts the next gateway on the same supervisor and state."""
    started: list[Gateway] = []

    def start() -> httpx2.Client:
        started.append(Gateway(own_supervisor.path, home))
        return httpx2.Client(base_url=started[-1].url, timeout=30)

    yield start
    for gateway in started:
        assert gateway.stop() == 0, gateway.log.read_text()


def begin(client: httpx2.Client, path: str, code: str) -> str:
    """Starts code that prints first, and leaves when that has come; the id of the execution."""
    with client.stream("POST", path, json={"code": code}, headers=EVENTS) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if "stdout" in text:
                break
        name: str = response.headers["onehop-execution-id"]
        return name


def ended(client: httpx2.Client, execution: str) -> dict[str, Any]:
    """Its answer, when it is there."""
    events = parsed(client.get(f"/api/executions/{execution}/events").text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert events[-1][1] == "end"
    answer: dict[str, Any] = client.get(f"/api/executions/{execution}").json()
    assert answer["status"] == events[-1][2]["status"]
    assert "".join(data["text"] for _, kind, data in events if kind == "stdout") == answer["stdout"]
    return answer


def until_stored(home: Path, execution: str, *, result: bool = True) -> None:
    """Returns when the store knows it: only what is written down can be asked for after a crash of everything."""
    deadline = time.monotonic() + 30
    with contextlib.closing(sqlite3.connect(home / "state" / "onehop.db")) as connection:
        wanted = "AND document IS NOT NULL" if result else ""
        query = f"SELECT 1 FROM executions WHERE id = ? {wanted}"
        while not connection.execute(query, (execution,)).fetchone():
            assert time.monotonic() < deadline


WAIT = "print('on €', flush=True)\nimport time\ntime.sleep(4)\nprint('off')\nx = 5"
UNTIL_TOLD = "print('on €', flush=True)\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('off')\nx = 5"
"""Ends when the test says so: how long the next gateway takes to start is the machine's business."""


def tell(client: httpx2.Client, path: str) -> None:
    headers = {"content-type": "application/octet-stream"}
    assert client.put(f"{path}/files/go", content=b"", headers=headers).is_success


def test_kill_9_loses_nothing(first: Gateway, second: Any, home: Path) -> None:
    with httpx2.Client(base_url=first.url, timeout=30) as client:
        idle = client.post("/api/sessions", json={}).headers["location"]
        busy = client.post("/api/sessions", json={}).headers["location"]
        gone = client.post("/api/sessions", json={}).headers["location"]
        assert client.delete(gone).status_code == 204
        made = client.post(f"{idle}/execute", json={"code": "x = 4\nopen('f', 'w').write('1')"}).json()
        until_stored(home, made["id"])
        running = begin(client, f"{busy}/execute", UNTIL_TOLD)
        alone = begin(client, "/api/execute", WAIT)
    first.kill()
    with second() as client:
        assert client.get(f"{busy}").json()["status"] == "busy"
        assert_problem(
            client.post(f"{busy}/execute", json={"code": "1"}), 409, "session-busy", execution=running
        )
        tell(client, busy)
        for execution in (running, alone):
            answer = ended(client, execution)
            assert (answer["status"], answer["stdout"]) == ("ok", "on €\noff\n")
            assert answer["isolation"]["level"] == "process"
        assert client.get(f"/api/executions/{made['id']}").json() == made
        assert client.post(f"{idle}/execute", json={"code": "x"}).json()["results"] == [{"text/plain": "4"}]
        assert client.post(f"{busy}/execute", json={"code": "x"}).json()["results"] == [{"text/plain": "5"}]
        after = client.post(f"{idle}/execute", json={"code": "open('g', 'w').write('1')"}).json()
        assert after["files"] == [{"path": "g", "bytes": 1}], "files of before are not taken for new ones"
        assert_problem(client.get(gone), 410, "session-ended", reason="deleted")
        about = client.get("/api/info").json()
        assert about["counts"]["sessions"] == 2


def test_killed_right_after_the_answer(first: Gateway, second: Any) -> None:
    """The answer is out, the commit may be or not: either way there is one result."""
    with httpx2.Client(base_url=first.url, timeout=30) as client:
        path = client.post("/api/sessions", json={}).headers["location"]
        answers = [client.post(f"{path}/execute", json={"code": f"{n}"}).json() for n in range(5)]
    first.kill()
    with second() as client:
        for answer in answers:
            assert ended(client, answer["id"])["results"] == answer["results"]
        assert client.post(f"{path}/execute", json={"code": "1"}).json()["status"] == "ok"


def test_sandboxes_of_a_dead_gateway_are_given_back(first: Gateway, second: Any) -> None:
    with httpx2.Client(base_url=first.url, timeout=30) as client:
        alone = begin(client, "/api/execute", WAIT)
    first.kill()
    with second() as client:
        ended(client, alone)
        deadline = time.monotonic() + 30
        while client.get("/api/info").json()["counts"] != {"sessions": 0, "running": 0, "unstored": 0}:
            assert time.monotonic() < deadline


def test_a_graceful_stop_is_quick_and_keeps_sessions(first: Gateway, second: Any) -> None:
    with httpx2.Client(base_url=first.url, timeout=30) as client:
        path = client.post("/api/sessions", json={}).headers["location"]
        running = begin(client, f"{path}/execute", UNTIL_TOLD)
        with client.stream("GET", f"/api/executions/{running}/events") as response:
            next(response.iter_text())
            assert first.stop() == 0, "the code has no end yet: a stop that waits for it would not come"
    with second() as client:
        assert client.get(f"/api/executions/{running}").json()["status"] == "running"
        tell(client, path)
        assert ended(client, running)["stdout"] == "on €\noff\n"
        assert client.post(f"{path}/execute", json={"code": "x"}).json()["results"] == [{"text/plain": "5"}]


def test_a_new_supervisor_has_none_of_the_old_sessions(
    first: Gateway, own_supervisor: SupervisorHandle, environment: Environment, home: Path
) -> None:
    with httpx2.Client(base_url=first.url, timeout=30) as client:
        path = client.post("/api/sessions", json={}).headers["location"]
        running = begin(client, f"{path}/execute", "print(1, flush=True)\nimport time\ntime.sleep(60)")
        until_stored(home, running, result=False)
    first.kill()
    own_supervisor.stop()
    with start_supervisor(environment) as supervisor:
        with Gateway(supervisor.path, home) as gateway:
            with httpx2.Client(base_url=gateway.url, timeout=30) as client:
                assert_problem(client.get(path), 410, "session-ended", reason="restarted")
                answer = client.get(f"/api/executions/{running}").json()
                assert (answer["status"], answer["variables"]) == ("outcome_unknown", "lost")
            assert gateway.stop() == 0


def test_a_lost_supervisor_ends_the_gateway(first: Gateway, own_supervisor: SupervisorHandle) -> None:
    with httpx2.Client(base_url=first.url, timeout=30) as client:
        path = client.post("/api/sessions", json={}).headers["location"]
        with client.stream("POST", f"{path}/execute", json={"code": WAIT}, headers=EVENTS) as response:
            text = ""
            for piece in response.iter_text():
                text += piece
                if "stdout" in text and "end" not in text:
                    own_supervisor.process.send_signal(signal.SIGKILL)
        assert parsed(text)[-1][2]["status"] == "outcome_unknown"
    assert first.process.wait(30) == EXIT_SUPERVISOR_LOST


def test_no_supervisor(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no supervisor answers"):
        Gateway(str(tmp_path / "nobody"), tmp_path / "home")


def test_a_taken_port_is_said_clearly(
    first: Gateway, own_supervisor: SupervisorHandle, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=r"port .*cannot listen"):
        Gateway(own_supervisor.path, tmp_path / "other", port=first.port)
