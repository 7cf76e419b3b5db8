"""Deaths of kernels, sandboxes, zygotes and the supervisor: what is told of them, how soon, and what works next."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import httpx2

from tests.cli.processes import wait_until
from tests.faults.events import Event, Reader
from tests.faults.leaks import Life
from tests.faults.model import Model
from tests.faults.server import FaultServer, mark, marking, orphaning, post

PROMISED_S = 0.1
AWAY_S = 60.0

SLEEP = "import time; print('on', flush=True); time.sleep(600)"


@dataclass
class Told:
    """How the end of an execution was told, and how many seconds after the blow."""

    status: str
    reason: str
    session: str
    after_s: float


def session(client: httpx2.Client) -> str:
    """The path of a new one."""
    created = post(client, "/api/sessions", {})
    assert created.status_code == 201, created.text
    return f"/api/sessions/{created.json()['id']}"


def value(client: httpx2.Client, path: str, code: str) -> str:
    """What `code` gives, or how it ended."""
    answer = post(client, f"{path}/execute", {"code": code})
    assert answer.status_code == 200, answer.text
    outcome = answer.json()
    results: list[dict[str, str]] = outcome["results"]
    return results[-1]["text/plain"] if outcome["status"] == "ok" and results else str(outcome["status"])


def kernel_of(server: FaultServer, client: httpx2.Client, path: str) -> int:
    """The pid of a session's kernel, as the host sees it."""
    name = mark()
    value(client, path, marking(name))
    return server.named(name)


def init_of(server: FaultServer, client: httpx2.Client, path: str) -> int:
    """The pid of a session's init: whoever got the orphan that its code left."""
    name = mark()
    value(client, path, orphaning(name))
    return _parent(server.named(name))


def struck(client: httpx2.Client, path: str, victim: int, number: int = signal.SIGKILL) -> Told:
    """Sends the signal to `victim` while code sleeps in the session."""
    events: list[Event] = []
    with client.stream(
        "POST", f"{path}/execute", json={"code": SLEEP}, headers={"Accept": "text/event-stream"}
    ) as response:
        reader = Reader(response, events)
        reader.read("stdout")
        started_s = time.monotonic()
        os.kill(victim, number)
        reader.read()
        after_s = time.monotonic() - started_s
    end = events[-1][2]
    return Told(end["status"], end["reason"], end["session"], after_s)


def kernel_killed(server: FaultServer, client: httpx2.Client) -> float:
    """While it runs code: told at once, and the next request works. Seconds until it was told."""
    path = session(client)
    told = struck(client, path, kernel_of(server, client, path))
    assert told.status == "kernel_died", told
    assert "SIGKILL" in told.reason, told
    assert value(client, path, "6 * 7") == "42"
    assert client.delete(path).status_code == 204
    return told.after_s


def kernel_killed_between(server: FaultServer, client: httpx2.Client) -> None:
    """While nothing runs: the next request hears of it, nothing is run in a silent new interpreter."""
    path = session(client)
    value(client, path, "kept = 1")
    os.kill(kernel_of(server, client, path), signal.SIGKILL)
    told = post(client, f"{path}/execute", {"code": "print('ran')"}).json()
    if told["status"] != "kernel_died":  # it was quicker than the news: then it was not run by the old one
        raise AssertionError(told)
    assert told["stdout"] == "", told
    assert value(client, path, "'kept' in globals()") == "False"
    assert client.delete(path).status_code == 204


def sandbox_killed(server: FaultServer, client: httpx2.Client) -> float:
    """The init of a sandbox: its session ends with the cause, others go on. Seconds until it was told."""
    path = session(client)
    told = struck(client, path, init_of(server, client, path))
    assert told.status == "killed", told
    gone = client.get(path)
    assert (gone.status_code, gone.json().get("reason")) == (410, "killed"), gone.text
    assert post(client, "/api/execute", {"code": "1"}).json()["status"] == "ok"
    return told.after_s


def zygote_killed(server: FaultServer, client: httpx2.Client) -> None:
    """Live sandboxes notice nothing, no request fails, another zygote is there soon."""
    path = session(client)
    value(client, path, "kept = 41")
    wait_until(lambda: len(server.zygotes()) == 1, AWAY_S, "one zygote")
    (before,) = server.zygotes()
    os.kill(before, signal.SIGKILL)
    for _ in range(4):  # more than wait in the pool
        assert post(client, "/api/execute", {"code": "1"}).json()["status"] == "ok"
    assert value(client, path, "kept + 1") == "42"
    wait_until(lambda: server.zygotes() not in ([], [before]), AWAY_S, "another zygote")
    assert client.delete(path).status_code == 204


@dataclass
class Return:
    """Seconds from the death of the supervisor until the new gateway answered, and until code ran."""

    healthy_s: float
    executed_s: float


def supervisor_killed(server: FaultServer, victim: int) -> Return:
    """Everything it held ends; every session says that it was lost, none comes back empty."""
    with server.client() as client:
        idle, busy = session(client), session(client)
        value(client, idle, "kept = 1; open('kept', 'w').write('1')")
        events: list[Event] = []
        with client.stream(
            "POST", f"{busy}/execute", json={"code": SLEEP}, headers={"Accept": "text/event-stream"}
        ) as response:
            execution = response.headers["onehop-execution-id"]
            reader = Reader(response, events)
            reader.read("stdout")
            life = Life(server)
            old = server.gateway()
            started_s = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            reader.read()
        assert events[-1][2]["status"] == "outcome_unknown", events[-1]
    wait_until(lambda: server.children("onehop.cli.gateway") not in ([], [old]), AWAY_S, "a new gateway")
    wait_until(lambda: server.health(), AWAY_S, "an answer of /healthz")
    healthy_s = time.monotonic() - started_s
    model = Model(server)
    try:
        answer = model.insist("POST", "/api/execute", key=mark(), json={"code": "6 * 7"}).json()
        executed_s = time.monotonic() - started_s
        assert answer["results"] == [{"text/plain": "42"}], answer
        for path in (idle, busy):
            for method, more in (("GET", ""), ("POST", "/execute")):
                gone = model.insist(method, path + more, json={"code": "1"} if more else None)
                assert (gone.status_code, gone.json().get("reason")) == (410, "restarted"), gone.text
        lost = model.insist("GET", f"/api/executions/{execution}").json()
        assert (lost["status"], lost["variables"]) == ("outcome_unknown", "lost"), lost
    finally:
        model.close()
    wait_until(lambda: not life.left(), AWAY_S, f"nothing of it is left, but: {life.left()}")
    return Return(healthy_s, executed_s)


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
