"""Shell commands over HTTP: executions with an exit code, fed, signalled, listed, and found again after a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.api.test_executions import EVENTS, parsed
from tests.supervisor.machine import eventually

OCTETS = {"content-type": "application/octet-stream"}


def command(client: httpx2.Client, session_id: str, text: str, **fields: Any) -> dict[str, Any]:
    answer = client.post(f"/api/sessions/{session_id}/commands", json={"command": text, **fields})
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def ended(client: httpx2.Client, execution: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/api/executions/{execution}", params={"wait_s": 20}).json()
    return answer


def written(client: httpx2.Client, execution: str, text: str) -> None:
    """Returns when the running command has written `text`."""
    with client.stream("GET", f"/api/executions/{execution}/events") as events:
        found = ""
        for piece in events.iter_text():
            found += piece
            if text in found:
                return
    raise AssertionError(found)


def test_an_answer_is_that_of_an_execution_with_an_exit_code(client: httpx2.Client, session_id: str) -> None:
    answer = command(client, session_id, "echo out; echo err >&2; echo x > made; exit 3")
    assert (answer["status"], answer["exit_code"]) == ("error", 3)
    assert (answer["stdout"], answer["stderr"], answer["results"]) == ("out\n", "err\n", [])
    assert answer["files"] == [{"path": "made", "bytes": 2}]
    assert answer["session"] == session_id
    assert answer["usage"]["wall_ms"] > 0
    assert client.get(f"/api/executions/{answer['id']}").json() == answer
    kinds = [kind for _, kind, _ in parsed(client.get(f"/api/executions/{answer['id']}/events").text)]
    assert sorted(kinds) == ["end", "stderr", "stdout"]
    killed = command(client, session_id, "kill -9 $$")
    assert (killed["status"], killed["exit_code"]) == ("error", None)
    assert "SIGKILL" in killed["reason"]
    code = client.post(f"/api/sessions/{session_id}/execute", json={"code": "1"}).json()
    assert "exit_code" not in code


def test_all_that_may_be_asked_for(client: httpx2.Client, session_id: str) -> None:
    command(client, session_id, "mkdir -p a/b")
    answer = command(
        client, session_id, "pwd; echo $A; cat; seq 1 20000",
        cwd="a/b", env={"A": "ü"}, stdin="given\n", output_bytes=50, timeout_s=10, cpu_s=5,
    )  # fmt: skip
    assert answer["stdout"].startswith("/workspace/a/b\nü\ngiven\n1\n")
    assert answer["truncated"] is True
    assert answer["output_file"]["bytes"] > 50_000
    late = command(client, session_id, "sleep 60", timeout_s=0.2)
    assert (late["status"], late["exit_code"]) == ("timeout", None)


def test_as_events(client: httpx2.Client, session_id: str) -> None:
    with client.stream(
        "POST", f"/api/sessions/{session_id}/commands", json={"command": "echo on; exit 4"}, headers=EVENTS
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    events = parsed(text)
    assert [kind for _, kind, _ in events] == ["stdout", "end"]
    assert (events[-1][2]["status"], events[-1][2]["exit_code"]) == ("error", 4)
    execution = response.headers["onehop-execution-id"]
    rest = client.get(f"/api/executions/{execution}/events", headers={"last-event-id": "1"})
    assert parsed(rest.text) == events[1:]
    code = client.post(f"/api/sessions/{session_id}/execute", json={"code": "1"}, headers=EVENTS)
    assert "exit_code" not in parsed(code.text)[-1][2]


def test_beside_code_and_many_at_once(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    started = [command(client, session_id, "sleep 60", background=True)["id"] for _ in range(16)]
    assert_problem(client.post(f"{path}/commands", json={"command": "true"}), 429, "too-many")
    assert client.post(f"{path}/execute", json={"code": "6 * 7"}).json()["results"] == [{"text/plain": "42"}]
    assert set(client.get(path).json()["executions"]) == set(started)
    for one in started:
        assert client.delete(f"{path}/commands/{one}").status_code == 204
    for one in started:
        assert ended(client, one)["status"] == "killed"
    eventually(lambda: client.get(path).json()["status"] == "idle")
    assert command(client, session_id, "true")["status"] == "ok"


def test_in_the_background_listed_fed_signalled_and_killed(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/commands"
    text = "trap 'echo term; exit 7' TERM; while read line; do echo got $line; done; while :; do sleep 0.01; done"
    made = client.post(path, json={"command": text, "background": True, "stdin_open": True, "stdin": "one\n"})
    assert made.status_code == 202
    info = made.json()
    assert made.headers["onehop-execution-id"] == info["id"]
    assert info.keys() == {
        "id", "command", "status", "exit_code", "pid", "background", "stdin_open", "started_at", "ended_at",
    }  # fmt: skip
    assert (info["status"], info["exit_code"], info["ended_at"], info["command"]) == (
        "running",
        None,
        None,
        text,
    )
    one = f"{path}/{info['id']}"
    written(client, info["id"], "got one")
    assert client.post(f"{one}/stdin", content=b"two\n", headers=OCTETS).status_code == 204
    written(client, info["id"], "got two")
    assert client.post(f"{one}/stdin?close=true", content=b"three\n", headers=OCTETS).status_code == 204
    written(client, info["id"], "got three")
    assert_problem(client.post(f"{one}/stdin", content=b"x", headers=OCTETS), 409, "conflict")
    assert client.get(one).json() == info
    assert [listed["id"] for listed in client.get(path).json()["commands"]] == [info["id"]]
    assert client.get(f"/api/executions/{info['id']}").json()["status"] == "running"
    assert client.post(f"{one}/signal", json={"signal": "TERM"}).status_code == 204
    answer = ended(client, info["id"])
    assert (answer["status"], answer["exit_code"]) == ("error", 7)
    assert answer["stdout"] == "got one\ngot two\ngot three\nterm\n"
    after = client.get(one).json()
    assert (after["status"], after["exit_code"]) == ("error", 7)
    assert after["ended_at"] >= after["started_at"]
    assert_problem(client.post(f"{one}/signal", json={"signal": 15}), 409, "conflict")
    assert client.delete(one).status_code == 204, "it has ended, which is what was asked for"


def test_what_is_refused(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/commands"
    for body in (
        {"command": ""}, {"command": "a\0b"}, {"command": 5}, {}, {"command": "true", "cwd": "nosuch"},
        {"command": "true", "cwd": "../.."}, {"command": "true", "cwd": "/etc"}, {"command": "true", "cwd": "a\0b"},
        {"command": "true", "env": {"A=B": "x"}}, {"command": "true", "env": {"A": "x\0"}}, {"command": "true", "timeout_s": 0},
        {"command": "true", "code": "1"}, {"command": "true", "background": 1},
    ):  # fmt: skip
        assert client.post(path, json=body).status_code == 422, body
    assert_problem(client.post(path, json={"command": "#" + "x" * 131_071}), 413, "too-large")
    assert command(client, session_id, "#" + "x" * 131_070)["status"] == "ok"
    assert_problem(client.post(path, json={"command": ":", "stdin": "x" * (1 << 20) + "x"}), 413, "too-large")
    for missing in ("nosuch", "exe_nosuch"):
        assert_problem(client.get(f"{path}/{missing}"), 404, "command-not-found")
        assert_problem(client.delete(f"{path}/{missing}"), 404, "command-not-found")
        assert_problem(client.post(f"{path}/{missing}/signal", json={"signal": 9}), 404, "command-not-found")
        assert_problem(
            client.post(f"{path}/{missing}/stdin", content=b"x", headers=OCTETS), 404, "command-not-found"
        )
    info = command(client, session_id, "sleep 60", background=True)
    one = f"{path}/{info['id']}"
    for signal in ("NOPE", 0, 65, -9, 1 << 70, None):
        assert_problem(
            client.post(f"{one}/signal", json={"signal": signal}), 422, "invalid-request", field="signal"
        )
    assert_problem(client.post(f"{one}/stdin", content=b"x", headers=OCTETS), 409, "conflict")
    assert client.post(f"{one}/stdin", json={}).status_code == 415
    assert client.delete(one).status_code == 204


def test_stdin_has_a_bound(client: httpx2.Client, session_id: str) -> None:
    info = command(client, session_id, "sleep 60", background=True, stdin_open=True)
    path = f"/api/sessions/{session_id}/commands/{info['id']}/stdin"
    assert_problem(client.post(path, content=bytes((1 << 20) + 1), headers=OCTETS), 413, "too-large")
    assert client.post(path, content=bytes(1 << 20), headers=OCTETS).status_code == 204
    answer = client.post(path, content=bytes(1 << 20), headers=OCTETS)
    assert_problem(answer, 429, "too-many")
    client.delete(f"/api/sessions/{session_id}/commands/{info['id']}")


def test_an_idempotency_key(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/commands"
    for fields in ({}, {"background": True}):
        key = {"idempotency-key": f"command-{len(fields)}"}
        body = {"command": "echo x >> lines; exit 2", **fields}
        first = client.post(path, json=body, headers=key)
        execution = first.json()["id"]
        assert ended(client, execution)["exit_code"] == 2
        again = client.post(path, json=body, headers=key)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.json()["id"]) == (first.status_code, execution)
        assert_problem(
            client.post(path, json={**body, "command": "true"}, headers=key), 422, "idempotency-key-reused"
        )
    assert command(client, session_id, "wc -l < lines")["stdout"] == "2\n"


@pytest.mark.parametrize(("choice", "status"), [("continue", "ok"), ("interrupt", "interrupted")])
def test_a_client_that_hangs_up(client: httpx2.Client, session_id: str, choice: str, status: str) -> None:
    body = {"command": "echo on; while [ ! -e go ]; do sleep 0.01; done", "on_disconnect": choice}
    with client.stream("POST", f"/api/sessions/{session_id}/commands", json=body, headers=EVENTS) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
    if choice == "continue":
        assert client.get(f"/api/executions/{execution}").json()["status"] == "running"
        command(client, session_id, "touch go")
    assert ended(client, execution)["status"] == status


def test_it_counts_as_use_of_the_session(client: httpx2.Client) -> None:
    path = client.post("/api/sessions", json={"idle_timeout_s": 1}).headers["location"]
    name = path.rpartition("/")[2]
    info = command(client, name, "sleep 3", background=True)
    assert client.get(path).json()["status"] == "busy"
    assert ended(client, info["id"])["status"] == "ok"


def test_the_session_takes_its_commands_along(client: httpx2.Client) -> None:
    path = client.post("/api/sessions", json={}).headers["location"]
    info = command(client, path.rpartition("/")[2], "sleep 60", background=True)
    assert client.delete(path).status_code == 204
    answer = ended(client, info["id"])
    assert (answer["status"], answer["exit_code"]) == ("killed", None)
    assert_problem(client.get(f"{path}/commands"), 410, "session-ended", reason="deleted")


def test_out_of_memory(client: httpx2.Client) -> None:
    path = client.post("/api/sessions", json={"memory_mb": 256}).headers["location"]
    eat = "python3 -I -c 'x = [bytearray(1 << 20) for i in range(4000)]'"
    answer = command(client, path.rpartition("/")[2], f"{eat}; echo on")
    assert (answer["status"], answer["exit_code"]) == ("out_of_memory", None)
    assert_problem(client.get(f"{path}/commands"), 410, "session-ended", reason="out_of_memory")


@pytest.fixture
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


def test_kill_9_of_the_gateway_loses_no_command_and_no_context(
    own_supervisor: SupervisorHandle, home: Path
) -> None:
    first = Gateway(own_supervisor.path, home)
    try:
        with httpx2.Client(base_url=first.url, timeout=30) as client:
            path = client.post("/api/sessions", json={}).headers["location"]
            name = path.rpartition("/")[2]
            client.post(f"{path}/contexts", json={"name": "other"})
            client.post(f"{path}/execute", json={"code": "v = 8", "context": "other"})
            text = "while read line; do echo got $line; done; exit 6"
            info = command(client, name, text, background=True, stdin_open=True, stdin="one\n")
            written(client, info["id"], "got one")
            unheard = command(client, name, "sleep 1; echo meanwhile; exit 5", background=True)
    finally:
        first.kill()
    second = Gateway(own_supervisor.path, home)
    try:
        with httpx2.Client(base_url=second.url, timeout=30) as client:
            assert set(client.get(path).json()["executions"]) >= {info["id"]}
            listed = {one["id"]: one for one in client.get(f"{path}/commands").json()["commands"]}
            assert listed[info["id"]] == info
            one = f"{path}/commands/{info['id']}"
            assert client.post(f"{one}/stdin?close=true", content=b"two\n", headers=OCTETS).status_code == 204
            answer = ended(client, info["id"])
            assert (answer["status"], answer["exit_code"]) == ("error", 6)
            assert answer["stdout"] == "got one\ngot two\n"
            events = parsed(client.get(f"/api/executions/{info['id']}/events").text)
            assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
            other = ended(client, unheard["id"])
            assert (other["exit_code"], other["stdout"]) == (5, "meanwhile\n")
            assert [one["name"] for one in client.get(f"{path}/contexts").json()["contexts"]] == [
                "main",
                "other",
            ]
            kept = client.post(f"{path}/execute", json={"code": "v", "context": "other"}).json()
            assert kept["results"] == [{"text/plain": "8"}]
            assert client.delete(path).status_code == 204
    finally:
        assert second.stop() == 0, second.log.read_text()
