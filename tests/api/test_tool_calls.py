"""Tools that the client owns: the code stops where it calls one, alive, and goes on with the result."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest

from tests.api.test_bad_input import assert_problem
from tests.api.test_executions import EVENTS, parsed

ADD = {
    "name": "add",
    "description": "The sum of two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number", "default": 0}},
        "required": ["a"],
    },
}
FORECAST = {
    "name": "weather.forecast",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def run(client: httpx2.Client, code: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/api/execute", json={"code": code, "tools": [ADD, FORECAST], **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def submit(
    client: httpx2.Client, execution: str, *results: dict[str, Any], **headers: str
) -> httpx2.Response:
    path = f"/api/executions/{execution}/tool_results"
    return client.post(path, json={"results": list(results)}, headers=headers)


def ids(answer: dict[str, Any]) -> list[str]:
    return [call["id"] for call in answer["tool_calls"]]


def ended(client: httpx2.Client, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer once it is the last one: the events of a GET go on until the end."""
    path = f"/api/executions/{answer['id']}"
    with client.stream("GET", f"{path}/events") as events:
        for _ in events.iter_text():
            pass
    last: dict[str, Any] = client.get(path).json()
    return last


def value(answer: dict[str, Any]) -> str:
    assert answer["status"] == "ok", answer
    text: str = answer["results"][-1]["text/plain"]
    return text


def test_a_call_suspends_and_goes_on(client: httpx2.Client) -> None:
    waiting = run(client, "print('before')\nx = tools.add(20, b=22)\nprint('after')\nx")
    assert waiting["status"] == "tool_call_required"
    assert waiting["stdout"] == "before\n"
    (call,) = waiting["tool_calls"]
    assert call == {
        "id": call["id"], "name": "add", "status": "pending", "arguments": {"a": 20, "b": 22}, "needs": "result",
    }  # fmt: skip
    done = submit(client, waiting["id"], {"id": call["id"], "result": 42}).json()
    assert (value(done), done["stdout"]) == ("42", "before\nafter\n")
    (ended,) = done["tool_calls"]
    assert (ended["name"], ended["status"]) == ("add", "ok")
    again = client.get(f"/api/executions/{waiting['id']}").json()
    assert again == done


def test_parallel_calls_come_together(client: httpx2.Client) -> None:
    code = "import asyncio\nawait asyncio.gather(*(tools.add(n, 1) for n in range(5)))"
    waiting = run(client, code)
    assert [call["arguments"]["a"] for call in waiting["tool_calls"]] == [0, 1, 2, 3, 4]
    results = [{"id": call["id"], "result": call["arguments"]["a"] + 1} for call in waiting["tool_calls"]]
    assert value(submit(client, waiting["id"], *results).json()) == "[1, 2, 3, 4, 5]"


def test_calls_of_threads_come_together(client: httpx2.Client) -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(3) as pool: found = list(pool.map(lambda n: tools.add(n), range(3)))\nfound"
    )
    waiting = run(client, code)
    assert sorted(call["arguments"]["a"] for call in waiting["tool_calls"]) == [0, 1, 2]
    results = [{"id": call["id"], "result": call["arguments"]["a"]} for call in waiting["tool_calls"]]
    assert value(submit(client, waiting["id"], *results).json()) == "[0, 1, 2]"


def test_some_results_first(client: httpx2.Client) -> None:
    waiting = run(client, "import asyncio\nawait asyncio.gather(tools.add(1), tools.add(2))")
    one, two = ids(waiting)
    still = submit(client, waiting["id"], {"id": two, "result": "b"}).json()
    assert (still["status"], ids(still)) == ("tool_call_required", [one])
    assert value(submit(client, waiting["id"], {"id": one, "result": "a"}).json()) == "['a', 'b']"


def test_an_error_is_raised_in_the_code(client: httpx2.Client) -> None:
    code = "try:\n    tools.weather.forecast('Oslo')\nexcept Exception as error:\n    print(type(error).__name__, error)"
    waiting = run(client, code)
    done = submit(client, waiting["id"], {"id": ids(waiting)[0], "error": "no such city"}).json()
    assert done["stdout"].startswith("ToolFailedError")
    assert "no such city" in done["stdout"]
    assert [(call["status"], call["error"]) for call in done["tool_calls"]] == [("error", "no such city")]


def test_a_program_that_fails_tells_how_its_calls_ended(client: httpx2.Client) -> None:
    code = "import asyncio\nfirst = await tools.add(1)\nlost = tools.add(2)\nawait asyncio.sleep(0)\n1 / 0"
    waiting = run(client, code)
    done = submit(client, waiting["id"], {"id": ids(waiting)[0], "result": 1}).json()
    assert (done["status"], done["error"]["name"]) == ("error", "ZeroDivisionError")
    assert [call["status"] for call in done["tool_calls"]] == ["ok", "abandoned"]


def test_a_session_has_its_tools(client: httpx2.Client) -> None:
    session = client.post("/api/sessions", json={"tools": [ADD]}).json()["id"]
    path = f"/api/sessions/{session}/execute"
    waiting = client.post(path, json={"code": "x = tools.add(1)"}).json()
    assert_problem(client.post(path, json={"code": "1"}), 409, "session-busy")
    assert submit(client, waiting["id"], {"id": ids(waiting)[0], "result": [7]}).json()["status"] == "ok"
    assert value(client.post(path, json={"code": "x"}).json()) == "[7]"
    without = client.post(path, json={"code": "tools.add(1)", "tools": []}).json()
    assert without["error"]["name"] == "NameError"
    assert client.delete(f"/api/sessions/{session}").status_code == 204


def test_the_deadline_stands_still(client: httpx2.Client) -> None:
    """Five rounds of 0.3 s each, in an execution that may take 1 s."""
    waiting = run(client, "import time\nfor n in range(5): tools.add(n)\nprint('done')", timeout_s=1)
    for _ in range(5):
        path = f"/api/executions/{waiting['id']}"
        assert client.get(path, params={"wait_s": 1}).json()["status"] == "tool_call_required"
        time.sleep(0.3)  # the client's own time, which is the point
        waiting = submit(client, waiting["id"], {"id": ids(waiting)[0], "result": None}).json()
    assert waiting["status"] == "ok", waiting
    assert waiting["usage"]["wall_ms"] < 1000


def test_nobody_answers(client: httpx2.Client) -> None:
    waiting = run(client, "tools.add(1)", tool_results_timeout_s=0.2)
    done = ended(client, waiting)
    assert (done["status"], done["reason"]) == ("timeout", "no results of its tool calls came within 0.2 s")
    assert_problem(
        submit(client, waiting["id"], {"id": ids(waiting)[0], "result": 1}), 409, "call-not-pending"
    )


def test_an_interrupt_ends_the_wait_and_keeps_the_variables(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    waiting = client.post(f"{path}/execute", json={"code": "kept = 5\ntools.add(1)", "tools": [ADD]}).json()
    assert client.post(f"{path}/interrupt", json={}).json() == {"interrupted": True}
    done = ended(client, waiting)
    assert (done["status"], done["variables"]) == ("interrupted", "kept")
    assert [call["status"] for call in done["tool_calls"]] == ["abandoned"]
    assert value(client.post(f"{path}/execute", json={"code": "kept"}).json()) == "5"


def test_a_session_that_is_deleted_while_it_waits(client: httpx2.Client) -> None:
    session = client.post("/api/sessions", json={"tools": [ADD]}).json()["id"]
    waiting = client.post(f"/api/sessions/{session}/execute", json={"code": "tools.add(1)"}).json()
    assert client.delete(f"/api/sessions/{session}").status_code == 204
    assert ended(client, waiting)["status"] == "killed"


def test_events_of_a_suspended_execution(client: httpx2.Client) -> None:
    body = {"code": "print('a')\nx = tools.add(1)\nprint('b')\nx", "tools": [ADD]}
    with client.stream("POST", "/api/execute", json=body, headers=EVENTS) as response:
        execution = response.headers["onehop-execution-id"]
        first = parsed("".join(response.iter_text()))
    assert [kind for _, kind, _ in first][-2:] == ["tool_call", "tool_call_required"]
    (call,) = first[-1][2]["tool_calls"]
    path = f"/api/executions/{execution}/tool_results"
    results = {"results": [{"id": call["id"], "result": 3}]}
    with client.stream("POST", path, json=results, headers=EVENTS) as response:
        second = parsed("".join(response.iter_text()))
    assert [number for number, _, _ in first + second] == list(range(1, len(first + second) + 1))
    kinds = [kind for _, kind, _ in second]
    assert (kinds[0], kinds[-1]) == ("tool_result", "end")
    with client.stream("GET", f"/api/executions/{execution}/events") as response:
        assert parsed("".join(response.iter_text())) == first + second


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"id": "call_99", "result": 1}, (409, "call-not-pending")),
        ({"id": "nonsense", "result": 1}, (409, "call-not-pending")),
        ({"id": "call_²", "result": 1}, (409, "call-not-pending")),
        ({"result": 1}, (422, "invalid-request")),
        ({"id": "HERE"}, (422, "invalid-request")),
        ({"id": "HERE", "result": 1, "error": "x"}, (422, "invalid-request")),
        ({"id": "HERE", "approve": True}, (422, "invalid-request")),
        ({"id": "HERE", "result": 1, "more": 1}, (422, "invalid-request")),
    ],
)
def test_what_is_no_result_changes_nothing(
    client: httpx2.Client, result: dict[str, Any], problem: tuple[int, str]
) -> None:
    waiting = run(client, "tools.add(1)")
    (call,) = ids(waiting)
    if result.get("id") == "HERE":
        result = {**result, "id": call}
    good = {"id": call, "result": 5}
    assert_problem(submit(client, waiting["id"], result), *problem)
    assert_problem(
        submit(client, waiting["id"], good, {"id": "call_99", "result": 1}), 409, "call-not-pending"
    )
    assert_problem(submit(client, waiting["id"], good, good), 422, "invalid-request")
    nan = b'{"results": [{"id": "%s", "result": NaN}]}' % call.encode()
    path = f"/api/executions/{waiting['id']}/tool_results"
    answer = client.post(path, content=nan, headers={"content-type": "application/json"})
    assert_problem(answer, 400, "invalid-json")
    assert value(submit(client, waiting["id"], good).json()) == "5"
    assert_problem(submit(client, waiting["id"], good), 409, "call-not-pending")


def test_a_result_that_the_kernel_cannot_take_is_an_error_there(client: httpx2.Client) -> None:
    waiting = run(client, "try:\n    tools.add(1)\nexcept Exception as error: print(type(error).__name__)")
    done = submit(client, waiting["id"], {"id": ids(waiting)[0], "result": 2**70}).json()
    assert done["stdout"] == "ToolResultError\n"


def test_results_that_are_too_large_for_a_request_change_nothing(client: httpx2.Client) -> None:
    waiting = run(client, "len(tools.add(1))")
    (call,) = ids(waiting)
    large = submit(client, waiting["id"], {"id": call, "result": "x" * 5_000_000})
    assert_problem(large, 413, "too-large")
    assert value(submit(client, waiting["id"], {"id": call, "result": "x" * 3_000_000}).json()) == "3000000"


def test_the_same_results_sent_twice_with_a_key_are_used_once(client: httpx2.Client) -> None:
    waiting = run(client, "[tools.add(1), 2]")
    result = {"id": ids(waiting)[0], "result": 1}
    headers = {"Idempotency-Key": f"results-{waiting['id']}"}
    first = submit(client, waiting["id"], result, **headers)
    again = submit(client, waiting["id"], result, **headers)
    assert value(first.json()) == "[1, 2]"
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        (["nothing.of.this.name"], "tools"),
        ([{"name": "1x"}], "tools[0].name"),
        ([{"name": "a..b"}], "tools[0].name"),
        ([{"name": "ok", "parameters": []}], "tools[0].parameters"),
        ([{"name": "ok", "code": "x"}], "tools[0].code"),
        ("add", "tools"),
    ],
)
def test_tools_that_there_are_not(client: httpx2.Client, tools: Any, field: str) -> None:
    for path, body in (("/api/execute", {"code": "1"}), ("/api/sessions", {})):
        problem = assert_problem(client.post(path, json={**body, "tools": tools}), 422, "invalid-request")
        assert problem["field"] == field


def test_a_budget_that_is_used_up_hurts_only_what_is_over_it(client: httpx2.Client) -> None:
    code = (
        "import asyncio\n"
        "found = await asyncio.gather(*(tools.add(n) for n in range(4)), return_exceptions=True)\n"
        "[type(one).__name__ for one in found]"
    )
    waiting = run(client, code, max_tool_calls=3)
    assert len(ids(waiting)) == 3
    done = submit(client, waiting["id"], *({"id": one, "result": 1} for one in ids(waiting))).json()
    assert value(done) == "['int', 'int', 'int', 'ToolBudgetError']"


def test_the_audit(client: httpx2.Client) -> None:
    before = counted(client)
    waiting = run(client, "tools.add(1)")
    submit(client, waiting["id"], {"id": ids(waiting)[0], "result": 5})
    path = f"/api/executions/{waiting['id']}/tool_calls"
    (row,) = client.get(path).json()["tool_calls"]
    assert (row["name"], row["status"], row["error"]) == ("add", "ok", "")
    assert row["bytes_out"] > 0
    assert row["bytes_in"] > 0
    assert len(row["arguments_sha256"]) == 64
    assert client.get(path, params={"after": row["number"]}).json() == {"tool_calls": []}
    assert_problem(client.get("/api/executions/exe_x/tool_calls"), 404, "execution-not-found")
    while counted(client) == before:
        pass
    assert counted(client) == before + 1
    assert 'onehop_tool_calls_total{status="ok"}' in client.get("/metrics").text


def counted(client: httpx2.Client) -> int:
    return sum(day["tool_calls"] for day in client.get("/api/usage").json()["usage"])
