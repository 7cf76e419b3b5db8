"""What must be true of a server whose gateway may die at any moment, and a client that checks it step by step.

The cells count in a variable and in a file of the workspace. A cell that ran twice, not at all, or whose
result was lost or recorded twice leaves a hole or a double in the variable, the file or the stored answers.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.faults.events import Reader
from tests.faults.server import BACK_S, FaultServer

COUNT = "n = globals().get('n', 0) + 1\nwith open('log', 'a') as log: log.write(f'{n}\\n')\nprint('count', n)"
SLOW = """
import time
n = globals().get('n', 0) + 1
print('count', n, flush=True)
for part in range(5):
    time.sleep(0.03)
    print('part', part, flush=True)
with open('log', 'a') as log: log.write(f'{n}\\n')
"""
READ = """
import os
print('read', globals().get('n', 0), *(open('log').read().split() if os.path.exists('log') else []))
"""
SLEEP = "import time\nprint('asleep', flush=True)\ntime.sleep(60)"
LARGE_BYTES = 600_000
"""Of a file: more than the pieces that it is carried in."""

PROBLEM = "urn:onehop:problem:"


@dataclass
class Known:
    """What the client knows of one session. `unsure`: counts whose answer was lost, which may have run or not."""

    counter: int = 0
    unsure: int = 0
    files: dict[str, set[bytes | None]] = field(default_factory=dict)
    """By path, what it may hold; None: nothing."""


class Model:
    """One client and its memory. Every method fails when the server says something that cannot be true."""

    def __init__(self, server: FaultServer) -> None:
        self.server = server
        self.client = server.client()
        self.sessions: dict[str, Known] = {}
        self.dropped: list[str] = []
        self.others = {one["id"] for one in self.insist("GET", "/api/sessions").json()["sessions"]}
        """What a model that failed has left: another one's failure is its own."""
        self.strays = 0
        """Creations without a key whose answer was lost: each may have made a session."""
        self.handed_out: dict[str, dict[str, Any] | None] = {}
        """Executions whose id we were told, with the answer if we were told that, too."""
        self.lost_for_good = 0
        """Answers `outcome_unknown`."""
        self._killers: list[threading.Timer] = []

    def close(self) -> None:
        for killer in self._killers:
            killer.join()
        self.client.close()

    # --- requests -------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, *, key: str = "", **more: Any) -> httpx2.Response | None:
        """The answer; None when the connection broke, and nobody knows whether it was carried out."""
        headers = dict(more.pop("headers", {}))
        if key:
            headers["Idempotency-Key"] = key
        try:
            answer = self.client.request(method, path, headers=headers, **more)
        except httpx2.TransportError:
            return None
        assert answer.status_code != 500, answer.text
        return answer

    def insist(self, method: str, path: str, *, key: str = "", **more: Any) -> httpx2.Response:
        """Asks until there is an answer; for requests that may be sent again."""
        deadline_s = time.monotonic() + BACK_S
        while True:
            answer = self.ask(method, path, key=key, **more)
            if answer is not None and not _later(answer):
                return answer
            assert time.monotonic() < deadline_s, answer and answer.text
            time.sleep(0.01)

    # --- steps ----------------------------------------------------------------------------------------

    def create(self, *, keyed: bool) -> None:
        if keyed:
            answer: httpx2.Response | None = self.insist("POST", "/api/sessions", key=_key(), json={})
        else:
            answer = self.ask("POST", "/api/sessions", json={})
        if answer is None:
            self.strays += 1
            return
        assert answer.status_code == 201, answer.text
        name = answer.json()["id"]
        assert name not in self.sessions
        self.sessions[name] = Known()

    def count(self, name: str, *, keyed: bool, slow: bool = False) -> None:
        path, body = f"/api/sessions/{name}/execute", {"code": SLOW if slow else COUNT}
        if keyed:
            answer = self.insist("POST", path, key=_key(), json=body)
        else:
            found = self.ask("POST", path, json=body)
            while found is not None and _later(found):
                time.sleep(0.01)
                found = self.ask("POST", path, json=body)
            if found is None:
                self.sessions[name].unsure += 1
                return
            answer = found
        assert answer.status_code == 200, answer.text
        outcome = answer.json()
        self.handed_out[outcome["id"]] = outcome
        if outcome["status"] == "outcome_unknown":
            # Claimed, and the gateway died before the supervisor heard of it: it must not have run, then.
            assert keyed, outcome
            self.lost_for_good += 1
        else:
            self._counted(name, outcome)

    def _counted(self, name: str, outcome: dict[str, Any]) -> None:
        known = self.sessions[name]
        assert outcome["status"] == "ok", outcome
        number = int(outcome["stdout"].split()[1])
        assert known.counter < number <= known.counter + 1 + known.unsure, (number, known)
        known.counter, known.unsure = number, 0

    def stream(self, name: str, *, slow: bool) -> None:
        """A count whose events are read as they come, and read on after a break."""
        body = {"code": SLOW if slow else COUNT}
        events: list[tuple[int, str, Any]] = []
        execution = ""
        try:
            with self.client.stream(
                "POST", f"/api/sessions/{name}/execute", json=body, headers={"Accept": "text/event-stream"}
            ) as response:
                if response.status_code != 200:
                    response.read()
                    assert _later(response), response.text
                    return
                execution = response.headers["onehop-execution-id"]
                self.handed_out[execution] = None
                Reader(response, events).read()
        except httpx2.TransportError:
            if not execution:
                self.sessions[name].unsure += 1
                return
        self._read_on(execution, events)
        outcome = self.insist("GET", f"/api/executions/{execution}").json()
        self._counted(name, outcome)
        self.handed_out[execution] = outcome
        _check_events(events, outcome)

    def _read_on(self, execution: str, events: list[tuple[int, str, Any]]) -> None:
        """Until the end, from where we are."""
        deadline_s = time.monotonic() + BACK_S
        while not events or events[-1][1] != "end":
            assert time.monotonic() < deadline_s, (execution, events)
            after = events[-1][0] if events else 0
            try:
                with self.client.stream(
                    "GET", f"/api/executions/{execution}/events", params={"after": after}
                ) as response:
                    if response.status_code != 200:
                        response.read()
                    assert response.status_code == 200, (execution, response.text)
                    Reader(response, events).read()
            except httpx2.TransportError:
                time.sleep(0.01)

    def once(self, *, keyed: bool, dies: bool) -> None:
        """A one-shot, whose sandbox is gone when its answer is out."""
        body = {"code": "print('once')\n" + ("import os; os._exit(3)" if dies else "6 * 7")}
        key = _key() if keyed else ""
        answer = self.insist("POST", "/api/execute", key=key, json=body) if keyed else None
        if not keyed:
            answer = self.ask("POST", "/api/execute", json=body)
            if answer is None or answer.status_code == 503:
                return
        assert answer is not None
        assert answer.status_code == 200, answer.text
        outcome = answer.json()
        self.handed_out[outcome["id"]] = outcome
        if outcome["status"] == "outcome_unknown":
            assert keyed, outcome
            self.lost_for_good += 1
        else:
            assert (outcome["status"], outcome["stdout"]) == ("kernel_died" if dies else "ok", "once\n")

    def put(self, name: str, path: str) -> None:
        content = secrets.token_bytes(LARGE_BYTES)
        answer = self.ask("PUT", f"/api/sessions/{name}/files/{path}", content=content, **_OCTETS)
        known = self.sessions[name].files
        if answer is None:
            known[path] = known.get(path, {None}) | {content}
        else:
            assert answer.status_code in (200, 201), answer.text
            known[path] = {content}

    def get(self, name: str, path: str) -> None:
        answer = self.insist("GET", f"/api/sessions/{name}/files/{path}")
        content = answer.content if answer.status_code == 200 else None
        assert content is not None or answer.status_code == 404, answer.text
        known = self.sessions[name].files
        assert content in known.get(path, {None}), "a file is neither the old one nor the new one"
        known[path] = {content}

    def interrupt(self, name: str) -> None:
        """Starts code that sleeps and stops it; it must end, whoever dies meanwhile."""
        path = f"/api/sessions/{name}"
        execution = ""
        events: list[tuple[int, str, Any]] = []
        try:
            with self.client.stream(
                "POST", f"{path}/execute", json={"code": SLEEP}, headers={"Accept": "text/event-stream"}
            ) as response:
                if response.status_code == 200:
                    execution = response.headers["onehop-execution-id"]
                    Reader(response, events).read("stdout")
        except httpx2.TransportError:
            pass
        deadline_s = time.monotonic() + BACK_S
        while self.insist("GET", path).json()["status"] == "busy":
            assert time.monotonic() < deadline_s
            self.insist("POST", f"{path}/interrupt", json={})
            time.sleep(0.01)
        if execution:
            outcome = self.insist("GET", f"/api/executions/{execution}", params={"wait_s": 10}).json()
            assert outcome["status"] == "interrupted", outcome
            self.handed_out[execution] = outcome

    def drop(self, name: str) -> None:
        answer = self.insist("DELETE", f"/api/sessions/{name}")
        assert answer.status_code == 204 or _reason(answer) == "deleted", answer.text
        del self.sessions[name]
        self.dropped.append(name)

    def kill_soon(self, delay_s: float) -> None:
        """kill -9 of the gateway, whatever we are doing then."""
        killer = threading.Timer(delay_s, self.server.kill_gateway)
        killer.start()
        self._killers.append(killer)

    # --- at rest --------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Nothing is lost, nothing is double: asked of the server, and of its database."""
        for killer in self._killers:
            killer.join()
        self._killers.clear()
        self.server.no_crash()
        self.server.wait_healthy()
        for name in self.sessions:
            self._verify_session(name)
        self._verify_listing()
        self.server.settled(self.client)
        self._verify_answers()
        self._verify_supervisor()

    def _verify_supervisor(self) -> None:
        """It holds the sandboxes of these sessions and nothing else: no sandbox or result of a dead gateway."""
        deadline_s = time.monotonic() + BACK_S
        while True:
            about = self.server.describe()
            if (about["assigned"], about["executions"]) == (len(self.sessions) + len(self.others), 0):
                return
            assert time.monotonic() < deadline_s, about
            time.sleep(0.05)

    def _verify_session(self, name: str) -> None:
        known = self.sessions[name]
        answer = self.insist("POST", f"/api/sessions/{name}/execute", json={"code": READ})
        assert answer.status_code == 200, ("a session is lost", name, answer.text)
        outcome = answer.json()
        assert outcome["status"] == "ok", outcome
        number, *log = map(int, outcome["stdout"].split()[1:])
        assert known.counter <= number <= known.counter + known.unsure, (number, known)
        assert log == list(range(1, number + 1)), (number, log)
        known.counter, known.unsure = number, 0
        for path in list(known.files):
            self.get(name, path)

    def _verify_listing(self) -> None:
        listed = {one["id"] for one in self.insist("GET", "/api/sessions").json()["sessions"]}
        assert set(self.sessions) <= listed
        strays = listed - set(self.sessions) - self.others
        assert len(strays) <= self.strays, strays
        for stray in strays:
            assert self.insist("DELETE", f"/api/sessions/{stray}").status_code == 204
        self.strays = 0
        for name in self.dropped[-5:]:
            assert _reason(self.insist("GET", f"/api/sessions/{name}")) == "deleted"

    def _verify_answers(self) -> None:
        rows = stored(self.server)
        for execution, told in self.handed_out.items():
            assert execution in rows, ("a result is lost", execution)
            assert rows[execution]["status"] not in (None, "running"), rows[execution]
            if told is not None:
                _same(rows[execution]["document"], told)
        for execution in list(self.handed_out)[-10:]:
            outcome = self.insist("GET", f"/api/executions/{execution}").json()
            events: list[tuple[int, str, Any]] = []
            self._read_on(execution, events)
            _check_events(events, outcome)
        for name, known in self.sessions.items():
            counted = sorted(
                int(row["document"]["stdout"].split()[1])
                for row in rows.values()
                if row["session"] == name
                and row["status"] == "ok"
                and row["document"]["stdout"].startswith("count")
            )
            assert counted == list(range(1, known.counter + 1)), "a result is lost or double"

    def leave(self) -> None:
        """Deletes what is left and forgets everything."""
        for name in list(self.sessions):
            self.drop(name)
        self.handed_out.clear()


_OCTETS: dict[str, Any] = {"headers": {"Content-Type": "application/octet-stream"}}


def stored(server: FaultServer) -> dict[str, dict[str, Any]]:
    """Executions by id, from the database itself."""
    with contextlib.closing(sqlite3.connect(server.home / "state" / "onehop.db")) as connection:
        found = connection.execute("SELECT id, session, status, document FROM executions").fetchall()
    return {
        name: {"session": session, "status": status, "document": document and json.loads(document)}
        for name, session, status, document in found
    }


def _key() -> str:
    return secrets.token_hex(8)


def _later(answer: httpx2.Response) -> bool:
    """The answer is to ask again: the engine starts, or the session or the key is at work."""
    if answer.status_code == 503:
        return True
    return answer.status_code == 409 and answer.json()["type"] in (
        f"{PROBLEM}session-busy",
        f"{PROBLEM}idempotency-in-progress",
    )


def _reason(answer: httpx2.Response) -> str | None:
    """Why a session has ended, from a 410."""
    return answer.json().get("reason") if answer.status_code == 410 else None


def _check_events(events: list[tuple[int, str, Any]], outcome: dict[str, Any]) -> None:
    """Numbered from 1 without a gap or a double, and together they are the answer."""
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1)), events
    assert [kind for _, kind, _ in events].count("end") == 1
    assert events[-1][1] == "end"
    assert events[-1][2]["status"] == outcome["status"]
    assert "".join(data["text"] for _, kind, data in events if kind == "stdout") == outcome["stdout"]


def _same(document: dict[str, Any], told: dict[str, Any]) -> None:
    """The stored answer is the one that was given. Which files changed cannot always be told a second time."""
    for member in ("id", "session", "status", "stdout", "stderr", "results", "error", "variables"):
        assert document[member] == told[member], (member, document, told)
