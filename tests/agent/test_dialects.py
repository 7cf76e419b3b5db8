"""One script, every dialect: what comes out of an upstream is the same, whatever it speaks and wherever it is cut."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from onehop import config
from onehop.agent.model import (
    CallDelta,
    CallPart,
    CallStart,
    Delta,
    Dialect,
    Message,
    ModelRequest,
    ReasoningDelta,
    ResultPart,
    TextDelta,
    TextPart,
    TurnEnd,
)
from onehop.agent.upstreams.config import DIALECTS
from onehop.agent.upstreams.router import Models
from onehop.errors import (
    ProblemError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamRefusedError,
)
from tests.models.script import Call, Calls, HangUp, Reasoning, Status, Text, Turn
from tests.models.server import ModelServer

KINDS = [one for one in DIALECTS if find_spec(f"onehop.agent.upstreams.{one}") is not None]
ARGUMENTS = {"code": 'print("ü\\n🐍")', "n": [1, None, 2.5]}


async def play(
    kind: str, server: ModelServer, request: ModelRequest | None = None, key: str = "k"
) -> list[Delta]:
    flags = {"upstreams": server.setting(kind, retries=0)}
    async with Models(config.load(flags, {}), {"scripted": key}) as models:
        asked = request or ModelRequest(model="m", messages=[Message("user", [TextPart("hi")])])
        return [delta async for delta in models.turn(await models.resolve("m"), asked)]


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_with_everything(kind: str, seed: int | None) -> None:
    calls = Calls([Call("python", ARGUMENTS, pieces=9), Call("weather", {"city": "Ørsta"})])
    script = Turn(
        [Reasoning("hm, well"), Text("Grüße an 🐍 alle"), calls],
        input_tokens=30,
        output_tokens=7,
        cached_tokens=20,
    )
    with ModelServer([script], seed=seed) as server:
        deltas = await play(kind, server)
    assert "".join(one.text for one in deltas if isinstance(one, TextDelta)) == "Grüße an 🐍 alle"
    assert "".join(one.text for one in deltas if isinstance(one, ReasoningDelta)) == "hm, well"
    starts = [one for one in deltas if isinstance(one, CallStart)]
    assert [one.name for one in starts] == ["python", "weather"]
    assert len({one.id for one in starts} | {one.index for one in starts}) == 4
    end = deltas[-1]
    assert isinstance(end, TurnEnd)
    assert sum(isinstance(one, TurnEnd) for one in deltas) == 1
    assert (end.stop, end.tokens.input, end.tokens.output, end.tokens.cached) == ("calls", 30, 7, 20)
    parts = [one for one in end.message.parts if isinstance(one, CallPart)]
    assert [(one.id, one.name) for one in parts] == [(one.id, one.name) for one in starts]
    for start, part, wanted in zip(starts, parts, (ARGUMENTS, {"city": "Ørsta"}), strict=True):
        pieces = [one.text for one in deltas if isinstance(one, CallDelta) and one.index == start.index]
        assert json.loads("".join(pieces)) == json.loads(part.arguments) == wanted
    assert "".join(one.text for one in end.message.parts if isinstance(one, TextPart)) == "Grüße an 🐍 alle"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_goes_back_as_it_came(kind: str) -> None:
    """The next turn has the answer of the one before, thoughts and calls included, and the call's result."""
    with ModelServer(
        [Turn([Reasoning("hm"), Text("Let me see"), Call("python", ARGUMENTS)]), [Text("42")]]
    ) as server:
        end = (await play(kind, server))[-1]
        assert isinstance(end, TurnEnd)
        (call,) = [one for one in end.message.parts if isinstance(one, CallPart)]
        result = ResultPart(id=call.id, name=call.name, content=[TextPart("the result is 6*7")])
        question = Message("user", [TextPart("hi")])
        request = ModelRequest(model="m", messages=[question, end.message, Message("user", [result])])
        last = (await play(kind, server, request))[-1]
        assert isinstance(last, TurnEnd)
        assert (last.stop, last.message.parts[-1]) == ("end", TextPart("42"))
        sent = json.dumps(server.requests[1].body, ensure_ascii=False)
    assert "the result is 6*7" in sent
    assert "Let me see" in sent
    assert "python" in sent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stop", "wanted"), [("end", "end"), ("length", "length")])
async def test_why_it_ended(kind: str, stop: str, wanted: str) -> None:
    with ModelServer([Turn([Text("a")], stop=stop)]) as server:
        end = (await play(kind, server))[-1]
    assert isinstance(end, TurnEnd)
    assert end.stop == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", ["hang-up", "no end"])
async def test_an_answer_that_is_cut_off_is_none(kind: str, cut: str) -> None:
    script = Turn([Text("half"), HangUp()]) if cut == "hang-up" else Turn([Text("half")], ends=False)
    with ModelServer([script]) as server:
        with pytest.raises(UpstreamError):
            await play(kind, server)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (400, UpstreamRefusedError),
        (401, UpstreamAuthenticationError),
        (429, UpstreamBusyError),
        (500, UpstreamError),
    ],
)
async def test_refusals_by_status(kind: str, status: int, wanted: type[ProblemError]) -> None:
    with ModelServer([[Status(status, "because of this")]]) as server:
        with pytest.raises(wanted) as raised:
            await play(kind, server)
    assert type(raised.value) is wanted
    if status == 400:
        assert "because of this" in raised.value.detail


@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_goes_where_the_dialect_wants_it(kind: str) -> None:
    with ModelServer([[Text("ok")]], key="the-key") as server:
        assert isinstance((await play(kind, server, key="the-key"))[-1], TurnEnd)
        assert "the-key" not in server.requests[0].path
        with pytest.raises(UpstreamAuthenticationError) as raised:
            await play(kind, server, key="another")
        assert "another" not in raised.value.detail


@pytest.mark.parametrize("kind", KINDS)
async def test_lists_of_models(kind: str) -> None:
    with ModelServer(models=["alpha", "beta"], key="the-key") as server:
        async with Models(
            config.load({"upstreams": server.setting(kind)}, {}), {"scripted": "the-key"}
        ) as models:
            assert [one.name for one in await models.names()] == ["alpha", "beta"]
            dialect: Dialect = (await models.info("beta")).dialect
            assert dialect == kind
