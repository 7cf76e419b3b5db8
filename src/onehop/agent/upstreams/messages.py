"""Anthropic's Messages, for requests to an upstream. Source: https://docs.claude.com/en/api/messages.

It must never leave out what changes the meaning of a request: what this dialect cannot say is refused by name.
"""

from __future__ import annotations

import json
import re
from typing import Any

from onehop.agent.model import (
    CallPart,
    Dialect,
    Function,
    ImagePart,
    ModelRequest,
    Options,
    Part,
    ReasoningPart,
    ResultPart,
    TextPart,
)
from onehop.agent.upstreams.chat_errors import of_document
from onehop.agent.upstreams.codec import Capabilities, Codec, Reader
from onehop.agent.upstreams.messages_reader import STATUSES, MessagesReader
from onehop.errors import ProblemError, UnsupportedParameterError

VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 8192
"""The dialect wants a number, and most models allow this much."""
OURS = ("model", "messages", "stream", "system", "tools")
"""Members that `extra` cannot replace."""
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_ID = re.compile(r"[^a-zA-Z0-9_-]")


class MessagesCodec:
    """See `Codec`."""

    dialect: Dialect = "messages"

    def path(self, model: str) -> str:
        return "/v1/messages"

    def headers(self, key: str) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "anthropic-version": VERSION,
        }
        if key:
            headers["x-api-key"] = key
        return headers

    def body(self, request: ModelRequest, model: str, capabilities: Capabilities) -> dict[str, Any]:
        own = request.dialect == "messages"
        system: list[dict[str, Any]] = []
        messages: list[dict[str, Any]] = []
        for message in request.messages:
            if message.role == "system":
                system += _blocks(message.parts, capabilities, own)
                continue
            blocks = _blocks(message.parts, capabilities, own)
            if not blocks:
                continue
            if messages and messages[-1]["role"] == message.role:
                messages[-1]["content"] += blocks
            else:
                messages.append({"role": message.role, "content": blocks})
        for one in messages:
            # Results of calls have to come first in their message.
            one["content"].sort(key=lambda block: block["type"] != "tool_result")
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
        if system:
            body["system"] = system
        tools = [_function(one, capabilities, own) for one in request.tools]
        if request.raw_tools:
            if not own:
                raise UnsupportedParameterError(
                    "tools: the model's server speaks Messages, which has no such tool", field="tools"
                )
            tools += request.raw_tools
        if tools:
            body["tools"] = tools
        _options(body, request.options, capabilities, bool(tools), own)
        return body

    def reader(self) -> Reader:
        return MessagesReader()

    def error(self, status: int, body: bytes) -> ProblemError | None:
        try:
            document = json.loads(body)
            kind = document["error"]["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return of_document(STATUSES.get(kind, status), document)


def _options(
    body: dict[str, Any], options: Options, capabilities: Capabilities, tools: bool, own: bool
) -> None:
    if own:
        body.update({name: value for name, value in options.extra.items() if name not in OURS})
    body["max_tokens"] = options.max_tokens or DEFAULT_MAX_TOKENS
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(options, name)
        if value is not None:
            body[name] = value
    if options.stop:
        body["stop_sequences"] = options.stop
    if options.reasoning == "none":
        body["thinking"] = {"type": "disabled"}
    elif options.reasoning is not None:
        effort = EFFORTS.get(options.reasoning)
        if effort is None:
            raise UnsupportedParameterError(
                f"reasoning: there is no effort {options.reasoning[:40]!r} here", field="reasoning_effort"
            )
        body["output_config"] = {**(body.get("output_config") or {}), "effort": effort}
    if tools:
        choice = _choice(options.choice)
        single = options.parallel_calls is False or not capabilities.parallel_calls
        if single and choice.get("type") != "none":
            choice["disable_parallel_tool_use"] = True
        if options.choice is not None or single:
            body["tool_choice"] = choice
    schema = options.schema
    if schema is not None:
        if schema.schema is None:
            raise UnsupportedParameterError(
                "response_format: the model's server speaks Messages, which wants a schema",
                field="response_format",
            )
        form = {"type": "json_schema", "schema": schema.schema}
        body["output_config"] = {**(body.get("output_config") or {}), "format": form}


def _choice(choice: str | None) -> dict[str, Any]:
    if choice is not None and choice.startswith("="):
        return {"type": "tool", "name": choice[1:]}
    return {"type": {"required": "any", "none": "none"}.get(choice or "", "auto")}


def _function(function: Function, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        **(function.extra if own else {}),
        "name": function.name,
        "input_schema": {"type": "object", **function.parameters},
    }
    if function.description:
        document["description"] = function.description
    if function.strict is not None and capabilities.strict:
        document["strict"] = function.strict
    return document


def _blocks(parts: list[Part], capabilities: Capabilities, own: bool) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, TextPart):
            if part.text.strip():  # empty ones are refused
                blocks.append({**(part.extra if own else {}), "type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            blocks.append(_image(part, capabilities, own))
        elif isinstance(part, CallPart):
            call = {"type": "tool_use", "id": _name(part.id), "name": part.name, "input": _input(part)}
            blocks.append({**(part.extra if own else {}), **call})
        elif isinstance(part, ResultPart):
            blocks.append(_result(part, capabilities, own))
        elif isinstance(part, ReasoningPart):
            if part.dialect == "messages" and part.raw:
                blocks.append(part.raw)
        elif part.dialect == "messages":
            blocks.append(part.raw)
        else:
            raise UnsupportedParameterError(
                f"messages: the model's server speaks Messages, which cannot carry a {part.raw.get('type')!r}",
                field="messages",
            )
    return blocks


def _image(part: ImagePart, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    if not capabilities.images:
        raise UnsupportedParameterError("messages: this model takes no pictures", field="messages")
    source: dict[str, Any] = {"type": "url", "url": part.url}
    if not part.url:
        source = {"type": "base64", "media_type": part.media_type or "image/png", "data": part.data}
    extra = {name: value for name, value in part.extra.items() if name == "cache_control"} if own else {}
    return {**extra, "type": "image", "source": source}


def _result(part: ResultPart, capabilities: Capabilities, own: bool) -> dict[str, Any]:
    shown: list[Part] = []
    for one in part.content:
        if isinstance(one, ImagePart) and not capabilities.images:
            shown.append(TextPart("(A picture, which this model cannot see.)"))
        else:
            shown.append(one)
    content = _blocks(shown, capabilities, own)
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _name(part.id), "content": content}
    if part.error:
        block["is_error"] = True
        if not content:
            block["content"] = "It failed."
    return {**(part.extra if own else {}), **block}


def _input(part: CallPart) -> dict[str, Any]:
    try:
        found = json.loads(part.arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        found = None
    # What was no JSON object was answered to as such; here only an object can be said.
    return found if isinstance(found, dict) else {"arguments": part.arguments}


def _name(name: str) -> str:
    return _ID.sub("_", name) or "call"


CODEC: Codec = MessagesCodec()
