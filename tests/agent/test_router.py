"""Turns of a model through real HTTP: retries, fall-backs, timeouts, hang-ups, and who may be asked for what."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from onehop import config
from onehop.agent.model import Delta, Message, ModelRequest, TextDelta, TextPart, TurnEnd
from onehop.agent.upstreams import listing, router
from onehop.agent.upstreams.router import Models
from onehop.errors import (
    ContextOverflowError,
    ModelNotFoundError,
    ProblemError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from tests.models.script import Call, Gate, HangUp, Pause, Raw, Reasoning, Reply, Sleep, Status, Text, Turn
from tests.models.server import ModelServer

KEY = "sk-very-secret-1234"
ASKED = ModelRequest(model="m", messages=[Message("user", [TextPart("hi")])])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a retry here; that waiting is as long as it should be is its own test."""
    monkeypatch.setattr(router, "FIRST_BACKOFF_S", 0.005)


@contextlib.asynccontextmanager
async def models(upstreams: dict[str, Any], named: dict[str, Any] | None = None) -> AsyncIterator[Models]:
    flags = {"upstreams": json.dumps(upstreams), "models": json.dumps(named or {})}
    async with Models(config.load(flags, {}), dict.fromkeys(upstreams, KEY)) as found:
        yield found


def upstream(server: ModelServer, **members: Any) -> dict[str, Any]:
    return {"kind": "chat", "url": server.url("chat"), **members}


async def turn(found: Models, name: str = "m") -> list[Delta]:
    return [delta async for delta in found.turn(await found.resolve(name), ASKED)]


def said(deltas: list[Delta]) -> str:
    assert isinstance(deltas[-1], TurnEnd)
    assert sum(isinstance(one, TurnEnd) for one in deltas) == 1
    return "".join(one.text for one in deltas if isinstance(one, TextDelta))


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_an_answer_is_whole_wherever_it_was_cut(seed: int | None) -> None:
    script = Turn([Reasoning("hm, well"), Text("Grüße an 🐍 alle"), Call("f", {"a": "ü\n"})], output_tokens=7)
    with ModelServer([script], seed=seed) as server:
        async with models({"up": upstream(server)}) as found:
            deltas = await turn(found)
        assert said(deltas) == "Grüße an 🐍 alle"
        end = deltas[-1]
        assert isinstance(end, TurnEnd)
        assert (end.stop, end.tokens.output) == ("calls", 7)
        assert [part.__struct_config__.tag for part in end.message.parts] == ["reasoning", "text", "call"]
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_first_words_do_not_wait_for_the_last() -> None:
    gate = Gate()
    with ModelServer([[Text("first"), Pause(gate), Text(" last")]]) as server:
        async with models({"up": upstream(server)}) as found:
            stream = found.turn(await found.resolve("m"), ASKED)
            assert await anext(stream) == TextDelta("first")
            gate.open()
            assert said([one async for one in stream]) == " last"


async def test_closing_the_iterator_hangs_up_at_once() -> None:
    with ModelServer([[Text("first"), Pause(Gate())]]) as server:
        async with models({"up": upstream(server)}) as found:
            stream = found.turn(await found.resolve("m"), ASKED)
            await anext(stream)
            await stream.aclose()
            assert await asyncio.to_thread(server.requests[0].gone.wait, 30)


async def test_a_cancelled_task_hangs_up_at_once() -> None:
    with ModelServer([[Pause(gate := Gate())]]) as server:
        async with models({"up": upstream(server)}) as found:
            task = asyncio.create_task(turn(found))
            assert await asyncio.to_thread(gate.reached.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.requests[0].gone.wait, 30)


async def test_one_connection_carries_turn_after_turn() -> None:
    with ModelServer([[Text("a")]]) as server:
        async with models({"up": upstream(server)}) as found:
            (transport,) = (one.transport for one in found.upstreams.values())
            for _ in range(5):
                assert said(await turn(found)) == "a"
                # The turn is told before the last bytes of its answer are there, and with them the connection.
                async with asyncio.timeout(30):
                    while not transport.idle:
                        await asyncio.sleep(0.001)
        assert server.connections == 1


@pytest.mark.parametrize(
    "failing",
    [
        [Status(429)],
        [Status(500)],
        [Status(503, body=b"<html>busy</html>")],
        [HangUp()],
        Turn([], ends=False),
        [Raw(b'data: {"error": {"message": "overloaded", "code": 503}}\n\n')],
        [Raw(b"data: {nonsense\n\n")],
        [Status(200, body=b'{"error": {"message": "try later", "code": 429}}')],
    ],
    ids=["429", "500", "503 html", "hang-up", "empty", "error in stream", "nonsense", "error with 200"],
)
async def test_what_is_tried_again(failing: Reply) -> None:
    with ModelServer([failing, failing, [Text("at last")]]) as server:
        async with models({"up": upstream(server)}) as found:
            assert said(await turn(found)) == "at last"
        assert len(server.requests) == 3
        assert server.requests[0].body == server.requests[2].body


@pytest.mark.parametrize(
    ("failing", "kind", "text"),
    [
        (Status(400, "bad parameter"), UpstreamRefusedError, "bad parameter"),
        (Status(401, f"wrong key {KEY}"), UpstreamAuthenticationError, "refused the operator's key"),
        (Status(402), UpstreamAuthenticationError, "paid"),
        (Status(404, "The model `m` does not exist"), ModelNotFoundError, "does not exist"),
        (Status(404, body=b"nothing"), UpstreamError, "is its `url` right"),
        (Status(400, "maximum context length is 4096 tokens"), ContextOverflowError, "4096"),
        (Status(302, headers={"location": "http://127.0.0.1:1/"}), UpstreamError, "302"),
        (Status(500, headers={"x-should-retry": "false"}), UpstreamError, "scripted"),
        (Status(200, body=b"{}"), UpstreamError, "application/json"),
    ],
    ids=[
        "400",
        "401",
        "402",
        "unknown model",
        "wrong url",
        "overflow",
        "redirect",
        "told not to",
        "no stream",
    ],
)
async def test_what_is_not_tried_again(failing: Status, kind: type[ProblemError], text: str) -> None:
    with ModelServer([[failing]]) as server:
        async with models({"up": upstream(server)}) as found:
            with pytest.raises(kind, match=text) as raised:
                await turn(found)
        assert type(raised.value) is kind
        assert KEY not in str(raised.value)
        assert KEY not in json.dumps(raised.value.document())
        assert len(server.requests) == 1


async def test_a_key_that_an_upstream_says_back_goes_no_further() -> None:
    with ModelServer([[Status(400, f"odd header Bearer {KEY}")]]) as server:
        async with models({"up": upstream(server)}) as found:
            with pytest.raises(UpstreamRefusedError, match=r"odd header Bearer \*\*\*"):
                await turn(found)


async def test_what_an_upstream_says_is_one_bounded_line() -> None:
    """It goes into the log and to clients."""
    with ModelServer([[Status(400, "a\nERROR forged\r\n" + "x" * 100_000)]]) as server:
        async with models({"up": upstream(server)}) as found:
            with pytest.raises(UpstreamRefusedError) as raised:
                await turn(found)
        assert raised.value.detail.startswith("a ERROR forged xxx")
        assert len(raised.value.detail) <= 2000


async def test_an_unknown_name_takes_no_time_with_a_long_list() -> None:
    names = [f"vendor/model-{number}" for number in range(5000)]
    with ModelServer(models=names) as one, ModelServer(models=[]) as two:
        async with models({"one": upstream(one), "two": upstream(two)}) as found:
            assert len(await found.names()) == 5000
            began_s = time.process_time()
            for _ in range(5):
                with pytest.raises(ModelNotFoundError, match="did you mean"):
                    await found.resolve("vendor/model_17")
            assert time.process_time() - began_s < 2, "all names were compared"


async def test_a_list_that_grew_old_holds_up_nobody_whose_model_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ModelServer(models=["alpha"]) as one, ModelServer(models=["beta"]) as two:
        async with models({"one": upstream(one), "two": upstream(two)}) as found:
            monkeypatch.setattr(listing, "FRESH_S", 0.0)
            await found.names()
            assert (await found.resolve("beta")).targets[0].upstream == "two"
            assert (one.lists, two.lists) == (1, 1)
            with pytest.raises(ModelNotFoundError):
                await found.resolve("gamma")
            assert one.lists > 1


async def test_what_has_begun_is_never_begun_again() -> None:
    with ModelServer([[Text("half"), HangUp()], [Text("whole")]]) as server:
        async with models(
            {"up": upstream(server), "vp": upstream(server)}, {"m": chain("up", "vp")}
        ) as found:
            stream = found.turn(await found.resolve("m"), ASKED)
            assert await anext(stream) == TextDelta("half")
            with pytest.raises(UpstreamError, match="hung up amid its answer"):
                await anext(stream)
        assert len(server.requests) == 1


def chain(*names: str) -> dict[str, Any]:
    return {"upstreams": [f"{name}:real-{name}" for name in names]}


@pytest.mark.parametrize(
    "failing",
    [
        Status(500),
        Status(429),
        Status(401),
        Status(404, "The model does not exist"),
        Status(400, "context length"),
    ],
    ids=lambda one: str(one.status) + one.message,
)
async def test_a_chain_falls_back(failing: Status) -> None:
    with ModelServer([[failing]]) as bad, ModelServer([[Text("from b")]]) as good:
        servers = {"a": upstream(bad, retries=1), "b": upstream(good)}
        async with models(servers, {"m": chain("a", "b")}) as found:
            assert said(await turn(found)) == "from b"
        assert {one.body["model"] for one in bad.requests} == {"real-a"}
        assert len(bad.requests) == (2 if failing.status in (500, 429) else 1)
        assert good.requests[0].body["model"] == "real-b"


async def test_a_wrong_request_is_wrong_everywhere() -> None:
    with ModelServer([[Status(400, "no")]]) as bad, ModelServer() as good:
        async with models({"a": upstream(bad), "b": upstream(good)}, {"m": chain("a", "b")}) as found:
            with pytest.raises(UpstreamRefusedError):
                await turn(found)
        assert not good.requests


async def test_the_last_failure_of_a_chain_is_told() -> None:
    with ModelServer([[Status(500, "from a")]]) as a, ModelServer([[Status(429, "from b")]]) as b:
        async with models({"a": upstream(a), "b": upstream(b)}, {"m": chain("a", "b")}) as found:
            with pytest.raises(UpstreamBusyError, match="from b"):
                await turn(found)
        assert (len(a.requests), len(b.requests)) == (3, 3)


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
async def test_retry_after_is_waited_for(form: str) -> None:
    due_s = float(int(time.time()) + 2)  # a date has whole seconds
    headers = {
        "seconds": {"retry-after": "0.3"},
        "milliseconds": {"retry-after-ms": "300"},
        "date": {"retry-after": email.utils.formatdate(due_s, usegmt=True)},
    }[form]
    with ModelServer([[Status(429, headers=headers)], [Text("ok")]]) as server:
        async with models({"up": upstream(server)}) as found:
            due_s = due_s if form == "date" else time.time() + 0.3
            assert said(await turn(found)) == "ok"
            assert due_s <= time.time()


async def test_a_long_retry_after_is_the_clients_to_wait() -> None:
    with ModelServer([[Status(429, headers={"retry-after": "120"})]]) as server:
        async with models({"up": upstream(server)}) as found:
            with pytest.raises(UpstreamBusyError) as raised:
                await turn(found)
        assert raised.value.retry_after_s == 120
        assert len(server.requests) == 1


async def test_with_somebody_to_fall_back_on_nobody_waits_long() -> None:
    with ModelServer([[Status(429, headers={"retry-after": "10"})]]) as busy, ModelServer() as free:
        async with models({"a": upstream(busy), "b": upstream(free)}, {"m": chain("a", "b")}) as found:
            async with asyncio.timeout(9):
                assert said(await turn(found)) == "ok"
        assert len(busy.requests) == 1


def test_backoff_grows_and_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "FIRST_BACKOFF_S", 0.5)
    waits = [[router._backoff_s(UpstreamError(""), attempt) for _ in range(50)] for attempt in range(10)]
    for attempt, several in enumerate(waits):
        most_s = min(0.5 * 2**attempt, router.MAX_BACKOFF_S)
        assert most_s / 2 <= min(several) < max(several) <= most_s


async def test_silence_of_one_token_is_too_long() -> None:
    with ModelServer([[Text("a"), Pause(Gate())]]) as server:
        async with models({"up": upstream(server, token_timeout_s=1.0)}) as found:
            with pytest.raises(UpstreamTimeoutError, match=r"said nothing for 1 s"):
                await turn(found)
        assert await asyncio.to_thread(server.requests[0].gone.wait, 30)


async def test_comments_are_no_tokens() -> None:
    comments = [step for _ in range(100) for step in (Raw(b": still here\n\n"), Sleep(0.02))]
    with ModelServer([[Text("a"), *comments]]) as server:
        async with models({"up": upstream(server, token_timeout_s=0.8)}) as found:
            with pytest.raises(UpstreamTimeoutError, match="said nothing"):
                await turn(found)


async def test_a_turn_that_takes_too_long_as_a_whole() -> None:
    with ModelServer([[Text("a " * 1000, per_s=50)]]) as server:
        async with models({"up": upstream(server, timeout_s=1.0)}) as found:
            with pytest.raises(UpstreamTimeoutError, match=r"took longer than 1 s"):
                await turn(found)
        assert await asyncio.to_thread(server.requests[0].gone.wait, 30)


async def test_an_upstream_that_never_answers_falls_back() -> None:
    with ModelServer([[Pause(Gate())]]) as mute, ModelServer() as good:
        servers = {"a": upstream(mute, token_timeout_s=0.1), "b": upstream(good)}
        async with models(servers, {"m": chain("a", "b")}) as found:
            assert said(await turn(found)) == "ok"
        assert len(mute.requests) == 1


async def test_what_comes_after_the_end_is_not_given_out() -> None:
    late = Raw(b'data: {"choices": [{"delta": {"content": "late"}}]}\n\n')
    end = Raw(b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
    with ModelServer([Turn([Text("a"), Raw(end.content + late.content)], ends=False)]) as server:
        async with models({"up": upstream(server)}) as found:
            assert said(await turn(found)) == "a"


async def test_whose_model_a_name_is() -> None:
    with ModelServer(models=["alpha", "beta"]) as one, ModelServer(models=["gamma"]) as two:
        servers = {
            "one": upstream(one),
            "two": upstream(two),
            "three": upstream(two, models=["gpt-*", "exact"]),
        }
        named = {"fast": {"upstreams": ["two:gamma"], "images": False, "input_price": 1.5, "hosted": True}}
        async with models(servers, named) as found:
            for name, wanted in {
                "fast": [("two", "gamma")],
                "gpt-9": [("three", "gpt-9")],
                "exact": [("three", "exact")],
                "alpha": [("one", "alpha")],
                "gamma": [("two", "gamma")],
                "two/anything": [("two", "anything")],
                "three/gpt-1": [("three", "gpt-1")],
            }.items():
                model = await found.resolve(name)
                assert [(target.upstream, target.model) for target in model.targets] == wanted
            fast = await found.resolve("fast")
            assert (fast.capabilities.images, fast.capabilities.hosted, fast.input_price) == (
                False,
                True,
                1.5,
            )
            assert [one.name for one in await found.names()] == ["fast", "exact", "alpha", "beta", "gamma"]
            with pytest.raises(ModelNotFoundError, match="did you mean 'alpha'"):
                await found.resolve("alpah")
            with pytest.raises(ModelNotFoundError):
                await found.resolve("three/other")
        assert one.lists == 1, "a list is kept"


async def test_a_single_upstream_is_asked_for_any_name() -> None:
    with ModelServer(models=[]) as server:
        async with models({"up": upstream(server)}) as found:
            assert said(await turn(found, "whatever/it-is")) == "ok"
            with pytest.raises(ModelNotFoundError):
                await found.info("whatever/it-is")
        assert server.requests[0].body["model"] == "whatever/it-is"
        assert server.lists == 1


async def test_no_upstream_at_all() -> None:
    async with models({}) as found:
        assert await found.names() == []
        with pytest.raises(ModelNotFoundError, match="--upstreams"):
            await found.resolve("m")


async def test_a_configured_system_message_comes_first() -> None:
    with ModelServer() as server:
        named = {"m": {"upstreams": ["up:x"], "system": "Be brief."}}
        async with models({"up": upstream(server)}, named) as found:
            await turn(found)
        assert server.requests[0].body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ]


async def test_headers_of_the_configuration_are_sent() -> None:
    with ModelServer() as server:
        async with models({"up": upstream(server, headers={"X-Title": "onehop"})}) as found:
            await turn(found)
        assert server.requests[0].headers["x-title"] == "onehop"


async def test_a_wrong_key_is_told_by_the_list_and_by_a_turn() -> None:
    with ModelServer(key="another") as server:
        async with models({"up": upstream(server)}) as found:
            with pytest.raises(UpstreamAuthenticationError):
                await found.upstreams["up"].list.ask()
            assert await found.names() == []
            with pytest.raises(UpstreamAuthenticationError):
                await turn(found)


async def test_a_hundred_turns_at_once() -> None:
    with ModelServer(lambda request: [Text(f"answer {request.body['seed']}")], seed=4) as server:
        async with models({"up": upstream(server)}) as found:
            model = await found.resolve("m")

            async def one(number: int) -> str:
                request = ModelRequest(model="m", messages=ASKED.messages)
                request.options.seed = number
                return said([delta async for delta in found.turn(model, request)])

            assert await asyncio.gather(*map(one, range(100))) == [f"answer {n}" for n in range(100)]
        assert server.connections <= 100
