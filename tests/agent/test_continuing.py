"""Conversations that go on: hidden turns, code that waits for its client, retries, deaths of the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.agent.continuing import UNANSWERED
from onehop.agent.events import CodeEnded, CodeOutput
from onehop.errors import ConflictError
from onehop.sessions.caller import Caller
from onehop.supervisor.spawn import SupervisorHandle
from tests.agent.looping import (
    CITY,
    ME,
    WEATHER,
    Looping,
    Talk,
    asking,
    calls,
    ended,
    given,
    of,
    python,
    user,
)
from tests.api.gateway import Gateway
from tests.models.script import Call, Calls, Reply, Request, Text, Turn
from tests.models.server import ModelServer

TWO = "print('once')\na, b = await asyncio.gather(tools.weather(city='Oslo'), tools.weather(city='Rome'))\n[a, b]"
BEFORE = "import asyncio\n"


def talk(loop: Looping, **members: Any) -> Talk:
    """Code may call the client's function."""
    return Talk(loop, tools=[WEATHER], code_callable=[WEATHER], **members)


async def test_hidden_turns_are_there_again_with_their_container(loop: Looping) -> None:
    loop.play(
        [
            [python("x = 41")],
            Turn([Text("Both."), Calls([python("x + 1"), Call("weather", {"city": "Oslo"}, id="call_w")])]),
            [python("x + 2")],
            [Text("43.")],
        ]
    )
    client = Talk(loop, tools=[WEATHER])
    first = await client.ask()
    assert ended(first).reason == "foreign_calls"
    (call,) = calls(first)
    end = ended(await client.answer(given(call, "sunny")))
    assert end.reason == "answer"
    told = loop.sent[2]["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "assistant", "tool", "tool"]
    assert loop.results(3) == ["[no output]", "42", "sunny"]
    assert loop.results(4)[-1] == "43"  # the variables are there: it is the same container
    assert end.container is not None
    first_end = ended(first)
    assert first_end.container is not None
    assert end.container.session == first_end.container.session


async def test_a_hidden_container_that_has_expired_is_told(loop: Looping) -> None:
    loop.play(
        [Turn([Calls([python("x = 41"), Call("weather", {}, id="call_w")])]), [python("x")], [Text("No.")]]
    )
    client = Talk(loop, tools=[WEATHER])
    first = ended(await client.ask())
    assert first.container is not None
    await loop.agent.engine.sessions.delete(first.container.session, ME)
    await client.answer(given(first.last.message.parts[1], "sunny"))  # type: ignore[union-attr,arg-type]
    assert "has expired" in loop.results(3)[-1]
    assert "NameError" in loop.results(3)[-1]


async def test_what_hides_nothing_is_not_kept(loop: Looping) -> None:
    """An ordinary client's functions cost no write to the database."""
    loop.play([[Call("weather", {"city": "Oslo"}, id="call_plain")], [Text("Sunny.")]])
    client = Talk(loop, tools=[WEATHER])
    (call,) = calls(await client.ask())
    assert await loop.agent.memory.list(ME.owner, "turn") == []
    await client.answer(given(call, "sunny"))
    assert loop.results(2) == ["sunny"]


async def test_code_goes_on_where_it_stopped(loop: Looping) -> None:
    loop.play([[python(BEFORE + TWO)], [Text("Done.")], [Text("Again.")]])
    client = talk(loop)
    first = await client.ask()
    oslo, rome = calls(first)
    assert (ended(first).reason, json.loads(oslo.arguments)) == ("suspended", {"city": "Oslo"})
    # One result: the other call is asked for again, under a new name.
    second = await client.answer(given(oslo, '{"c": 10}'))
    (again,) = calls(second)
    assert (ended(second).reason, json.loads(again.arguments)) == ("suspended", {"city": "Rome"})
    assert again.id not in (oslo.id, rome.id)
    third = await client.answer(given(again, "hot"))
    assert ended(third).reason == "answer"
    assert loop.results(2) == ["once\n[{'c': 10}, 'hot']"]
    outputs = [one.text for one in (*of(CodeOutput, first), *of(CodeOutput, second), *of(CodeOutput, third))]
    assert "".join(outputs) == "once\n"  # told once
    # The whole conversation again: one call of ours with one result.
    await client.answer("And?")
    assert [one["role"] for one in loop.sent[2]["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert loop.results(3) == loop.results(2)


async def test_beside_code_that_waits(loop: Looping) -> None:
    """Ours that has ended, the client's by the model, two that wait: every result once, whenever it comes."""
    several = [
        python("'done'"),
        Call("weather", {"city": "Bonn"}, id="call_model"),
        python(CITY, context="one"),
        python("tools.weather(city='Rome')", context="two"),
    ]
    loop.play([[Calls(several)], [Text("Done.")]])
    client = talk(loop)
    by_model, *by_code = calls(await client.ask())
    one, two = sorted(by_code, key=lambda part: part.arguments)
    second = await client.answer(given(by_model, "rain"), given(two, "B"))
    (again,) = calls(second)
    assert again.id != one.id
    assert len(of(CodeEnded, second)) == 1
    assert ended(await client.answer(given(again, "A"))).reason == "answer"
    told = loop.sent[1]["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", *["tool"] * 4]
    ids = [one["id"] for one in told[1]["tool_calls"]]
    by_id = {one["tool_call_id"]: one["content"] for one in told[2:]}
    assert [by_id[name] for name in ids] == ["'done'", "rain", "'A'", "'B'"]


async def test_the_same_request_again(loop: Looping) -> None:
    """A client that got no answer sends it once more, at every point: the code runs once."""
    loop.play([[python(BEFORE + "n = globals().get('n', 0) + 1\n" + TWO + "\nn")], [Text("Done.")]])
    client = talk(loop)
    oslo, _ = calls(await client.ask())
    client.messages.append(user(given(oslo, "10")))
    before = list(client.messages)
    second = await client.ask()
    client.messages[:] = before
    retried = await client.ask()
    assert ended(retried).reason == "suspended"
    assert [one.id for one in calls(retried)] == [one.id for one in calls(second)]
    client.messages.append(user(given(calls(retried)[0], "30")))
    after = list(client.messages)
    await client.ask()
    client.messages[:] = after
    assert ended(await client.ask()).reason == "answer"
    assert loop.results(2) == loop.results(3) == ["once\n1"]
    client.messages[:] = before
    with pytest.raises(ConflictError):
        await client.ask()


async def test_a_client_that_never_answers(loop: Looping) -> None:
    """Its next question finds the interpreter free, and the model is told why there is no result."""
    loop.play([[python("x = 1\n" + CITY)], [python("x")], [Text("Well.")]])
    client = talk(loop)
    await client.ask()
    assert ended(await client.answer("Never mind.")).reason == "answer"
    assert loop.results(2) == [UNANSWERED]
    assert loop.results(3)[-1] == "1"


async def test_results_that_come_too_late(loop: Looping) -> None:
    """The container is gone: the model is told what became of its code."""
    loop.play([[python(CITY)], [Text("A pity.")]])
    client = talk(loop)
    first = await client.ask()
    container = ended(first).container
    assert container is not None
    await loop.agent.engine.sessions.delete(container.session, ME)
    assert ended(await client.answer(given(calls(first)[0], "sunny"))).reason == "answer"
    assert "killed" in loop.results(2)[0] or "interrupted" in loop.results(2)[0]


async def test_another_tenant_goes_on_with_nothing(loop: Looping) -> None:
    loop.play([[python(CITY)], [Text("?")]])
    client = talk(loop)
    first = await client.ask()
    thief = talk(loop, caller=Caller(owner="thief"))
    thief.messages = list(client.messages)
    assert ended(await thief.answer(given(calls(first)[0], "stolen"))).reason == "answer"
    assert loop.results(2) == ["stolen"]  # a conversation of his own, as he tells it
    assert "python" not in json.dumps(loop.sent[1]["messages"])
    loop.play([[Text("Mine.")]])
    await client.answer(given(calls(first)[0], "sunny"))
    assert loop.results(1) == ["'sunny'"]


async def test_what_waits_holds_up_no_command(loop: Looping) -> None:
    loop.play([[Calls([python(CITY), Call("bash", {"command": "echo beside"})])], [Text("Done.")]])
    events = await loop.run(asking(kinds=["python", "bash"], tools=[WEATHER], code_callable=[WEATHER]))
    assert ended(events).reason == "suspended"
    assert [one.result.content[0].text for one in of(CodeEnded, events)] == ["beside"]  # type: ignore[union-attr]


# --- deaths of the gateway ----------------------------------------------------------------------------


def _chat(gateway: Gateway, messages: list[Any]) -> dict[str, Any]:
    function = {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    body = {
        "model": "scripted",
        "messages": messages,
        "tools": [{"type": "function", "function": function}],
        "onehop": {"code_callable": ["weather"]},
    }
    answer = httpx2.post(gateway.url + "/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


@pytest.mark.parametrize("point", ["", "results-claimed"])
def test_code_that_waits_outlives_the_gateway(
    loop_supervisor: SupervisorHandle, tmp_path: Path, point: str
) -> None:
    """kill -9 while it waits, and amid the taking of the results."""

    def script(request: Request) -> Reply:
        return [python(BEFORE + TWO)] if request.number == 1 else [Text("Done.")]

    with ModelServer(script) as server:
        settings = {"upstreams": server.setting("chat")}
        messages: list[Any] = [{"role": "user", "content": "Go on."}]
        with Gateway(
            loop_supervisor.path, tmp_path, **settings, **({"crash_at": point} if point else {})
        ) as first:
            message = _chat(first, messages)
            messages.append(message)
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": call["function"]["arguments"]}
                for call in message["tool_calls"]
            ]
            assert len(message["tool_calls"]) == 2
            if point:
                with pytest.raises(httpx2.TransportError):
                    _chat(first, messages)
                first.process.wait(10)
            else:
                first.kill()
        with Gateway(loop_supervisor.path, tmp_path, **settings) as second:
            assert _chat(second, messages)["content"] == "Done."
            assert second.stop() == 0, second.log.read_text()
        (told,) = [one["content"] for one in server.requests[1].body["messages"] if one["role"] == "tool"]
        assert told == "once\n[{'city': 'Oslo'}, {'city': 'Rome'}]"
