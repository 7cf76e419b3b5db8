"""Chat Completions: what is sent, and what the answers of different servers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    ResultPart,
    Schema,
    TextDelta,
    TextPart,
    Tokens,
    TurnEnd,
)
from onehop.agent.upstreams.chat import CODEC
from onehop.agent.upstreams.codec import Capabilities
from onehop.errors import (
    ContextOverflowError,
    ModelNotFoundError,
    ProblemError,
    UnsupportedParameterError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamRefusedError,
)

PICTURE = ImagePart(media_type="image/png", data="aGk=")


def body(*messages: Message, capabilities: Capabilities | None = None, **members: Any) -> dict[str, Any]:
    request = ModelRequest(model="ours", messages=list(messages), **members)
    return CODEC.body(request, "theirs", capabilities or Capabilities())


def sent(*messages: Message, images: bool = True) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(*messages, capabilities=Capabilities(images=images))["messages"]
    return found


def test_a_conversation_with_calls() -> None:
    assert sent(
        Message("system", [TextPart("Be brief.")]),
        Message("user", [TextPart("What is"), TextPart("6*7?")]),
        Message(
            "assistant",
            [TextPart("Let me see"), CallPart(id="c1", name="python", arguments='{"code": "6*7"}')],
        ),
        Message("user", [ResultPart(id="c1", name="python", content=[TextPart("42"), TextPart("done")])]),
        Message("assistant", [CallPart(id="c2", name="f", arguments="")]),
        Message("user", [ResultPart(id="c2", error=True), TextPart("go on")]),
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "6*7?"}]},
        {
            "role": "assistant",
            "content": "Let me see",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "python", "arguments": '{"code": "6*7"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42\ndone"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "It failed."},
        {"role": "user", "content": "go on"},
    ]


def test_pictures_of_results_follow_all_results() -> None:
    """Results must stand right behind their calls, so a picture may not come between two of them."""
    results = Message(
        "user",
        [
            ResultPart(id="c1", name="python", content=[TextPart("see"), PICTURE]),
            ResultPart(id="c2", name="python", content=[TextPart("7")]),
        ],
    )
    first, second, user = sent(results)
    assert (first["role"], second["role"], user["role"]) == ("tool", "tool", "user")
    assert first["content"] == "see\n(The picture is in the next message.)"
    assert user["content"] == [
        {"type": "text", "text": "The picture of the result of python:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    blind, other = sent(results, images=False)
    assert blind["content"] == "see\n(A picture, which this model cannot see.)"
    assert other["content"] == "7"


def test_pictures_of_the_user() -> None:
    message = Message("user", [TextPart("what?"), ImagePart(url="https://x/y.png", extra={"detail": "low"})])
    (plain,) = sent(message)
    assert plain["content"][1] == {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    (own,) = body(message, dialect="chat")["messages"]
    assert own["content"][1]["image_url"]["detail"] == "low"
    with pytest.raises(UnsupportedParameterError, match="no pictures"):
        sent(message, images=False)


def test_parts_of_other_vendors_are_refused_by_name() -> None:
    document = RawPart(dialect="messages", raw={"type": "document"})
    for message in (
        Message("user", [document]),
        Message("assistant", [document]),
        Message("user", [ResultPart(id="c", content=[document])]),
    ):
        with pytest.raises(UnsupportedParameterError, match="Chat Completions") as raised:
            sent(message)
        assert raised.value.extra["field"] == "messages"
    own = RawPart(dialect="chat", raw={"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}})
    assert sent(Message("user", [own]))[0]["content"] == [own.raw]


def test_thoughts_go_back_only_where_they_are_wanted() -> None:
    call = CallPart(id="c", name="f", arguments="{}")
    thought = ReasoningPart(text="hm", dialect="chat", raw={"reasoning_content": "hm"})
    foreign = ReasoningPart(text="hm", dialect="messages", raw={"type": "thinking", "signature": "s"})
    assert sent(Message("assistant", [thought, call]))[0]["reasoning_content"] == "hm"
    assert "reasoning_content" not in sent(Message("assistant", [thought, TextPart("a")]))[0]
    assert sent(Message("assistant", [foreign, TextPart("a")])) == [{"role": "assistant", "content": "a"}]


def test_options() -> None:
    options = Options(
        max_tokens=9, temperature=0.5, top_p=0.9, top_k=3, stop=["x"], seed=1, reasoning="low", choice="=f",
        parallel_calls=True, schema=Schema(name="s", description="d", schema={"type": "object"}, strict=True),
    )  # fmt: skip
    found = body(
        options=options,
        tools=[Function(name="f", description="d", parameters={"type": "object"}, strict=True)],
    )
    assert found == {
        "model": "theirs",
        "messages": [],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            }
        ],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "seed": 1,
        "stop": ["x"],
        "reasoning_effort": "low",
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": True,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}, "description": "d", "strict": True},
        },
    }


def test_what_a_server_cannot_do_is_not_sent() -> None:
    found = body(
        tools=[Function(name="f", strict=True)],
        options=Options(schema=Schema(schema={}, strict=True), parallel_calls=True),
        capabilities=Capabilities(strict=False, parallel_calls=False),
    )
    assert "strict" not in json.dumps(found)
    assert found["parallel_tool_calls"] is False
    older = Capabilities(max_tokens_name="max_tokens", stream_options=False)
    found = body(
        options=Options(max_tokens=5, extra={"stream_options": {}}), capabilities=older, dialect="chat"
    )
    assert found == {"model": "theirs", "messages": [], "stream": True, "max_tokens": 5}
    assert body(options=Options(schema=Schema()))["response_format"] == {"type": "json_object"}
    assert "tool_choice" not in body(options=Options(choice="auto", parallel_calls=True)), "without tools"


def test_further_members_pass_to_their_own_dialect_only() -> None:
    extra = {
        "logprobs": True,
        "max_tokens": 5,
        "model": "evil",
        "stream": False,
        "stream_options": {"include_obfuscation": False},
    }
    found = body(options=Options(extra=extra, max_tokens=5), dialect="chat")
    assert (found["logprobs"], found["model"], found["stream"]) == (True, "theirs", True)
    assert found["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert (found["max_completion_tokens"], "max_tokens" in found) == (5, False)
    assert "logprobs" not in body(options=Options(extra=extra), dialect="messages")
    raw = [{"type": "web_search"}]
    assert body(raw_tools=raw, dialect="chat")["tools"] == raw
    with pytest.raises(UnsupportedParameterError, match="tools"):
        body(raw_tools=raw, dialect="messages")


def read(*chunks: dict[str, Any] | str) -> list[Delta]:
    reader = CODEC.reader()
    found: list[Delta] = []
    for chunk in chunks:
        found += reader.feed("", chunk if isinstance(chunk, str) else json.dumps(chunk))
    return found + reader.end()


def delta(finish: str | None = None, **members: Any) -> dict[str, Any]:
    return {"id": "x1", "model": "m", "choices": [{"index": 0, "delta": members, "finish_reason": finish}]}


def ended(deltas: list[Delta]) -> TurnEnd:
    assert isinstance(deltas[-1], TurnEnd)
    return deltas[-1]


STOP = delta("stop")


def test_text_and_usage() -> None:
    usage = {
        "prompt_tokens": 10, "completion_tokens": 6, "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    first = {**delta(role="assistant", content=""), "system_fingerprint": "fp", "created": 7}
    found = read(
        first, delta(content="a"), delta(content="b"), STOP, {"choices": [], "usage": usage}, "[DONE]"
    )
    assert found[:2] == [TextDelta("a"), TextDelta("b")]
    end = ended(found)
    assert end.message == Message("assistant", [TextPart("ab")])
    assert end.tokens == Tokens(input=10, output=6, cached=4, reasoning=2)
    assert (end.stop, end.raw_stop, end.model, end.id) == ("end", "stop", "m", "x1")
    assert end.extra == {"system_fingerprint": "fp", "created": 7}


@pytest.mark.parametrize(
    ("last", "wanted"),
    [
        ("stop", "end"),
        ("length", "length"),
        ("content_filter", "refusal"),
        ("tool_calls", "end"),
        ("odd", "end"),
    ],
)
def test_ends_without_calls(last: str, wanted: str) -> None:
    assert ended(read(delta(content="a"), delta(last))).stop == wanted


def test_an_end_without_done_is_an_end() -> None:
    assert ended(read(delta(content="a"), STOP)).stop == "end"


@pytest.mark.parametrize("chunks", [[], [delta(content="a")], [delta(content="a"), "[DONE]"]])
def test_an_answer_that_was_cut_off(chunks: list[Any]) -> None:
    with pytest.raises(UpstreamError, match="before the end"):
        read(*chunks)


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
def test_thoughts(member: str) -> None:
    found = read(delta(**{member: "hm "}), delta(**{member: "so"}), delta(content="a"), STOP)
    assert found[:2] == [ReasoningDelta("hm "), ReasoningDelta("so")]
    thought = ended(found).message.parts[0]
    assert thought == ReasoningPart(text="hm so", dialect="chat", raw={member: "hm so"})


def test_thoughts_of_openrouter_come_back_whole() -> None:
    piece = {"type": "reasoning.text", "index": 0, "format": "f"}
    found = read(
        delta(reasoning="a", reasoning_details=[{**piece, "text": "a"}]),
        delta(reasoning="b", reasoning_details=[{**piece, "text": "b", "signature": None}]),
        delta(reasoning_details=[{**piece, "signature": "sig"}]),
        delta(content="x"),
        STOP,
    )
    thought = ended(found).message.parts[0]
    assert isinstance(thought, ReasoningPart)
    assert thought.raw["reasoning_details"] == [{**piece, "text": "ab", "signature": "sig"}]


def test_a_refusal() -> None:
    found = read(delta(refusal="I will"), delta(refusal=" not"), STOP)
    assert found[:2] == [RefusalDelta("I will"), RefusalDelta(" not")]
    assert (ended(found).stop, ended(found).message.parts) == ("refusal", [TextPart("I will not")])


def call(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> Any:
    members: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if index is not None:
        members["index"] = index
    if id is not None:
        members["id"] = id
    return delta(tool_calls=[members])


CALLS: dict[str, list[Any]] = {
    "OpenAI": [
        call(0, "c1", "f", ""), call(0, None, None, '{"a"'), call(0, None, None, ": 1}"),
        call(1, "c2", "g", ""), call(1, None, None, "{}"),
    ],
    "interleaved": [
        call(0, "c1", "f"), call(1, "c2", "g"), call(1, None, None, "{"), call(0, None, None, '{"a": 1'),
        call(1, None, None, "}"), call(0, None, None, "}"),
    ],
    "whole, without an index": [call(None, "c1", "f", '{"a": 1}'), call(None, "c2", "g", "{}")],
    "in pieces, without an index": [
        call(None, "c1", "f", '{"a"'), call(None, None, None, ": 1}"), call(None, "c2", "g", "{}"),
    ],
    "all under index 0": [call(0, "c1", "f", '{"a": 1}'), call(0, "c2", "g", "{}")],
    "id and name in every piece": [
        call(0, "c1", "f", '{"a"'), call(0, "c1", "f", ": 1}"), call(1, "c2", "g", "{}"),
    ],
    "both in one chunk": [
        delta(tool_calls=[
            {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a": 1}'}},
            {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}},
        ])
    ],
}  # fmt: skip


@pytest.mark.parametrize("chunks", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_calls_as_servers_send_them(chunks: list[Any], finish: str) -> None:
    found = read(*chunks, delta(finish))
    end = ended(found)
    assert end.stop == "calls"
    assert end.message.parts == [
        CallPart(id="c1", name="f", arguments='{"a": 1}'),
        CallPart(id="c2", name="g", arguments="{}"),
    ]
    assert [one for one in found if isinstance(one, CallStart)] == [
        CallStart(0, "c1", "f"),
        CallStart(1, "c2", "g"),
    ]
    for index, whole in ((0, '{"a": 1}'), (1, "{}")):
        pieces = [one.text for one in found if isinstance(one, CallDelta) and one.index == index]
        assert "".join(pieces) == whole


def test_calls_of_a_server_without_ids_and_with_objects() -> None:
    chunks = [call(None, None, "f", {"a": 1}), call(None, None, "g", {})]
    first, second = ended(read(*chunks, STOP)).message.parts
    assert isinstance(first, CallPart)
    assert isinstance(second, CallPart)
    assert (json.loads(first.arguments), first.name, second.name) == ({"a": 1}, "f", "g")
    assert first.id.startswith("call_")
    assert first.id != second.id
    again = ended(read(*chunks, STOP)).message.parts[0]
    assert isinstance(again, CallPart)
    assert again.id != first.id, "the same conversation has both"


def test_text_between_calls_keeps_its_place() -> None:
    parts = ended(
        read(delta(content="a"), call(0, "c", "f", "{}"), delta(content="b"), delta("tool_calls"))
    ).message.parts
    assert parts == [TextPart("a"), CallPart(id="c", name="f", arguments="{}"), TextPart("b")]


def test_arguments_that_are_no_json_are_the_loops_business() -> None:
    (part,) = ended(read(call(0, "c", "f", '{"a": '), delta("tool_calls"))).message.parts
    assert part == CallPart(id="c", name="f", arguments='{"a": ')


def test_signatures_of_calls_are_kept_and_sent_back() -> None:
    signed = {
        "index": 0,
        "id": "c",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"s": 1}},
    }
    end = ended(read(delta(tool_calls=[signed]), delta("tool_calls")))
    (message,) = body(end.message, dialect="chat")["messages"]
    assert message["tool_calls"][0]["extra_content"] == {"google": {"s": 1}}


def test_the_sequence_that_stopped_it() -> None:
    last = delta("stop")
    last["choices"][0]["stop_reason"] = "END"
    assert ended(read(delta(content="a"), last)).stopped_by == "END"


@pytest.mark.parametrize(
    "data",
    ["", "{", "[]", "null", '{"choices": 3}', '{"choices": [{"delta": {"tool_calls": [{"index": "x"}]}}]}',
     '{"choices": [{"delta": {"content": 7}}]}', '{"choices": [{"delta": {"tool_calls": [{"index": 4}]}}]}',
     '{"choices": [{"delta": {"content": "\\ud800"}}]}'[:-3], "\ud800"],
)  # fmt: skip
def test_chunks_that_cannot_be_read(data: str) -> None:
    with pytest.raises(UpstreamError):
        CODEC.reader().feed("", data)


def test_an_error_amid_the_stream() -> None:
    reader = CODEC.reader()
    reader.feed("", json.dumps(delta(content="a")))
    with pytest.raises(UpstreamError, match="it broke"):
        reader.feed("", '{"error": {"message": "it broke", "code": 502}}')


ERRORS: list[tuple[int, Any, type[ProblemError] | None]] = [
    (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, ContextOverflowError),
    (400, {"error": {"message": "This model's maximum context length is 10 tokens."}}, ContextOverflowError),
    (400, {"object": "error", "message": "maximum context length is 10", "code": 400}, ContextOverflowError),
    (
        400,
        {"error": {"code": 400, "message": "too large", "type": "exceed_context_size_error"}},
        ContextOverflowError,
    ),
    (413, {"error": {"message": "Prompt is too long"}}, ContextOverflowError),
    (
        404,
        {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}},
        ModelNotFoundError,
    ),
    (404, {"error": 'model "x" not found, try pulling it first'}, ModelNotFoundError),
    (400, {"error": {"message": "x is not a valid model ID", "code": 400}}, ModelNotFoundError),
    (429, {"error": {"message": "slow down"}}, UpstreamBusyError),
    (429, {"error": {"message": "pay", "code": "insufficient_quota"}}, UpstreamAuthenticationError),
    (503, {"error": {"message": "loading model"}}, UpstreamBusyError),
    (400, {"error": {"message": "bad", "param": "top_p"}}, UpstreamRefusedError),
    (422, {"detail": "no such field"}, UpstreamRefusedError),
    (500, {"error": {"message": "broke"}}, UpstreamError),
    (401, {"error": {"message": "Incorrect API key provided: sk-abc***", "code": "invalid_api_key"}}, None),
    (404, {"detail": "Not Found"}, None),
    (500, "<html>", None),
    (500, [], None),
    (500, {"error": {}}, None),
    (500, {"error": {"message": 7}}, None),
]


@pytest.mark.parametrize(("status", "document", "kind"), ERRORS)
def test_documents_of_errors(status: int, document: Any, kind: type[ProblemError] | None) -> None:
    content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    found = CODEC.error(status, content)
    assert (None if found is None else type(found)) is kind
    assert CODEC.error(status, b"\xff\xfe") is None
