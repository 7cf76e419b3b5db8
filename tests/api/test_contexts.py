"""Contexts over HTTP: made, listed, restarted, deleted; one execution at a time in each."""

from __future__ import annotations

import re
import threading

import httpx2
import pytest

from tests.api.test_bad_input import assert_problem
from tests.api.test_executions import EVENTS

UNTIL = "import os, time\nprint('on', flush=True)\nwhile not os.path.exists('{go}'): time.sleep(0.01)\n'{go}'"


def run(client: httpx2.Client, session_id: str, code: str, context: str = "main") -> str:
    """text/plain of the last expression."""
    answer = client.post(
        f"/api/sessions/{session_id}/execute", json={"code": code, "context": context}
    ).json()
    assert answer["status"] == "ok", answer
    text: str = answer["results"][-1]["text/plain"] if answer["results"] else ""
    return text


def test_made_listed_and_deleted(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/contexts"
    run(client, session_id, "import os; os.mkdir('sub')")
    made = client.post(path, json={"name": "plots", "cwd": "sub"})
    assert made.status_code == 201
    assert made.headers["location"] == f"{path}/plots"
    context = made.json()
    assert context | {"created_at": "", "status": ""} == {
        "name": "plots", "status": "", "cwd": "sub", "created_at": "",
    }  # fmt: skip
    assert run(client, session_id, "import os; os.getcwd()", "plots") == "'/workspace/sub'"
    listed = client.get(path).json()["contexts"]
    assert [one["name"] for one in listed] == ["main", "plots"]
    session = client.get(f"/api/sessions/{session_id}").json()
    assert listed[0]["created_at"] <= listed[1]["created_at"]
    assert abs(float(listed[0]["created_at"][17:23]) - float(session["created_at"][17:23])) % 60 < 5
    assert client.get(f"{path}/plots").json() == context | {"status": "idle"}
    assert client.delete(f"{path}/plots").status_code == 204
    assert_problem(client.get(f"{path}/plots"), 404, "context-not-found")
    assert_problem(client.delete(f"{path}/plots"), 404, "context-not-found")
    assert_problem(client.post(f"{path}/plots/restart", json={}), 404, "context-not-found")
    gone = client.post(f"/api/sessions/{session_id}/execute", json={"code": "1", "context": "plots"})
    assert_problem(gone, 404, "context-not-found")
    assert_problem(
        client.post(f"/api/sessions/{session_id}/interrupt", json={"context": "plots"}),
        404,
        "context-not-found",
    )
    assert_problem(client.delete(f"{path}/main"), 409, "conflict")


def test_a_name_is_given_where_none_was_asked_for(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/contexts"
    names = {client.post(path, json={}).json()["name"], client.post(path, headers={"content-type": "application/json"}).json()["name"]}  # fmt: skip
    assert len(names) == 2
    assert all(re.fullmatch(r"ctx-[0-9a-f]{8}", name) for name in names)


def test_what_is_refused(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/contexts"
    for name in ("", "a b", "a/b", "x" * 65, "!exe_1", "é", "a\n"):
        assert_problem(client.post(path, json={"name": name}), 422, "invalid-request", field="name")
        execute = client.post(f"/api/sessions/{session_id}/execute", json={"code": "1", "context": name})
        assert_problem(execute, 422, "invalid-request", field="context")
    for cwd in ("nosuch", "nosuch/../.."):
        answer = client.post(path, json={"name": "x", "cwd": cwd})
        assert answer.status_code == 422, answer.text
    for cwd in ("..", "/etc", "a\0b", "x" * 5000):
        assert client.post(path, json={"name": "x", "cwd": cwd}).status_code == 422
    for name in ("a", "main"):
        client.post(path, json={"name": "a"})
        assert_problem(client.post(path, json={"name": name}), 409, "conflict")
    while (answer := client.post(path, json={})).status_code == 201:
        pass
    assert_problem(answer, 429, "too-many")
    assert len(client.get(path).json()["contexts"]) == 8
    assert_problem(
        client.post("/api/execute", json={"code": "1", "context": "a"}),
        422,
        "invalid-request",
        field="context",
    )
    assert run(client, session_id, "1 + 1") == "2"


def test_side_by_side(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    client.post(f"{path}/contexts", json={"name": "other"})
    with client.stream(
        "POST", f"{path}/execute", json={"code": UNTIL.format(go="go"), "context": "other"}, headers=EVENTS
    ) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
        assert run(client, session_id, "'beside'") == "'beside'"
        assert client.get(f"{path}/contexts/other").json()["status"] == "busy"
        assert client.get(f"{path}/contexts/main").json()["status"] == "idle"
        assert client.get(path).json()["executions"] == [execution]
        busy = client.post(f"{path}/execute", json={"code": "1", "context": "other"})
        assert_problem(busy, 409, "session-busy", execution=execution)
        assert client.post(f"{path}/interrupt", json={}).json() == {"interrupted": False}
        client.put(f"{path}/files/go", content=b"", headers={"content-type": "application/octet-stream"})
    answer = client.get(f"/api/executions/{execution}", params={"wait_s": 20}).json()
    assert (answer["status"], answer["results"]) == ("ok", [{"text/plain": "'go'"}])
    assert "exit_code" not in answer


def test_interrupt_of_one(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    client.post(f"{path}/contexts", json={"name": "other"})
    begun = []
    for context in ("main", "other"):
        body = {"code": f"mine = '{context}'\n" + UNTIL.format(go="go"), "context": context}
        with client.stream("POST", f"{path}/execute", json=body, headers=EVENTS) as response:
            next(response.iter_text())
            begun.append(response.headers["onehop-execution-id"])
    assert client.post(f"{path}/interrupt", json={"context": "other"}).json() == {"interrupted": True}
    answer = client.get(f"/api/executions/{begun[1]}", params={"wait_s": 20}).json()
    assert (answer["status"], answer["variables"]) == ("interrupted", "kept")
    assert client.get(f"/api/executions/{begun[0]}").json()["status"] == "running"
    assert run(client, session_id, "mine", "other") == "'other'"
    client.put(f"{path}/files/go", content=b"", headers={"content-type": "application/octet-stream"})
    assert client.get(f"/api/executions/{begun[0]}", params={"wait_s": 20}).json()["status"] == "ok"


def test_restart(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    client.post(f"{path}/contexts", json={"name": "other"})
    run(client, session_id, "v = 1; open('kept', 'w').close()", "other")
    run(client, session_id, "v = 2")
    answers = []

    def endless() -> None:
        body = {"code": "import time; time.sleep(60)", "context": "other"}
        answers.append(client.post(f"{path}/execute", json=body).json())

    thread = threading.Thread(target=endless)
    thread.start()
    while client.get(f"{path}/contexts/other").json()["status"] != "busy":
        pass
    restarted = client.post(f"{path}/contexts/other/restart", json={})
    assert (restarted.status_code, restarted.json()["name"]) == (200, "other")
    thread.join(20)
    assert (answers[0]["status"], answers[0]["variables"]) == ("killed", "lost")
    assert (
        run(client, session_id, "import os; 'v' in globals(), os.listdir()", "other") == "(False, ['kept'])"
    )
    assert run(client, session_id, "v") == "2"
    assert (
        client.post(f"{path}/contexts/main/restart", headers={"content-type": "application/json"}).status_code
        == 200
    )
    assert run(client, session_id, "'v' in globals()") == "False"


def test_deleting_one_that_is_at_work(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    client.post(f"{path}/contexts", json={"name": "other"})
    body = {"code": UNTIL.format(go="never"), "context": "other"}
    with client.stream("POST", f"{path}/execute", json=body, headers=EVENTS) as response:
        next(response.iter_text())
        execution = response.headers["onehop-execution-id"]
        assert client.delete(f"{path}/contexts/other").status_code == 204
    assert client.get(f"/api/executions/{execution}", params={"wait_s": 20}).json()["status"] == "killed"
    assert client.post(f"{path}/contexts", json={"name": "other"}).status_code == 201
    assert run(client, session_id, "1", "other") == "1"


@pytest.mark.parametrize("wall", ["out_of_memory", "protocol_error"])
def test_what_ends_the_session_in_one_ends_all(client: httpx2.Client, wall: str) -> None:
    path = client.post("/api/sessions", json={"memory_mb": 256}).headers["location"]
    client.post(f"{path}/contexts", json={"name": "other"})
    code = {"out_of_memory": "x = [bytearray(1 << 20) for i in range(4000)]", "protocol_error": "import os; os.write(3, b'x' * 99)"}[wall]  # fmt: skip
    answer = client.post(f"{path}/execute", json={"code": code, "context": "other"}).json()
    assert answer["status"] == wall
    assert_problem(client.get(f"{path}/contexts"), 410, "session-ended", reason=wall)
