"""A model loop in this process: a real engine, and a scripted server of models as its upstream."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from onehop import config
from onehop.agent.events import CodeCalls, ForeignCall, Kind, LoopEnd, LoopEvent, LoopRequest
from onehop.agent.model import (
    CallPart,
    Function,
    Message,
    ModelRequest,
    Part,
    ResultPart,
    TextDelta,
    TextPart,
)
from onehop.agent.service import Agent
from onehop.sessions import Engine
from onehop.sessions.caller import Caller
from onehop.store import Store
from onehop.supervisor.client import SupervisorClient
from tests.models.script import Call, Reply, Script
from tests.models.server import ModelServer

T = TypeVar("T")
ME = Caller(owner="me")
WEATHER = Function(
    name="weather",
    description="The weather of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CITY = "tools.weather(city='Oslo')"


def python(code: str, **more: Any) -> Call:
    return Call("python", {"code": code, **more})


def user(*parts: Part | str) -> Message:
    return Message("user", [TextPart(part) if isinstance(part, str) else part for part in parts])


def given(call: CallPart, text: str) -> ResultPart:
    return ResultPart(id=call.id, name=call.name, content=[TextPart(text)])


def asking(messages: list[Message] | None = None, **members: Any) -> LoopRequest:
    """A request with the Python tool, unless told otherwise; members of ModelRequest stand for its own."""
    own = {name: members.pop(name) for name in ("tools", "options") if name in members}
    kinds: list[Kind] = members.pop("kinds", ["python"])
    request = ModelRequest(model="scripted", messages=messages or [user("Go on.")], **own)
    return LoopRequest(request=request, caller=members.pop("caller", ME), kinds=kinds, **members)


class Talk:
    """A client that knows only what a client is told."""

    def __init__(self, looping: Looping, **members: Any) -> None:
        self.messages = [user("Go on.")]
        self._looping = looping
        self._members = members

    async def ask(self) -> list[LoopEvent]:
        events = await self._looping.run(asking(list(self.messages), **self._members))
        seen = [one.text for one in of(TextDelta, events)]
        parts: list[Part] = [TextPart("".join(seen)), *calls(events)]
        self.messages.append(Message("assistant", parts))
        return events

    async def answer(self, *parts: Part | str) -> list[LoopEvent]:
        self.messages.append(user(*parts))
        return await self.ask()


class Looping:
    """Args:
    server: plays what the models say.
    """

    def __init__(self, agent: Agent, server: ModelServer) -> None:
        self.agent = agent
        self.server = server

    def play(self, script: list[Reply] | Script) -> None:
        self.server.requests.clear()
        self.server.script = script

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [one.body for one in self.server.requests]

    def results(self, number: int) -> list[str]:
        """Of calls, as the model was told in this turn; from 1 on."""
        return [one["content"] for one in self.sent[number - 1]["messages"] if one["role"] == "tool"]

    async def run(self, request: LoopRequest) -> list[LoopEvent]:
        async with aclosing(self.agent.loop.run(request)) as events:
            return [one async for one in events]

    async def end(self, request: LoopRequest) -> LoopEnd:
        last = (await self.run(request))[-1]
        assert isinstance(last, LoopEnd)
        return last

    def running(self) -> int:
        return self.agent.engine.statistics()["running"]


def of(kind: type[T], events: list[LoopEvent]) -> list[T]:
    return [one for one in events if isinstance(one, kind)]


def calls(events: list[LoopEvent]) -> list[CallPart]:
    """What the client is asked, by the model and by code."""
    by_model = [one.part for one in of(ForeignCall, events)]
    return [*by_model, *(part for one in of(CodeCalls, events) for part in one.calls)]


def ended(events: list[LoopEvent]) -> LoopEnd:
    last = events[-1]
    assert isinstance(last, LoopEnd), last
    assert sum(isinstance(one, LoopEnd) for one in events) == 1
    return last


@contextlib.asynccontextmanager
async def looping(path: str, home: Path, server: ModelServer, **settings: Any) -> AsyncIterator[Looping]:
    """On the supervisor at `path`."""
    models = json.dumps(
        {"scripted": {"upstreams": ["scripted:real"], "input_price": 1000, "output_price": 1000}}
    )
    environ = {"ONEHOP_UPSTREAMS": server.setting("chat", retries=0), "ONEHOP_MODELS": models}
    loaded = dataclasses.replace(config.load(environ=environ), home=home, **settings)
    client = await SupervisorClient.connect(path)
    store = Store.open("", loaded.state)
    try:
        engine = Engine(loaded, client, store)
        async with engine, Agent(engine) as agent:
            yield Looping(agent, server)
    finally:
        store.close()
        await client.close()
