"""OpenAI's Responses, for requests to an upstream. Source: https://platform.openai.com/docs/api-reference/responses.

Nothing is stored there: the whole conversation goes with every turn, reasoning with its encrypted content. It must
never leave out what changes the meaning of a request: what this dialect cannot say is refused by name.
"""

from __future__ import annotations

from typing import Any

from onehop.agent.model import (
    CallPart,
    Dialect,
    Function,
    ImagePart,
    Message,
    ModelRequest,
    Options,
    Part,
    RawPart,
    ReasoningPart,
    ResultPart,
    TextPart,
)
from onehop.agent.upstreams.chat_errors import meaning
from onehop.agent.upstreams.codec import Capabilities, Codec, Reader
from onehop.agent.upstreams.responses_reader import ResponsesReader
from onehop.errors import ProblemError, UnsupportedParameterError

ENCRYPTED = "reasoning.encrypted_content"
OURS = ("model", "input", "stream", "store")
"""Members that `extra` cannot replace."""


class ResponsesCodec:
    """See `Codec`."""

    dialect: Dialect = "responses"

    def path(self, model: str) -> str:
        return "/responses"

    def headers(self, key: str) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        return headers

    def body(self, request: ModelRequest, model: str, capabilities: Capabilities) -> dict[str, Any]:
        own = request.dialect == "responses"
        items: list[dict[str, Any]] = []
        for message in request.messages:
            items += _items(message, capabilities, own)
        body: dict[str, Any] = {"model": model, "input": items, "stream": True, "store": False}
        tools = [_function(one, capabilities, own) for one in request.tools]
        if request.raw_tools:
            if not own:
                raise UnsupportedParameterError(
                    "tools: the model's server speaks Responses, which has no such tool", field="tools"
                )
            tools += request.raw_tools
        if tools:
            body["tools"] = tools
        _options(body, request.options, capabilities, bool(tools), own)
        return body

    def reader(self) -> Reader:
        return ResponsesReader()

    def error(self, status: int, body: bytes) -> ProblemError | None:
        return meaning(status, body)


def _options(
    body: dict[str, Any], options: Options, capabilities: Capabilities, tools: bool, own: bool
) -> None:
    extra = options.extra if own else {}
    body.update({name: value for name, value in extra.items() if name not in OURS})
    for name, value in (
        ("max_output_tokens", options.max_tokens),
        ("temperature", options.temperature),
        ("top_p", options.top_p),
    ):
        if value is not None:
            body[name] = value
    if options.stop:
        raise UnsupportedParameterError(
            "stop: the model's server speaks Responses, which has no stop sequences", field="stop"
        )
    if options.reasoning is not None:
        body["reasoning"] = {**(body.get("reasoning") or {}), "effort": options.reasoning}
    if "reasoning" in body or own:
        body["include"] = sorted({*(body.get("include") or []), ENCRYPTED})
    if tools and options.choice is not None:
        named = options.choice.startswith("=")
        body["tool_choice"] = {"type": "function", "name": options.choice[1:]} if named else options.choice
    if tools and options.parallel_calls is not None:
        body["parallel_tool_calls"] = options.parallel_calls and capabilities.parallel_calls
    elif tools and not capabilities.parallel_calls:
        body["parallel_tool_calls"] = False
    schema = options.schema
    if schema is not None:
        form: dict[str, Any] = {"type": "json_object"}
        if schema.schema is not None:
            form = {"type": "json_schema", "name": schema.name or "answer", "schema": schema.schema}
            if schema.description:
                form["description"] = schema.description
            if schema.strict is not None and capabilities.strict:
                form["strict"] = schema.strict
        body["text"] = {**(body.get("text") or {}), "format": form}


def _function(function: Function, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        **(function.extra if own else {}),
        "type": "function",
        "name": function.name,
        "parameters": function.parameters or {"type": "object", "properties": {}},
        "strict": bool(function.strict) and capabilities.strict,
    }
    if function.description:
        document["description"] = function.description
    return document


# --- messages -----------------------------------------------------------------------------------------


def _items(message: Message, capabilities: Capabilities, own: bool) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return _assistant(message, own)
    items: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, ResultPart):
            items.append(_result(part, capabilities))
        else:
            content.append(_content(part, capabilities, own))
    if content or not items:
        items.append({"role": message.role, **(message.extra if own else {}), "content": content})
    return items


def _content(part: Part, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, ImagePart):
        if not capabilities.images:
            raise UnsupportedParameterError("input: this model takes no pictures", field="input")
        image: dict[str, Any] = {"type": "input_image", "detail": "auto"}
        if own:
            image.update(part.extra)
        if part.url or part.data:
            image["image_url"] = part.url or f"data:{part.media_type};base64,{part.data}"
        return image
    if isinstance(part, RawPart) and part.dialect == "responses":
        return part.raw
    raise _unsayable(part)


def _assistant(message: Message, own: bool) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []

    def flush() -> None:
        if texts:
            items.append({"type": "message", "role": "assistant", "content": list(texts)})
            texts.clear()

    for part in message.parts:
        if isinstance(part, TextPart):
            kind = "refusal" if own and part.extra.get("refusal") else "output_text"
            one: dict[str, Any] = {"type": kind, ("refusal" if kind == "refusal" else "text"): part.text}
            if kind == "output_text":
                one["annotations"] = []
            texts.append(one)
        elif isinstance(part, CallPart):
            flush()
            call = {"type": "function_call", "call_id": part.id, "name": part.name}
            items.append({**call, "arguments": part.arguments or "{}"})
        elif isinstance(part, ReasoningPart):
            if part.dialect == "responses" and part.raw.get("encrypted_content"):
                flush()
                items.append({name: value for name, value in part.raw.items() if name != "status"})
        elif isinstance(part, RawPart) and part.dialect == "responses":
            flush()
            items.append(part.raw)
        else:
            raise _unsayable(part)
    flush()
    return items


def _result(part: ResultPart, capabilities: Capabilities) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for one in part.content:
        if isinstance(one, ImagePart) and not capabilities.images:
            content.append({"type": "input_text", "text": "(A picture, which this model cannot see.)"})
        else:
            content.append(_content(one, capabilities, True))
    texts = [one["text"] for one in content if one["type"] == "input_text"]
    output: Any = "\n".join(texts) if len(texts) == len(content) else content
    if part.error and not content:
        output = "It failed."
    return {"type": "function_call_output", "call_id": part.id, "output": output}


def _unsayable(part: Part) -> UnsupportedParameterError:
    kind = part.raw.get("type", "part") if isinstance(part, RawPart) else type(part).__name__
    return UnsupportedParameterError(
        f"messages: the model's server speaks Responses, which cannot carry a {kind!r} here", field="messages"
    )


CODEC: Codec = ResponsesCodec()
