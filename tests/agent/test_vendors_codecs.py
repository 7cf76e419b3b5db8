"""Responses and Messages: what is sent; and readers of every dialect with nonsense for events."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onehop.agent.model import (
    CallPart,
    Function,
    ImagePart,
    Message,
    ModelRequest,
    Options,
    ReasoningPart,
    ResultPart,
    Schema,
    TextPart,
)
from onehop.agent.upstreams.codec import Capabilities
from onehop.agent.upstreams.config import DIALECTS
from onehop.errors import ProblemError, UnsupportedParameterError

PICTURE = ImagePart(media_type="image/png", data="aGk=")
CONVERSATION = [
    Message("system", [TextPart("Be brief.")]),
    Message("user", [TextPart("What is"), PICTURE]),
    Message(
        "assistant",
        [
            ReasoningPart(text="hm"),
            TextPart("I see"),
            CallPart(id="c1", name="python", arguments='{"code": "6*7"}'),
        ],
    ),
    Message("user", [ResultPart(id="c1", name="python", content=[TextPart("42"), PICTURE])]),
    Message("assistant", [CallPart(id="c2", name="f", arguments="")]),
    Message("user", [ResultPart(id="c2", error=True), TextPart("go on")]),
]
FUNCTION = Function(name="f", description="d", parameters={"type": "object"}, strict=True)
SCHEMA = Schema(name="s", schema={"type": "object"}, strict=True)


def body(
    kind: str, messages: list[Message], capabilities: Capabilities | None = None, **given: Any
) -> dict[str, Any]:
    codec = importlib.import_module(f"onehop.agent.upstreams.{kind}").CODEC
    request = ModelRequest(model="ours", messages=messages, **given)
    found: dict[str, Any] = codec.body(request, "theirs", capabilities or Capabilities())
    return found


def test_a_conversation_for_responses() -> None:
    picture = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGk="}
    sent = body("responses", CONVERSATION)
    assert (sent["model"], sent["stream"], sent["store"]) == ("theirs", True, False)
    assert sent["input"] == [
        {"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "What is"}, picture]},
        # Another vendor's thoughts cannot be said here.
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I see", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "python", "arguments": '{"code": "6*7"}'},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_text", "text": "42"}, picture],
        },
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "It failed."},
        {"role": "user", "content": [{"type": "input_text", "text": "go on"}]},
    ]


def test_a_conversation_for_messages() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    sent = body("messages", CONVERSATION)
    assert sent["system"] == [{"type": "text", "text": "Be brief."}]
    assert sent["max_tokens"] > 0, "this protocol wants one"
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "What is"}, picture]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I see"},
                {"type": "tool_use", "id": "c1", "name": "python", "input": {"code": "6*7"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "42"}, picture],
                }
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c2", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c2", "content": "It failed.", "is_error": True},
                {"type": "text", "text": "go on"},
            ],
        },
    ]


def test_options_for_responses() -> None:
    options = Options(
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        reasoning="low",
        choice="=f",
        parallel_calls=False,
        schema=SCHEMA,
    )
    sent = body("responses", CONVERSATION[1:2], tools=[FUNCTION], options=options)
    assert (sent["max_output_tokens"], sent["temperature"], sent["top_p"]) == (7, 0.5, 0.9)
    assert (sent["reasoning"]["effort"], sent["parallel_tool_calls"]) == ("low", False)
    assert sent["tool_choice"] == {"type": "function", "name": "f"}
    assert sent["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": "d",
            "parameters": {"type": "object"},
            "strict": True,
        }
    ]
    wanted = {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": True}
    assert sent["text"]["format"] == wanted


def test_options_for_messages() -> None:
    options = Options(
        max_tokens=7, temperature=0.5, top_p=0.9, stop=["x"], reasoning="low", choice="=f", parallel_calls=False,
        schema=SCHEMA,
    )  # fmt: skip
    sent = body("messages", CONVERSATION[1:2], tools=[FUNCTION], options=options)
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"], sent["stop_sequences"]) == (
        7,
        0.5,
        0.9,
        ["x"],
    )
    assert sent["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    assert sent["tools"] == [
        {"name": "f", "input_schema": {"type": "object"}, "description": "d", "strict": True}
    ]
    assert sent["output_config"]["format"] == {"type": "json_schema", "schema": {"type": "object"}}
    assert sent["output_config"]["effort"] == "low"


@pytest.mark.parametrize(
    ("kind", "choice", "wanted"),
    [
        ("responses", "auto", "auto"),
        ("responses", "none", "none"),
        ("responses", "required", "required"),
        ("messages", "auto", {"type": "auto"}),
        ("messages", "none", {"type": "none"}),
        ("messages", "required", {"type": "any"}),
    ],
)
def test_which_function(kind: str, choice: str, wanted: Any) -> None:
    assert (
        body(kind, CONVERSATION[1:2], tools=[FUNCTION], options=Options(choice=choice))["tool_choice"]
        == wanted
    )


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("responses", {"options": Options(stop=["x"])}),
        ("responses", {"capabilities": Capabilities(images=False)}),
        ("messages", {"capabilities": Capabilities(images=False)}),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(kind: str, given: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError) as told:
        body(kind, CONVERSATION[1:2], **given)
    assert told.value.extra["field"]


# --- nonsense -----------------------------------------------------------------------------------------

WORDS = [
    "", "type", "index", "delta", "content", "text", "id", "name", "arguments", "item", "output", "usage", "error",
    "choices", "tool_calls", "function", "finish_reason", "content_block", "message", "role", "candidates", "parts",
    "functionCall", "response", "output_index", "item_id", "partial_json", "thinking", "stop_reason", "input_tokens",
]  # fmt: skip
TYPES = [
    "response.created", "response.output_item.added", "response.output_item.done", "response.output_text.delta",
    "response.function_call_arguments.delta", "response.completed", "response.failed", "error", "message_start",
    "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "text_delta",
    "input_json_delta", "tool_use", "function_call", "message", "reasoning", "stop", "tool_calls",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10**19)
    | st.floats()
    | st.sampled_from(TYPES)
    | st.text(max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)
events = st.tuples(
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(WORDS), values, max_size=6),
)


@pytest.mark.parametrize("kind", DIALECTS)
@settings(deadline=None, max_examples=150)
@given(stream=st.lists(events, max_size=6))
def test_a_reader_of_nonsense_refuses_or_reads(kind: str, stream: list[tuple[str, dict[str, Any]]]) -> None:
    """A server of models that says nonsense is that request's problem, and no defect of ours."""
    reader = importlib.import_module(f"onehop.agent.upstreams.{kind}").CODEC.reader()
    try:
        for name, document in stream:
            reader.feed(name, json.dumps({"type": name} | document))
        reader.end()
    except ProblemError:
        pass
