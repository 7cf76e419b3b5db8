"""The model loop: what it does in a turn, and every way in which it ends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from onehop.agent import work
from onehop.agent.events import (
    CodeDelta,
    CodeEnded,
    CodeOutput,
    CodeStarted,
    CodeWritten,
    ContainerChoice,
    ContainerOpened,
    ForeignCall,
    Limits,
    TurnStarted,
)
from onehop.agent.model import Delta, Function, Message, ModelRequest, Options, TextPart, Tokens, TurnEnd
from onehop.agent.upstreams.codec import Capabilities
from onehop.agent.upstreams.router import Model
from onehop.errors import (
    InvalidRequestError,
    SessionBusyError,
    SessionEndedError,
    SessionNotFoundError,
    UpstreamError,
)
from onehop.sessions.calls import ClientTool
from onehop.sessions.requests import ExecuteRequest, SessionRequest
from tests.agent.looping import CITY, ME, WEATHER, Looping, asking, ended, of, python
from tests.models.script import Call, Calls, Gate, HangUp, Pause, Refusal, Reply, Text, Turn

FOREVER = "print('on', flush=True)\nwhile True: pass"


async def settled(loop: Looping) -> None:
    """Until nothing runs. Bounded by the test's own patience."""
    async with asyncio.timeout(10):
        while loop.running():
            await asyncio.sleep(0.01)


# --- turns --------------------------------------------------------------------------------------------


async def test_events_in_their_order(loop: Looping) -> None:
    code = "print('grüße 😀')\n6 * 7"
    loop.play([[Text("Let me see."), python(code)], [Text("It is 42.")]])
    events = await loop.run(asking())
    kinds = [type(one).__name__ for one in events if type(one).__name__ not in ("TextDelta", "CodeDelta")]
    assert kinds == [
        "TurnStarted", "ContainerOpened", "CodeStarted", "CodeWritten", "TurnEnd", "CodeRunning", "CodeOutput",
        "CodeShown", "CodeEnded", "TurnStarted", "TurnEnd", "LoopEnd",
    ]  # fmt: skip
    assert "".join(one.text for one in of(CodeDelta, events)) == code
    assert "".join(one.text for one in of(CodeOutput, events)) == "grüße 😀\n"
    started, written, done = of(CodeStarted, events), of(CodeWritten, events), of(CodeEnded, events)
    assert started[0].call == written[0].call == done[0].call
    end = ended(events)
    assert (end.reason, end.report.turns, end.report.executions) == ("answer", 2, 1)
    assert (end.tokens.input, end.tokens.output) == (20, 10)
    assert [one.role for one in end.transcript] == ["assistant", "user", "assistant"]
    assert loop.results(2) == ["grüße 😀\n42"]
    assert end.container == of(ContainerOpened, events)[0].container


async def test_commands_and_edits_in_the_same_container(loop: Looping) -> None:
    edit = {"command": "create", "path": "/workspace/a.txt", "file_text": "one\n"}
    loop.play(
        [
            [Call("text_editor", edit)],
            [Call("bash", {"command": "cat a.txt; echo bad >&2; exit 3"})],
            [python("open('a.txt').read()")],
            [Call("text_editor", {"command": "view", "path": "nothing"})],
            [Text("Done.")],
        ]
    )
    events = await loop.run(asking(kinds=["python", "bash", "editor"]))
    told = loop.results(5)
    assert told[0] == "Created a.txt"
    assert told[1] == "one\n[stderr]\nbad\n[exit status 3]"
    assert told[2] == "'one\\n'"
    assert "no file" in told[3]
    last = of(CodeEnded, events)[-1]
    assert (last.answer, last.result.error, last.output["error"]) == (None, True, "file_not_found")


async def test_a_clients_function_may_be_called_like_ours(loop: Looping) -> None:
    mine = Function(name="python", description="The client's.")
    loop.play([Turn([Calls([Call("onehop_python", {"code": "1"}), Call("python", {"x": 1})])])])
    events = await loop.run(asking(tools=[mine]))
    assert [one["function"]["name"] for one in loop.sent[0]["tools"]] == ["onehop_python", "python"]
    assert [one.part.name for one in of(ForeignCall, events)] == ["python"]
    assert ended(events).reason == "foreign_calls"
    assert of(CodeEnded, events)[0].result.name == "onehop_python"


async def test_who_wants_a_call_wants_one(loop: Looping) -> None:
    loop.play([[python("1")], [Text("1")]])
    await loop.run(asking(options=Options(choice="=python")))
    assert loop.sent[0]["tool_choice"]["function"]["name"] == "python"
    assert loop.sent[1].get("tool_choice") in (None, "auto")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"code": "1 +', "no JSON"),
        ("[1]", "JSON object"),
        ('{"code": 7}', "need 'code'"),
        ('{"code": "1", "context": "no such name"}', "context has to be"),
        ('{"code": "1", "context": 7.5}', "context has to be"),
        ('{"code": "print(\'\\ud800\')"}', "half a character"),
        ("[" * 5000, "no JSON"),
        ('{"a": ' + "[" * 5000, "no JSON"),
    ],
)
async def test_arguments_that_are_none(loop: Looping, arguments: str, told: str) -> None:
    loop.play([[Call("python", arguments, pieces=7)], [Text("Sorry.")]])
    events = await loop.run(asking())
    assert ended(events).reason == "answer"
    assert told in loop.results(2)[0]
    assert of(CodeEnded, events)[0].answer is None


async def test_contexts_run_side_by_side_and_one_of_them_in_order(loop: Looping) -> None:
    meet = (
        "import os, time\nopen({mine!r}, 'w').close()\nwhile not os.path.exists({other!r}): time.sleep(0.01)"
    )
    loop.play(
        [
            [
                Calls(
                    [
                        python(meet.format(mine="a", other="b") + "\nx = 1", context="one"),
                        python(meet.format(mine="b", other="a"), context="two"),
                        python("x + 1", context="one"),
                    ]
                )
            ],
            [Text("Met.")],
        ]
    )
    await loop.run(asking())
    assert loop.results(2)[2].startswith("2")


# --- ends ---------------------------------------------------------------------------------------------


async def test_ends_that_the_model_decides(loop: Looping) -> None:
    for turn, reason in (
        (Turn([Text("Fine.")]), "answer"),
        (Turn([Text("Fi")], stop="length"), "length"),
        (Turn([python("open('a', 'w')")], stop="length"), "length"),
        (Turn([Refusal("No.")], stop="refusal"), "refusal"),
    ):
        loop.play([turn])
        events = await loop.run(asking())
        assert ended(events).reason == reason
        assert not of(CodeEnded, events)  # half a call is no call


async def test_an_upstream_that_pauses(loop: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only servers of Messages do, amid their own tools: an upstream in this process says what they say."""
    asked: list[ModelRequest] = []

    async def turn(model: Model, request: ModelRequest) -> AsyncGenerator[Delta]:
        asked.append(request)
        message = Message("assistant", [TextPart(str(len(asked)))])
        yield TurnEnd(message=message, stop="pause" if len(asked) == 1 else "end", tokens=Tokens())

    async def resolve(name: str) -> Model:
        able = Capabilities(hosted=True)
        return Model(name=name, dialect="messages", capabilities=able, targets=())

    monkeypatch.setattr(loop.agent.models, "turn", turn)
    end = await loop.end(asking())
    assert (end.reason, len(asked)) == ("answer", 2)
    assert asked[1].messages[-1].parts == [TextPart("1")]  # as it is
    monkeypatch.setattr(loop.agent.models, "resolve", resolve)
    asked.clear()
    request = asking(hosted={"type": "code_execution_20250825", "name": "code_execution"})
    request.request.dialect = "messages"
    assert ((await loop.end(request)).reason, len(asked)) == ("pause", 1)
    assert (asked[0].raw_tools, asked[0].tools) == ([request.hosted], [])


@pytest.mark.parametrize(
    ("limits", "reason", "turns"),
    [
        (Limits(turns=3), "max_turns", 3),
        (Limits(tokens=30), "max_tokens", 2),
        (Limits(tool_calls=2), "max_tool_calls", 3),
        (Limits(cost=0.03), "max_cost", 2),
    ],
)
async def test_limits(loop: Looping, limits: Limits, reason: str, turns: int) -> None:
    """The model is not asked again, and what it asked for last has its answer."""
    loop.play(lambda request: [python(str(request.number))])
    end = await loop.end(asking(limits=limits))
    assert (end.reason, len(loop.sent), end.report.turns) == (reason, turns, turns)
    assert any(word.isdigit() or word.replace(".", "").isdigit() for word in end.detail.split())
    assert end.transcript[-1].role == "user"
    assert end.report.cost == pytest.approx(0.015 * turns)


async def test_a_request_cannot_go_beyond_the_settings(loop: Looping) -> None:
    settings = dataclasses.replace(loop.agent.engine.settings, loop_turns=2)
    loop.agent.engine.settings = settings
    loop.play(lambda request: [python(str(request.number))])
    assert (await loop.end(asking(limits=Limits(turns=30)))).report.turns == 2


async def test_the_time_is_over_while_code_runs_or_the_model_is_silent(loop: Looping) -> None:
    scripts: list[Reply] = [[python(FOREVER)], [Text("Well"), Pause(Gate())], [Pause(Gate())]]
    for steps in scripts:
        loop.play([steps])
        end = await loop.end(asking(limits=Limits(wall_s=0.7)))
        assert (end.reason, len(loop.sent)) == ("max_time", 1)
        assert end.report.wall_s < 9
    assert await asyncio.to_thread(loop.server.requests[0].gone.wait, 10)
    await settled(loop)


async def test_the_same_mistake_for_ever(loop: Looping) -> None:
    """Whatever the code is: it is the error that counts."""
    loop.play(lambda request: [python(f"# try {request.number}\n1 / 0")])
    end = await loop.end(asking())
    assert (end.reason, len(loop.sent)) == ("repeated_error", 4)
    assert [("same error" in one) for one in loop.results(4)] == [False, False, True]
    loop.play(lambda _: [Call("python", '{"code": ')])
    assert (await loop.end(asking())).reason == "repeated_error"


async def test_the_same_code_with_the_same_result_for_ever(loop: Looping) -> None:
    loop.play(lambda _: [python("1 + 1")])
    end = await loop.end(asking())
    assert (end.reason, len(loop.sent)) == ("repeated_result", 3)
    assert [("has run before" in one) for one in loop.results(3)] == [False, True]


async def test_what_runs_side_by_side_is_no_repetition(loop: Looping) -> None:
    """The same preparation in four contexts, and the same error of four, are one step each."""
    prepare = Calls([python("import json", context=f"c{n}") for n in range(4)])
    fail = Calls([python("1 / 0", context=f"c{n}") for n in range(4)])
    loop.play([[prepare], [fail], [Text("Done.")]])
    end = await loop.end(asking())
    assert end.reason == "answer"
    assert not any("note:" in one for one in loop.results(3))


# --- nobody is there any more -------------------------------------------------------------------------


async def test_a_client_that_goes_stops_the_model(loop: Looping) -> None:
    gate = Gate()
    loop.play([[Text("Wait"), Pause(gate)]])
    events = loop.agent.loop.run(asking())
    async with aclosing(events):
        while not isinstance(await anext(events), TurnStarted):
            pass
        await anext(events)
    assert await asyncio.to_thread(loop.server.requests[0].gone.wait, 10)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
@pytest.mark.parametrize(
    "call",
    [python(FOREVER), Call("bash", {"command": "echo on; while :; do :; done"})],
    ids=["python", "bash"],
)
async def test_a_client_that_goes_stops_the_code(loop: Looping, call: Call, how: str) -> None:
    loop.play([[call]])
    events = loop.agent.loop.run(asking(kinds=["python", "bash"]))
    started = asyncio.Event()

    async def client() -> None:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, CodeOutput):
                    started.set()
                    if how == "closed":
                        return

    task = asyncio.create_task(client())
    async with asyncio.timeout(20):
        await started.wait()
        if how == "cancelled":
            task.cancel()
        await asyncio.wait({task})
    await settled(loop)
    if call.name == "python":  # the interpreter has only been interrupted
        (session,) = loop.agent.engine.sessions.list(ME)
        run = await loop.agent.engine.executions.start(session.id, ExecuteRequest(code="1"), ME)
        assert (await run.wait()).status == "ok"


async def test_nothing_is_left_of_code_that_waits_for_a_client_who_has_gone(loop: Looping) -> None:
    """One of two waits for its client, who hangs up before he is told."""
    loop.play([[Calls([python(CITY, context="one"), python(FOREVER, context="two")])]])
    request = asking(tools=[WEATHER], code_callable=[WEATHER])
    async with aclosing(loop.agent.loop.run(request)) as events:
        seen: set[str] = set()
        async with asyncio.timeout(20):
            while not {"CodeCalls", "CodeOutput"} <= seen:
                seen.add(type(await anext(events)).__name__)
    await settled(loop)


# --- containers ---------------------------------------------------------------------------------------


async def test_an_expired_container_and_one_that_never_was(loop: Looping) -> None:
    session = await loop.agent.engine.sessions.create(SessionRequest(), ME)
    await loop.agent.engine.sessions.delete(session.id, ME)
    loop.play([[python("1")]])
    with pytest.raises(SessionEndedError):
        await loop.run(asking(container=ContainerChoice(session=session.id)))
    with pytest.raises(SessionNotFoundError):
        await loop.run(asking(container=ContainerChoice(session="ses_nobody")))
    loop.play([[python("1")], [Text("x")]])
    await loop.run(asking(container=ContainerChoice(session=session.id, restart=True)))
    assert "has expired" in loop.results(2)[0]


async def test_a_busy_container_is_waited_for(loop: Looping, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = loop.agent.engine
    session = await engine.sessions.create(SessionRequest(), ME)
    wait = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nx = 'mine'"
    first = await engine.executions.start(session.id, ExecuteRequest(code=wait), ME)
    loop.play([Turn([Calls([python("x"), Call("bash", {"command": "sleep 0.2; touch go"})])]), [Text("x")]])
    choice = ContainerChoice(session=session.id)
    await loop.run(asking(kinds=["python", "bash"], container=choice))
    assert loop.results(2)[0].startswith("'mine'")
    assert (await first.wait()).status == "ok"
    # Not for ever: neither for code that runs, nor for code that waits for a client of its own.
    monkeypatch.setattr(work, "BUSY_S", 0.4)
    tool: Any = {"name": "ask", "parameters": {"type": "object"}}
    for code in ("while True: pass", "tools.ask()"):
        request = ExecuteRequest(code=code, tools=[ClientTool(**tool)])
        run = await engine.executions.start(session.id, request, ME)
        loop.play([[python("x")]])
        with pytest.raises(SessionBusyError):
            await loop.run(asking(container=choice))
        await engine.executions.stop(run)
        await run.wait()


# --- what goes wrong ----------------------------------------------------------------------------------


async def test_errors_of_models_and_requests(loop: Looping) -> None:
    loop.play([Turn([Text("Hal"), HangUp()])])
    with pytest.raises(UpstreamError):
        await loop.run(asking())
    request = asking()
    request.tools = ["weather.*"]
    with pytest.raises(InvalidRequestError, match="no registered tools"):
        await loop.run(request)
