"""The codec of Google's protocol, against a scripted server that streams it."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest

from onehop import errors
from onehop.agent.model import (
    CallDelta,
    CallPart,
    CallStart,
    Delta,
    Function,
    ImagePart,
    Message,
    ModelRequest,
    Options,
    RawPart,
    ReasoningPart,
    RefusalDelta,
    ResultPart,
    Schema,
    TextDelta,
    TextPart,
    TurnEnd,
)
from onehop.agent.upstreams.codec import Capabilities
from onehop.agent.upstreams.gemini import CODEC, NO_SIGNATURE
from onehop.agent.upstreams.router import Models
from onehop.config import load
from tests.models.script import Call, Calls, HangUp, Raw, Reasoning, Reply, Status, Text, Turn
from tests.models.server import ModelServer

HELLO = [Message("user", [TextPart("hello")])]


async def asked(server: ModelServer, request: ModelRequest) -> tuple[list[Delta], TurnEnd]:
    settings = load({"upstreams": server.setting("gemini", models=["*"], retries=0)}, {})
    async with Models(settings, {"scripted": "secret-key"}) as models:
        model = await models.resolve(request.model)
        async with aclosing(models.turn(model, request)) as turn:
            deltas = [delta async for delta in turn]
    end = deltas.pop()
    assert isinstance(end, TurnEnd)
    return deltas, end


async def answered(
    steps: Reply, *, seed: int | None = None, **given: Any
) -> tuple[list[Delta], TurnEnd, ModelServer]:
    with ModelServer([steps], seed=seed, key="secret-key") as server:
        request = ModelRequest(**{"model": "gemini-3-pro", "messages": HELLO, **given})
        return *await asked(server, request), server


def body(
    model: str = "gemini-3-pro", capabilities: Capabilities | None = None, **given: Any
) -> dict[str, Any]:
    request = ModelRequest(**{"model": model, "messages": HELLO, **given})
    return CODEC.body(request, model, capabilities or Capabilities())


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
async def test_text_thoughts_and_calls_come_through_any_chunks(seed: int | None) -> None:
    calls = Calls([Call("python", {"code": "1+1 # ü"}, id="own"), Call("other", {})])
    turn = Turn(
        [Reasoning("let me see"), Text("It is süß so."), calls],
        output_tokens=9,
        reasoning_tokens=4,
        cached_tokens=3,
    )
    deltas, end, server = await answered(turn, seed=seed)
    assert "".join(one.text for one in deltas if isinstance(one, TextDelta)) == "It is süß so."
    starts = [one for one in deltas if isinstance(one, CallStart)]
    assert [(one.index, one.name) for one in starts] == [(0, "python"), (1, "other")]
    assert starts[0].id == "own"
    assert starts[1].id.startswith("call_")
    assert [json.loads(one.text) for one in deltas if isinstance(one, CallDelta)] == [{"code": "1+1 # ü"}, {}]
    thought, text, first, second = end.message.parts
    assert thought == ReasoningPart(
        text="let me see", dialect="gemini", raw={"text": "let me see", "thought": True}
    )
    assert text == TextPart("It is süß so.")
    assert isinstance(first, CallPart)
    assert first.extra["thoughtSignature"]
    assert isinstance(second, CallPart)
    assert second.extra == {}
    tokens = end.tokens
    assert (end.stop, end.raw_stop, end.model, end.id) == ("calls", "STOP", "gemini-3-pro", "response-1")
    assert (tokens.input, tokens.output, tokens.cached, tokens.reasoning) == (10, 9, 3, 4)
    asked = server.requests[0]
    assert asked.path == "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert asked.headers["x-goog-api-key"] == "secret-key"
    assert asked.body == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


async def test_an_answer_goes_back_as_it_came_with_its_signatures() -> None:
    raw = {"candidates": [{"content": {"parts": [{"text": "", "thoughtSignature": "abc="}]}, "index": 0}]}
    picture = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    shown = {"candidates": [{"content": {"parts": [picture]}, "index": 0}]}
    events = [Raw(b"data: " + json.dumps(one).encode() + b"\n\n") for one in (raw, shown)]
    _, end, _ = await answered([Reasoning("hm"), Text("a b"), *events, Call("f", {"x": 1}, id="c1")])
    result = ResultPart(id="c1", content=[TextPart("2"), ImagePart(media_type="image/png", data="aGk=")])
    said = body(messages=[*HELLO, end.message, Message("user", [result])], dialect="chat")
    model, user = said["contents"][1:]
    assert model["parts"][0] == {"text": "hm", "thought": True}
    assert model["parts"][1] == {"text": "a b", "thoughtSignature": "abc="}
    assert model["parts"][2] == picture
    assert model["parts"][3]["functionCall"] == {"id": "c1", "name": "f", "args": {"x": 1}}
    assert model["parts"][3]["thoughtSignature"]
    response = {"id": "c1", "name": "f", "response": {"output": "2"}, "parts": [picture]}
    assert user == {"role": "user", "parts": [{"functionResponse": response}]}


def test_results_of_one_turn_stand_in_one_content() -> None:
    calls = [CallPart(id=name, name=f"f{name}", arguments="{}") for name in "ab"]
    results = [
        Message("user", [ResultPart(id=name, content=[TextPart(name)], error=name == "b")]) for name in "ab"
    ]
    last = Message("user", [TextPart("go on")])
    said = body(messages=[*HELLO, Message("assistant", list(calls)), *results, last])
    assert [one["role"] for one in said["contents"]] == ["user", "model", "user", "user"]
    found = [part["functionResponse"] for part in said["contents"][2]["parts"]]
    assert [(one["name"], one["response"]) for one in found] == [
        ("fa", {"output": "a"}),
        ("fb", {"error": "b"}),
    ]


def test_calls_of_another_model_get_the_mark_that_gemini_3_wants() -> None:
    messages = [*HELLO, Message("assistant", [CallPart(id="a", name="f", arguments="[1]")])]
    part = body(messages=messages)["contents"][1]["parts"][0]
    assert part["thoughtSignature"] == NO_SIGNATURE
    assert part["functionCall"]["args"] == {"malformed": "[1]"}
    assert "thoughtSignature" not in body("gemini-2.5-pro", messages=messages)["contents"][1]["parts"][0]


def test_before_gemini_3_pictures_stand_beside_a_result() -> None:
    picture = ImagePart(media_type="image/png", data="aGk=")
    messages = [Message("user", [ResultPart(id="a", name="f", content=[picture])])]
    assert len(body("gemini-2.5-flash", messages=messages)["contents"][0]["parts"]) == 2
    blind = body("x", Capabilities(images=False), messages=messages)["contents"][0]["parts"]
    assert "cannot see" in blind[0]["functionResponse"]["response"]["output"]
    with pytest.raises(errors.UnsupportedParameterError, match="no pictures"):
        body("x", Capabilities(images=False), messages=[Message("user", [picture])])


def test_options_and_tools() -> None:
    said = body(
        messages=[Message("system", [TextPart("be brief")]), *HELLO],
        tools=[Function(name="f", description="does", parameters={"type": "object"}), Function(name="g")],
        options=Options(
            max_tokens=5, temperature=0.5, top_p=0.9, top_k=3, stop=["x"], seed=7, reasoning="low", choice="=f",
            schema=Schema(schema={"type": "object"}), extra={"foreign": 1},
        ),
        dialect="chat",
    )  # fmt: skip
    assert said["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert said["tools"] == [
        {
            "functionDeclarations": [
                {"name": "f", "description": "does", "parametersJsonSchema": {"type": "object"}},
                {"name": "g"},
            ]
        }
    ]
    assert said["generationConfig"] == {
        "maxOutputTokens": 5,
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 3,
        "stopSequences": ["x"],
        "seed": 7,
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }
    assert said["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
    assert "foreign" not in said
    thinking = body("gemini-2.5-flash", options=Options(reasoning="none"))["generationConfig"]
    assert thinking == {"thinkingConfig": {"thinkingBudget": 0}}


def test_what_a_client_of_the_same_protocol_says_stays() -> None:
    declared = {"name": "f", "parameters": {"type": "OBJECT"}}
    extra = {
        "safetySettings": [{"category": "x"}],
        "generationConfig": {"topP": 0.1, "responseMimeType": "text/plain"},
    }
    said = body(
        tools=[Function(name="f", parameters={"type": "object"}, extra={"functionDeclaration": declared})],
        raw_tools=[{"googleSearch": {}}],
        options=Options(top_p=0.1, extra=extra),
        dialect="gemini",
    )
    assert said["tools"] == [{"googleSearch": {}}, {"functionDeclarations": [declared]}]
    assert said["safetySettings"] == [{"category": "x"}]
    assert said["generationConfig"] == extra["generationConfig"]


@pytest.mark.parametrize(
    "given",
    [
        {"raw_tools": [{"type": "web_search"}], "dialect": "responses"},
        {"messages": [Message("user", [RawPart(dialect="chat", raw={"type": "input_audio"})])]},
        {"options": Options(reasoning="none")},
    ],
)
def test_what_cannot_be_said_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(errors.UnsupportedParameterError):
        body(**given)


@pytest.mark.parametrize(
    ("stop", "reason", "wanted"), [("length", "MAX_TOKENS", "length"), ("refusal", "SAFETY", "refusal")]
)
async def test_reasons(stop: str, reason: str, wanted: str) -> None:
    deltas, end, _ = await answered(Turn([Text("so")], stop=stop))
    assert (end.stop, end.raw_stop) == (wanted, reason)
    assert any(isinstance(one, RefusalDelta) for one in deltas) == (wanted == "refusal")
    assert ("safetyRatings" in end.extra) == (wanted == "refusal")


async def test_a_blocked_prompt_is_a_refusal() -> None:
    event = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 4},
    }
    deltas, end, _ = await answered(Turn([Raw(b"data: " + json.dumps(event).encode() + b"\n\n")], ends=False))
    assert deltas == [RefusalDelta("The prompt was blocked: PROHIBITED_CONTENT.")]
    assert (end.stop, end.tokens.input, end.extra["promptFeedback"]) == (
        "refusal",
        4,
        event["promptFeedback"],
    )


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        (Turn([Text("half an ans")], ends=False), errors.UpstreamError),
        ([Text("half"), HangUp()], errors.UpstreamError),
        ([Call("python", '{"code": "1')], errors.UpstreamError),
        ([Raw(b"data: {nonsense\n\n")], errors.UpstreamError),
        ([Raw(b'data: {"candidates": [{"content": {"parts": [1]}}]}\n\n')], errors.UpstreamError),
        ([Raw(b'data: {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}\n\n')], errors.UpstreamError),
        ([Raw(b'data: {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}\n\n')], errors.UpstreamBusyError),
        ([Status(429, "slow down")], errors.UpstreamBusyError),
        ([Status(403, "secret-key is not allowed")], errors.UpstreamAuthenticationError),
        ([Status(400, "API key not valid. Please pass a valid API key.")], errors.UpstreamAuthenticationError),
        ([Status(404, "models/x is not found for API version v1beta")], errors.ModelNotFoundError),
        ([Status(400, "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).")], errors.ContextOverflowError),
        ([Status(400, "Unable to process input image")], errors.UpstreamRefusedError),
        ([Status(500, "An internal error has occurred.")], errors.UpstreamError),
        ([Status(504, "Deadline exceeded")], errors.UpstreamTimeoutError),
        ([Status(502, body=b"<html>")], errors.UpstreamError),
    ],
)  # fmt: skip
async def test_errors(steps: Reply, error: type[errors.ProblemError]) -> None:
    with pytest.raises(errors.ProblemError) as raised:
        await answered(steps)
    assert type(raised.value) is error
    assert "secret-key" not in raised.value.detail


def test_google_says_when_to_come_again() -> None:
    document = [
        {
            "error": {
                "code": 429,
                "message": "You exceeded your quota",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.5s"}],
            }
        }
    ]
    error = CODEC.error(429, json.dumps(document).encode())
    assert isinstance(error, errors.UpstreamBusyError)
    assert error.retry_after_s == 38.5
