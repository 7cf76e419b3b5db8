"""Chat Completions, as OpenAI and everybody who is compatible with it serves them.

Sources: https://platform.openai.com/docs/api-reference/chat and /chat-streaming; `reasoning_content` as DeepSeek
and vLLM, `reasoning` as OpenRouter, Ollama and newer vLLM stream it. It must never leave out what changes the
meaning of a request: what this dialect cannot say is refused by name.
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
    RawPart,
    ReasoningPart,
    ResultPart,
    Schema,
    TextPart,
)
from onehop.agent.upstreams.chat_errors import meaning
from onehop.agent.upstreams.chat_reader import ChatReader
from onehop.agent.upstreams.codec import Capabilities, Codec, Reader
from onehop.errors import ProblemError, UnsupportedParameterError

PICTURE_NOTE = "(The picture is in the next message.)"
NO_PICTURE_NOTE = "(A picture, which this model cannot see.)"
OURS = ("model", "messages", "stream", "stream_options")
"""Members that `extra` cannot replace."""


class ChatCodec:
    """See `Codec`."""

    dialect: Dialect = "chat"

    def path(self, model: str) -> str:
        return "/chat/completions"

    def headers(self, key: str) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        return headers

    def body(self, request: ModelRequest, model: str, capabilities: Capabilities) -> dict[str, Any]:
        own = request.dialect == "chat"
        body: dict[str, Any] = {
            "model": model,
            "messages": [
                one for message in request.messages for one in _messages(message, capabilities, own)
            ],
            "stream": True,
        }
        if capabilities.stream_options:
            body["stream_options"] = {"include_usage": True}
        tools = [_function(one, capabilities, own) for one in request.tools]
        if request.raw_tools:
            if not own:
                raise UnsupportedParameterError(
                    "tools: the model's server speaks Chat Completions, which has no such tool", field="tools"
                )
            tools += request.raw_tools
        if tools:
            body["tools"] = tools
        _options(body, request.options, capabilities, bool(tools), own)
        return body

    def reader(self) -> Reader:
        return ChatReader()

    def error(self, status: int, body: bytes) -> ProblemError | None:
        return meaning(status, body)


def _options(
    body: dict[str, Any], options: Options, capabilities: Capabilities, tools: bool, own: bool
) -> None:
    if own:
        body.update({name: value for name, value in options.extra.items() if name not in OURS})
        if capabilities.stream_options and isinstance(options.extra.get("stream_options"), dict):
            body["stream_options"] = {**options.extra["stream_options"], "include_usage": True}
    if options.max_tokens is not None:
        body.pop("max_tokens", None)
        body[capabilities.max_tokens_name] = options.max_tokens
    for name in ("temperature", "top_p", "top_k", "seed"):
        value = getattr(options, name)
        if value is not None:
            body[name] = value
    if options.stop:
        body["stop"] = options.stop
    if options.reasoning is not None:
        body["reasoning_effort"] = options.reasoning
    if tools and options.choice is not None:
        body["tool_choice"] = (
            {"type": "function", "function": {"name": options.choice[1:]}}
            if options.choice.startswith("=")
            else options.choice
        )
    if tools and options.parallel_calls is not None:
        body["parallel_tool_calls"] = options.parallel_calls and capabilities.parallel_calls
    elif tools and not capabilities.parallel_calls:
        body["parallel_tool_calls"] = False
    if options.schema is not None:
        body["response_format"] = _format(options.schema, capabilities)


def _format(schema: Schema, capabilities: Capabilities) -> dict[str, Any]:
    if schema.schema is None:
        return {"type": "json_object"}
    document: dict[str, Any] = {"name": schema.name or "answer", "schema": schema.schema}
    if schema.description:
        document["description"] = schema.description
    if schema.strict is not None and capabilities.strict:
        document["strict"] = schema.strict
    return {"type": "json_schema", "json_schema": document}


def _function(function: Function, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"name": function.name}
    if function.description:
        document["description"] = function.description
    if function.parameters:
        document["parameters"] = function.parameters
    if function.strict is not None and capabilities.strict:
        document["strict"] = function.strict
    return {**(function.extra if own else {}), "type": "function", "function": document}


def _messages(message: Message, capabilities: Capabilities, own: bool) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [_assistant(message, own)]
    if message.role == "system":
        return [_plain("system", message.parts, message.extra if own else {}, capabilities, own)]
    found: list[dict[str, Any]] = []
    others: list[Any] = []
    for part in message.parts:
        if isinstance(part, ResultPart):
            result, pictures = _result(part, capabilities)
            found.append(result)
            others += pictures
    others += [part for part in message.parts if not isinstance(part, ResultPart)]
    if others or not found:
        found.append(_plain("user", others, message.extra if own else {}, capabilities, own))
    return found


def _plain(
    role: str, parts: list[Any], extra: dict[str, Any], capabilities: Capabilities, own: bool
) -> dict[str, Any]:
    content = [_content(part, capabilities, own) for part in parts]
    one_text = len(content) == 1 and content[0].keys() == {"type", "text"}
    # A server that knows texts only is content with one; `extra` has what the client called its role.
    return {"role": role, **extra, "content": content[0]["text"] if one_text else content}


def _content(part: Any, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {**(part.extra if own else {}), "type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        if not capabilities.images:
            raise UnsupportedParameterError("messages: this model takes no pictures", field="messages")
        image = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
        if own and "detail" in part.extra:
            image["detail"] = part.extra["detail"]
        return {"type": "image_url", "image_url": image}
    if isinstance(part, RawPart) and part.dialect == "chat":
        return part.raw
    kind = part.raw.get("type", "part") if isinstance(part, RawPart) else type(part).__name__
    raise UnsupportedParameterError(
        f"messages: the model's server speaks Chat Completions, which cannot carry a {kind!r} here",
        field="messages",
    )


def _assistant(message: Message, own: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"role": "assistant", **(message.extra if own else {})}
    texts = [part.text for part in message.parts if isinstance(part, TextPart)]
    calls = [_call(part, own) for part in message.parts if isinstance(part, CallPart)]
    for part in message.parts:
        if isinstance(part, ReasoningPart):
            # DeepSeek wants it back amid calls, OpenRouter its signatures; others would refuse it elsewhere.
            if part.dialect == "chat" and (calls or "reasoning_details" in part.raw):
                document.update(part.raw)
        elif isinstance(part, RawPart) and part.dialect == "chat":
            document.update(part.raw)
        elif not isinstance(part, TextPart | CallPart):
            raise UnsupportedParameterError(
                "messages: the model's server speaks Chat Completions, which cannot carry such a part of an "
                "assistant's message",
                field="messages",
            )
    document["content"] = "".join(texts) if texts else None if calls or document.get("refusal") else ""
    if calls:
        document["tool_calls"] = calls
    return document


def _call(part: CallPart, own: bool) -> dict[str, Any]:
    function = {"name": part.name, "arguments": part.arguments or "{}"}
    return {**(part.extra if own else {}), "id": part.id, "type": "function", "function": function}


def _result(part: ResultPart, capabilities: Capabilities) -> tuple[dict[str, Any], list[Any]]:
    """A result takes text only here: its pictures go along in the user's message that follows."""
    texts: list[str] = []
    pictures: list[Any] = []
    for one in part.content:
        if isinstance(one, TextPart):
            texts.append(one.text)
        elif isinstance(one, ImagePart):
            texts.append(PICTURE_NOTE if capabilities.images else NO_PICTURE_NOTE)
            if capabilities.images:
                pictures += [TextPart(f"The picture of the result of {part.name or part.id}:"), one]
        else:
            raise UnsupportedParameterError(
                "messages: the model's server speaks Chat Completions, whose results of calls are text",
                field="messages",
            )
    text = "\n".join(texts)
    if part.error and not text:
        text = "It failed."
    return {"role": "tool", "tool_call_id": part.id, "content": text}, pictures


CODEC: Codec = ChatCodec()
