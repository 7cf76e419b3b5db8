"""What is said to models and by them, in words that belong to no vendor.

Wires make these from what clients send; codecs make what an upstream takes from these. Members that only one
dialect knows travel in `extra`, and whole parts that only one dialect knows as `RawPart`: an upstream of that
dialect gets them back unchanged, for another one a codec leaves `extra` out and refuses a `RawPart` by name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Dialect = Literal["chat", "responses", "messages", "gemini"]
"""Chat Completions and Responses (OpenAI), Messages (Anthropic), generateContent (Google)."""


class TextPart(msgspec.Struct, tag="text", omit_defaults=True):
    text: str
    extra: dict[str, Any] = {}


class ImagePart(msgspec.Struct, tag="image", kw_only=True, omit_defaults=True):
    """A picture, as base64 `data` with its media type, or at a URL that the upstream fetches itself."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    extra: dict[str, Any] = {}


class ReasoningPart(msgspec.Struct, tag="reasoning", kw_only=True, omit_defaults=True):
    """What a model thought. `raw` is the vendor's own block with its signature, of `dialect`."""

    text: str = ""
    dialect: Dialect | None = None
    raw: dict[str, Any] = {}


class CallPart(msgspec.Struct, tag="call", kw_only=True, omit_defaults=True):
    """A model calls a function. `arguments` is JSON text as the model wrote it: it may be no JSON at all."""

    id: str
    name: str
    arguments: str
    extra: dict[str, Any] = {}


class ResultPart(msgspec.Struct, tag="result", kw_only=True, omit_defaults=True):
    """What a called function gave; stands in messages of the role `user`.

    Args:
        id: of the call.
        name: of the function, for the dialects that want it.
    """

    id: str
    name: str = ""
    content: list[TextPart | ImagePart | RawPart] = []
    error: bool = False
    extra: dict[str, Any] = {}


class RawPart(msgspec.Struct, tag="raw", kw_only=True):
    """A part that only `dialect` knows: a document, sound, the vendor's own tools at work."""

    dialect: Dialect
    raw: dict[str, Any]


Part = TextPart | ImagePart | ReasoningPart | CallPart | ResultPart | RawPart


class Message(msgspec.Struct, omit_defaults=True):
    """One side's words. Results of calls stand in `user` messages, calls in `assistant` ones."""

    role: Literal["system", "user", "assistant"]
    parts: list[Part]
    extra: dict[str, Any] = {}


class Function(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A function that the model may call. `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None
    extra: dict[str, Any] = {}


class Schema(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer has to fit this JSON Schema; without one it has to be any JSON object."""

    name: str = ""
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class Options(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How a model shall answer; what is None is left to the upstream.

    Args:
        max_tokens: of one turn's answer.
        reasoning: effort as the vendors name it: none, minimal, low, medium, high, xhigh, max.
        choice: `auto`, `none`, `required`, or `=NAME` for one function.
        parallel_calls: several calls in one turn.
        extra: further members of the request, of the request's dialect.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    seed: int | None = None
    reasoning: str | None = None
    choice: str | None = None
    parallel_calls: bool | None = None
    schema: Schema | None = None
    extra: dict[str, Any] = {}


class ModelRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One turn of a model.

    Args:
        dialect: whose `extra` members and raw parts these are.
        raw_tools: tools of the vendor's own that are passed through, of the same dialect.
    """

    model: str
    messages: list[Message]
    tools: list[Function] = []
    raw_tools: list[dict[str, Any]] = []
    options: Options = msgspec.field(default_factory=Options)
    dialect: Dialect | None = None


class Tokens(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was counted. `input` includes what was read from a cache or written to one; `output` includes reasoning."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_written: int = 0
    reasoning: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            input=self.input + other.input,
            output=self.output + other.output,
            cached=self.cached + other.cached,
            cache_written=self.cache_written + other.cache_written,
            reasoning=self.reasoning + other.reasoning,
        )


Stop = Literal["end", "calls", "length", "refusal", "pause"]
"""Why a turn ended: it is complete, wants results of calls, was cut, was refused, or is to be asked again as it is."""


class TextDelta(msgspec.Struct):
    text: str


class ReasoningDelta(msgspec.Struct):
    text: str


class RefusalDelta(msgspec.Struct):
    text: str


class CallStart(msgspec.Struct):
    """A call begins; `index` names it in the deltas that follow."""

    index: int
    id: str
    name: str


class CallDelta(msgspec.Struct):
    """A piece of the arguments' JSON text."""

    index: int
    text: str


class TurnEnd(msgspec.Struct, kw_only=True):
    """The last delta of every turn.

    Args:
        message: the whole answer, parts in the order in which they came.
        stopped_by: the stop sequence that was met.
        raw_stop: the upstream's own word for `stop`.
        model, id: as the upstream named them.
        extra: further members of the answer, of the upstream's dialect (system_fingerprint, grounding…).
    """

    message: Message
    stop: Stop
    tokens: Tokens
    stopped_by: str = ""
    raw_stop: str = ""
    model: str = ""
    id: str = ""
    extra: dict[str, Any] = {}


Delta = TextDelta | ReasoningDelta | RefusalDelta | CallStart | CallDelta | TurnEnd
