"""Several executions and commands in one request: side by side, in order where they must be, each on its own."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import JSON, assert_problem
from tests.api.test_executions import EVENTS, parsed

MEET = """
import pathlib, time
pathlib.Path("{mine}").touch()
deadline = time.monotonic() + {patience_s}
while not (there := pathlib.Path("{other}").exists()) and time.monotonic() < deadline:
    time.sleep(0.01)
there
"""


def post(client: httpx2.Client, *items: dict[str, Any], headers: Any = None, **more: Any) -> httpx2.Response:
    return client.post("/api/batch", json={"items": items, **more}, headers=headers)


def answers(client: httpx2.Client, *items: dict[str, Any], headers: Any = None, **more: Any) -> list[Any]:
    response = post(client, *items, headers=headers, **more)
    assert response.status_code == 200, response.text
    document = response.json()
    assert list(document) == ["answers"]
    found: list[Any] = document["answers"]
    assert len(found) == len(items)
    return found


def code(text: str, session: str | None = None, **more: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"execute": {"code": text, **more}}
    return item if session is None else {"session": session, **item}


def values(found: list[Any]) -> list[Any]:
    return [one["results"][-1]["text/plain"] if one.get("status") == "ok" else one["type"] for one in found]


def kind(problem: dict[str, Any]) -> str:
    return str(problem["type"].removeprefix("urn:onehop:problem:"))


def lines(client: httpx2.Client, session_id: str) -> str:
    return client.get(f"/api/sessions/{session_id}/files/lines.txt").text


def test_answers_are_those_of_requests_of_their_own_in_order(client: httpx2.Client) -> None:
    found = answers(client, *(code(str(n), files={"a": "x"}) for n in range(12)))
    assert values(found) == [str(n) for n in range(12)]
    alone = client.post("/api/execute", json={"code": "1"}).json()
    assert [set(one) for one in found] == [set(alone)] * 12
    assert len({one["id"] for one in found}) == 12
    assert client.get(f"/api/executions/{found[3]['id']}").json() == found[3]


def test_one_session_and_context_is_in_order(client: httpx2.Client, session_id: str) -> None:
    items = [code("trace = [0]\n0", session_id)]
    items += [code(f"trace.append({n})\nlen(trace)", session_id) for n in range(1, 6)]
    items += [code("open('t', 'w').write('hi'); 7", session_id)]
    items += [{"session": session_id, "command": {"command": "cat t; rm t"}}]
    items += [code("import os; os.path.exists('t'), trace", session_id)]
    found = answers(client, *items)
    assert found[7]["stdout"] == "hi"
    del found[7]
    assert values(found) == ["0", "2", "3", "4", "5", "6", "7", "(False, [0, 1, 2, 3, 4, 5])"]


def test_others_run_side_by_side_at_most_parallel(client: httpx2.Client, session_id: str) -> None:
    assert client.post(f"/api/sessions/{session_id}/contexts", json={"name": "b"}).status_code == 201
    first = code(MEET.format(mine="a", other="b", patience_s=30), session_id)
    second = code(MEET.format(mine="b", other="a", patience_s=30), session_id, context="b")
    assert values(answers(client, first, second)) == ["True", "True"]
    alone = [
        code(MEET.format(mine="c", other="d", patience_s=0.3), session_id),
        code(MEET.format(mine="d", other="c", patience_s=0.3), session_id, context="b"),
    ]
    assert values(answers(client, *alone, parallel=1)) == ["False", "True"]


def test_a_refused_item_touches_no_other(client: httpx2.Client, session_id: str) -> None:
    ended = client.post("/api/sessions", json={}).json()["id"]
    client.delete(f"/api/sessions/{ended}")
    found = answers(
        client,
        code("1"),
        code("2", "ses_" + "A" * 43),
        code("3", ended),
        code("4", environment="nowhere"),
        code("5", session_id, context="none"),
        code("1 / 0"),
        {"session": ended, "command": {"command": "true"}},
        code("8", session_id),
    )
    assert [one.get("status") for one in found if one.get("id")] == ["ok", "error", "ok"]
    assert [kind(one) for one in found if "id" not in one] == [
        "session-not-found",
        "session-ended",
        "unknown-environment",
        "context-not-found",
        "session-ended",
    ]
    assert all(one["request_id"] and one["detail"] for one in found if "id" not in one)


@pytest.mark.parametrize(
    ("item", "status", "name", "field"),
    [
        ({}, 422, "invalid-request", "items[1]"),
        ({"execute": {"code": "1"}, "command": {"command": "true"}}, 422, "invalid-request", "items[1]"),
        ({"command": {"command": "true"}}, 422, "invalid-request", "items[1].session"),
        ({"execute": {}}, 422, "invalid-request", "items[1].execute.code"),
        ({"execute": {"code": ""}}, 422, "invalid-request", "items[1].execute.code"),
        ({"execute": {"code": 5}}, 422, "invalid-request", "items[1].execute.code"),
        ({"execute": {"code": "1", "timeout_s": 1e9}}, 422, "invalid-request", "items[1].execute.timeout_s"),
        ({"execute": {"code": "1", "memory_mb": 1 << 40}}, 422, "invalid-request", "items[1].execute.memory_mb"),
        ({"execute": {"code": "1", "context": "b"}}, 422, "invalid-request", "items[1].execute.context"),
        ({"execute": {"code": "1", "files": {"../a": ""}}}, 422, "invalid-path", None),
        ({"execute": {"code": "x" * 100_001}}, 413, "too-large", None),
        ({"execute": {"code": "1", "tools": ["none"]}}, 422, "invalid-request", "items[1].execute.tools"),
        ({"execute": {"code": "1", "imports": {}}}, 422, "invalid-request", "items[1].execute.imports"),
        ({"session": "s", "execute": {"code": "1", "memory_mb": 64}}, 422, "invalid-request", "items[1].execute.memory_mb"),
        ({"session": "s", "execute": {"code": "1", "return_files": True}}, 422, "invalid-request", "items[1].execute.return_files"),
        ({"session": "s", "command": {"command": " "}}, 422, "invalid-request", "items[1].command.command"),
        ({"session": 5, "execute": {"code": "1"}}, 422, "invalid-request", "items[1].session"),
        ({"nothing": 1}, 422, "invalid-request", "items[1].nothing"),
    ],
)  # fmt: skip
def test_nothing_runs_when_an_item_is_wrong(
    client: httpx2.Client, session_id: str, item: Any, status: int, name: str, field: str | None
) -> None:
    first = code("open('lines.txt', 'w')", session_id)
    problem = assert_problem(post(client, first, item), status, name)
    assert problem.get("field") == field
    assert "items[1]" in problem["detail"]
    assert client.get(f"/api/sessions/{session_id}/files/lines.txt").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "name", "field"),
    [
        (b"", 400, "invalid-json", None),
        (b"{}", 422, "invalid-request", "items"),
        (b'{"items": []}', 422, "invalid-request", "items"),
        (b'{"items": {}}', 422, "invalid-request", "items"),
        (json.dumps({"items": [code("1")] * 101}).encode(), 422, "invalid-request", "items"),
        (json.dumps({"items": [code("1")], "parallel": 0}).encode(), 422, "invalid-request", "parallel"),
        (json.dumps({"items": [code("1")], "parallel": 65}).encode(), 422, "invalid-request", "parallel"),
        (b'{"items": [' + b"[" * 5_000_000, 413, "too-large", None),
    ],
)
def test_what_is_no_batch(
    client: httpx2.Client, body: bytes, status: int, name: str, field: str | None
) -> None:
    response = client.post("/api/batch", content=body, headers=JSON)
    assert assert_problem(response, status, name).get("field") == field
    wrong = client.post("/api/batch", content=b'{"items": []}', headers={"content-type": "text/plain"})
    assert_problem(wrong, 415, "unsupported-media-type")


def test_one_stream(client: httpx2.Client, session_id: str) -> None:
    items = (
        code("print('one'); 1"),
        code("2", "ses_" + "A" * 43),
        code("print('three'); 1 / 0", session_id),
        {"session": session_id, "command": {"command": "sleep 60", "background": True}},
    )
    response = post(client, *items, headers=EVENTS, parallel=1)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = parsed(response.text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert [(name, data.get("item")) for _, name, data in events] == [
        ("stdout", 0),
        ("result", 0),
        ("end", 0),
        ("problem", 1),
        ("stdout", 2),
        ("error", 2),
        ("end", 2),
        ("answer", 3),
        ("batch_end", None),
    ]
    by_kind = {(name, data.get("item")): data for _, name, data in events}
    assert by_kind["stdout", 0]["data"] == {"text": "one\n"}
    assert kind(by_kind["problem", 1]["data"]) == "session-not-found"
    assert by_kind["answer", 3]["data"]["status"] == "running"
    assert by_kind["batch_end", None] == {"items": 4}
    # Each item's events are those of its execution.
    execution = by_kind["end", 2]["execution"]
    own = parsed(client.get(f"/api/executions/{execution}/events").text)
    assert own == [(d["number"], n, d["data"]) for _, n, d in events if d.get("item") == 2]


def test_events_of_items_come_while_they_happen(client: httpx2.Client, session_id: str) -> None:
    items = (
        code("print('now', flush=True)\ninput()", session_id, stdin=""),
        code("import time; time.sleep(60)"),
    )
    with client.stream("POST", "/api/batch", json={"items": items}, headers=EVENTS) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if "now" in text and '"error"' in text:
                break
    assert "batch_end" not in text


def test_a_suspended_item_is_its_answer(client: httpx2.Client, session_id: str) -> None:
    tool = {"name": "ask", "parameters": {"type": "object", "properties": {}}}
    found = answers(
        client,
        code("import tools\ntools.ask()", session_id, tools=[tool]),
        code("1", session_id),
        code("2"),
    )
    assert [found[0]["status"], kind(found[1]), found[2]["status"]] == [
        "tool_call_required",
        "session-busy",
        "ok",
    ]
    results = {"results": [{"id": found[0]["tool_calls"][0]["id"], "result": 42}]}
    response = client.post(f"/api/executions/{found[0]['id']}/tool_results", json=results)
    assert response.json()["results"] == [{"text/plain": "42"}]
    streamed = post(client, code("tools.ask()", session_id, tools=[tool]), headers=EVENTS)
    assert [name for _, name, _ in parsed(streamed.text)][-2:] == ["tool_call_required", "batch_end"]


def test_who_hangs_up_ends_only_what_asked_for_it(client: httpx2.Client, session_id: str) -> None:
    stopped = "print('begun', flush=True)\nimport time; time.sleep(100)"
    items = (
        code(stopped, session_id, on_disconnect="interrupt"),
        code("open('lines.txt', 'w').write('not begun')", session_id, on_disconnect="interrupt"),
        code("open('lines.txt', 'a').write('went on'); 1", session_id),
    )
    with client.stream("POST", "/api/batch", json={"items": items}, headers=EVENTS) as response:
        for piece in response.iter_text():
            if "begun" in piece:
                break
    tenants.until(lambda: lines(client, session_id) == "went on", 20)
    tenants.until(lambda: client.get(f"/api/sessions/{session_id}").json()["status"] == "idle")
    # Without a stream the same.
    with contextlib.suppress(httpx2.TimeoutException):
        client.post("/api/batch", json={"items": items}, timeout=0.5)
    tenants.until(lambda: lines(client, session_id) == "went onwent on", 20)


def test_lambdas(client: httpx2.Client, session_id: str) -> None:
    small = {"lambda": {"code": "lambda x: sum(x)", "args": [[1, 2, 3]]}}
    items = (
        small,
        code("2", session_id),
        {"lambda": {"code": "lambda: undefined_name"}},
        {"lambda": {"code": "import numpy; int(numpy.ones(3).sum())"}},
    )
    added, executed, failed, fallen_back = answers(client, *items)
    assert (added["status"], added["value"], executed["status"]) == ("ok", 6, "ok")
    assert (failed["status"], failed["error"]["name"]) == ("error", "NameError")
    assert (fallen_back["value"], fallen_back["engine"]) == (3, "sandbox")
    events = parsed(post(client, small, headers=EVENTS).text)
    assert [name for _, name, _ in events] == ["answer", "batch_end"]
    assert events[0][2]["data"]["value"] == 6
    for wrong, field in (
        ({"lambda": {"code": "1", "args": 5}}, "items[1].lambda.args"),
        ({"lambda": {"code": " "}}, "items[1].lambda.code"),
        ({"lambda": {"code": "1", "timeout_s": 1e9}}, "items[1].lambda.timeout_s"),
        ({"lambda": {"code": "1"}, "session": session_id}, "items[1]"),
        ({"lambda": {"code": "1"}, "execute": {"code": "1"}}, "items[1]"),
    ):
        assert_problem(post(client, small, wrong), 422, "invalid-request", field=field)


# --- keys of idempotency --------------------------------------------------------------------------------


def test_the_same_key_runs_nothing_twice(client: httpx2.Client, session_id: str) -> None:
    key = {"Idempotency-Key": "batch-again"}
    items = (code("open('lines.txt', 'a').write('x'); 1", session_id), code("2"), code("3", "ses_none"))
    first = post(client, *items, headers=key)
    second = post(client, *items, headers=key)
    assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (
        False,
        "true",
    )
    assert first.json()["answers"][:2] == second.json()["answers"][:2]
    assert lines(client, session_id) == "x"
    events = parsed(post(client, *items, headers={**key, **EVENTS}).text)
    assert sorted(name for _, name, _ in events) == ["batch_end", "end", "end", "problem", "result", "result"]
    assert lines(client, session_id) == "x"
    assert_problem(post(client, items[0], headers=key), 422, "idempotency-key-reused")
    elsewhere = client.post("/api/execute", json={"code": "1"}, headers=key)
    assert_problem(elsewhere, 422, "idempotency-key-reused")
    assert_problem(post(client, *items, headers={"Idempotency-Key": "a b"}), 422, "invalid-request")


def test_while_it_runs(client: httpx2.Client, session_id: str) -> None:
    key = {"Idempotency-Key": "batch-running"}
    items = [
        code("open('lines.txt', 'a').write('x'); 1", session_id),
        code("import time; time.sleep(100)", session_id),
    ]
    found: list[Any] = []

    def wait() -> None:
        found.append(post(client, *items, headers=key).json())

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        tenants.until(lambda: lines(client, session_id) == "x", 20)
        assert_problem(post(client, *items, headers=key), 409, "idempotency-in-progress")
        while thread.is_alive():
            client.post(f"/api/sessions/{session_id}/interrupt", json={})
            thread.join(0.1)
    finally:
        thread.join()
    assert [one["status"] for one in found[0]["answers"]] == ["ok", "interrupted"]
    assert answers(client, *items, headers=key) == found[0]["answers"]


@pytest.fixture
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


def test_a_killed_gateway_amid_a_batch(own_supervisor: SupervisorHandle, home: Path) -> None:
    key = {"Idempotency-Key": "batch-killed"}
    gateway = Gateway(own_supervisor.path, home)
    try:
        with httpx2.Client(base_url=gateway.url, timeout=30) as client:
            session = client.post("/api/sessions", json={}).json()["id"]
            items = [
                code("open('lines.txt', 'a').write('1'); 1", session),
                code("print('begun', flush=True)\nimport time; time.sleep(2)\nopen('lines.txt', 'a').write('2'); 2", session),
                code("open('lines.txt', 'a').write('3'); 3", session),
            ]  # fmt: skip
            with client.stream(
                "POST", "/api/batch", json={"items": items}, headers={**EVENTS, **key}
            ) as response:
                for piece in response.iter_text():
                    if "begun" in piece:
                        break
                gateway.kill()
    finally:
        gateway.kill()
    gateway = Gateway(own_supervisor.path, home)
    with httpx2.Client(base_url=gateway.url, timeout=30) as client:
        assert values(answers(client, *items, headers={**key})) == ["1", "2", "3"]
        assert lines(client, session) == "123"
    assert gateway.stop() == 0


# --- tenants --------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(own_supervisor: SupervisorHandle, home: Path) -> Iterator[tuple[Gateway, Path]]:
    (home / "state").mkdir(mode=0o700, parents=True)
    tenants.tenant(home, "ops", "admin")
    gateway = Gateway(own_supervisor.path, home)
    yield gateway, home
    assert gateway.stop() == 0


def test_limits_of_the_key_hold_per_item(guarded: tuple[Gateway, Path]) -> None:
    gateway, home = guarded
    key = tenants.tenant(home, "alice", executions_per_minute=3)
    stranger = tenants.tenant(home, "bob")
    with tenants.client(gateway.url, key) as alice, tenants.client(gateway.url, stranger) as bob:
        tenants.until(lambda: bob.get("/api/info").status_code == 200)
        mine = bob.post("/api/sessions", json={}).json()["id"]
        found = answers(alice, *(code(str(n)) for n in range(5)), code("6", mine), parallel=1)
        assert values(found)[:3] == ["0", "1", "2"]
        assert [kind(one) for one in found[3:]] == ["too-many", "too-many", "session-not-found"]
        assert found[3]["limit"] == "executions_per_minute"
        assert values(answers(bob, code("1"), code("2", mine))) == ["1", "2"]


def test_a_batch_of_many_takes_no_longer_than_its_lanes(client: httpx2.Client) -> None:
    began_s = time.monotonic()
    found = answers(client, *(code("import time; time.sleep(0.5); 1") for _ in range(8)))
    assert values(found) == ["1"] * 8
    assert time.monotonic() - began_s < 8 * 0.5
