"""A request of Chat Completions in the loop's words. Source: `openai.types.chat.completion_create_params`.

Members that the loop has no word for go to an upstream of the same kind as they are; those that would change the
meaning of an answer that we make are refused by name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onehop.agent.model import (
    CallPart,
    Function,
    ImagePart,
    Message,
    ModelRequest,
    Options,
    Part,
    RawPart,
    ReasoningPart,
    ResultPart,
    Schema,
    TextPart,
)
from onehop.errors import InvalidRequestError, UnsupportedParameterError
from onehop.wires.extras import Extras
from onehop.wires.openai import members
from onehop.wires.openai.members import DATA_URL

REFUSED = {
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "audio": "only text is answered",
    "logprobs": "answers of several turns have none",
    "top_logprobs": "answers of several turns have none",
    "moderation": "not known here",
}


class ChatRequest(msgspec.Struct, kw_only=True):
    """What is to be done, and how it is to be told."""

    model: ModelRequest
    extras: Extras | None
    stream: bool
    include_usage: bool


def read(document: Any) -> ChatRequest:
    """A decoded body. Raises InvalidRequestError (of which UnsupportedParameterError is one) naming the member."""
    if not isinstance(document, dict):
        raise InvalidRequestError("the body has to be a JSON object")
    body: dict[str, Any] = {name: value for name, value in document.items() if value is not None}
    for name, why in REFUSED.items():
        if body.get(name) not in (None, False, []):
            raise UnsupportedParameterError(f"{name} is not supported: {why}", field=name)
        body.pop(name, None)
    if body.pop("n", 1) != 1:
        raise UnsupportedParameterError("n: one answer is given for a request", field="n")
    if body.pop("modalities", ["text"]) != ["text"]:
        raise UnsupportedParameterError("modalities: only text is answered", field="modalities")
    model = members.text(body, "model")
    extras = members.extras(body.pop("onehop", None))
    stream = members.flag(body, "stream")
    stream_options = body.pop("stream_options", {})
    if not isinstance(stream_options, dict):
        raise members.wrong("stream_options", "an object")
    given = body.pop("messages", None)
    if not isinstance(given, list) or not given:
        raise InvalidRequestError("messages: a list of at least one message is needed", field="messages")
    messages: list[Message] = []
    for number, one in enumerate(given):
        _message(one, f"messages[{number}]", messages)
    request = ModelRequest(
        model=model,
        messages=messages,
        tools=_tools(body.pop("tools", [])),
        options=_options(body),
        dialect="chat",
    )
    usage = members.optional_flag(stream_options.get("include_usage"), "stream_options.include_usage")
    return ChatRequest(model=request, extras=extras, stream=stream, include_usage=bool(usage))


# --- messages -----------------------------------------------------------------------------------------


def _message(one: Any, where: str, messages: list[Message]) -> None:
    if not isinstance(one, dict):
        raise members.wrong(where, "an object")
    role = one.get("role")
    extra = {"name": one["name"]} if isinstance(one.get("name"), str) else {}
    if role in ("system", "developer"):
        if role == "developer":
            extra["role"] = role
        messages.append(Message("system", _content(one, where), extra))
    elif role == "user":
        messages.append(Message("user", _content(one, where), extra))
    elif role == "assistant":
        messages.append(Message("assistant", _assistant(one, where), extra))
    elif role == "tool":
        name = one.get("tool_call_id")
        if not isinstance(name, str) or not name:
            raise InvalidRequestError(f"{where}.tool_call_id is missing", field=f"{where}.tool_call_id")
        content = [part for part in _content(one, where) if isinstance(part, TextPart | ImagePart | RawPart)]
        result = ResultPart(id=name, content=content)
        last = messages[-1] if messages else None
        # Results of one turn belong together, whoever writes them one by one.
        if last is not None and last.role == "user" and last.parts and isinstance(last.parts[-1], ResultPart):
            last.parts.append(result)
        else:
            messages.append(Message("user", [result]))
    else:
        raise InvalidRequestError(
            f"{where}.role: expected system, developer, user, assistant or tool, got {str(role)[:40]!r}",
            field=f"{where}.role",
        )


def _content(one: dict[str, Any], where: str) -> list[Part]:
    content = one.get("content")
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise InvalidRequestError(
            f"{where}.content: expected a text or a list of parts", field=f"{where}.content"
        )
    return [_part(part, f"{where}.content[{number}]") for number, part in enumerate(content)]


def _part(part: Any, where: str) -> Part:
    if not isinstance(part, dict):
        raise members.wrong(where, "an object")
    kind = part.get("type")
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise members.wrong(f"{where}.{kind}", "a text")
        return TextPart(text, {name: value for name, value in part.items() if name not in ("type", kind)})
    if kind == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str):
            raise members.wrong(f"{where}.image_url.url", "a text")
        extra = {name: value for name, value in image.items() if name != "url"}
        found = DATA_URL.match(url)
        if found is None:
            return ImagePart(url=url, extra=extra)
        return ImagePart(media_type=found[1], data=url[found.end() :], extra=extra)
    if kind in ("input_audio", "file"):
        return RawPart(dialect="chat", raw=part)
    raise InvalidRequestError(f"{where}.type: there is no part {str(kind)[:40]!r}", field=f"{where}.type")


def _assistant(one: dict[str, Any], where: str) -> list[Part]:
    parts: list[Part] = []
    thought = one.get("reasoning_content", one.get("reasoning"))
    if isinstance(thought, str) and thought:
        parts.append(ReasoningPart(text=thought))
    if one.get("content") is not None:
        parts += _content(one, where)
    elif isinstance(one.get("refusal"), str):
        parts.append(TextPart(one["refusal"]))
    calls = one.get("tool_calls") or []
    if not isinstance(calls, list):
        raise members.wrong(f"{where}.tool_calls", "a list")
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict):
            raise UnsupportedParameterError(
                f"{where}.tool_calls[{number}]: only calls of functions are known here",
                field=f"{where}.tool_calls",
            )
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(call.get("id"), str) or not isinstance(name, str) or not isinstance(arguments, str):
            raise InvalidRequestError(
                f"{where}.tool_calls[{number}]: id, function.name and function.arguments have to be texts",
                field=f"{where}.tool_calls",
            )
        parts.append(CallPart(id=call["id"], name=name, arguments=arguments))
    return parts


# --- functions and options ----------------------------------------------------------------------------


def _tools(tools: Any) -> list[Function]:
    if not isinstance(tools, list):
        raise members.wrong("tools", "a list")
    found: list[Function] = []
    for number, tool in enumerate(tools):
        where = f"tools[{number}]"
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(function, dict):
            raise UnsupportedParameterError(f"{where}: only functions are known here", field=where)
        parameters = function.get("parameters") or {}
        if not isinstance(function.get("name"), str) or not isinstance(parameters, dict):
            raise InvalidRequestError(f"{where}.function: name and parameters are needed", field=where)
        found.append(
            Function(
                name=function["name"],
                description=str(function.get("description") or ""),
                parameters=parameters,
                strict=members.optional_flag(function.get("strict"), f"{where}.function.strict"),
            )
        )
    return found


def _options(body: dict[str, Any]) -> Options:
    """Takes what it knows out of `body`; the rest is `extra`."""
    most = body.pop("max_completion_tokens", None)
    limit = body.pop("max_tokens", None)
    stop = body.pop("stop", [])
    stops: Any = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise members.wrong("stop", "a text or a list of texts")
    options = Options(
        max_tokens=members.number(most if most is not None else limit, "max_completion_tokens", whole=True),
        temperature=members.number(body.pop("temperature", None), "temperature"),
        top_p=members.number(body.pop("top_p", None), "top_p"),
        stop=stops,
        seed=members.number(body.pop("seed", None), "seed", whole=True),
        reasoning=body.pop("reasoning_effort", None),
        choice=_choice(body.pop("tool_choice", None)),
        parallel_calls=members.optional_flag(body.pop("parallel_tool_calls", None), "parallel_tool_calls"),
        schema=_schema(body.pop("response_format", None)),
    )
    if options.reasoning is not None and not isinstance(options.reasoning, str):
        raise members.wrong("reasoning_effort", "a text")
    options.extra = body
    return options


def _choice(choice: Any) -> str | None:
    if choice is None or choice in ("auto", "none", "required"):
        return choice if isinstance(choice, str) else None
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = choice.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return f"={function['name']}"
    raise UnsupportedParameterError(
        "tool_choice: expected none, auto, required or one function", field="tool_choice"
    )


def _schema(given: Any) -> Schema | None:
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return Schema()
    about = given.get("json_schema") if kind == "json_schema" else None
    if isinstance(about, dict) and isinstance(about.get("schema", {}), dict):
        return Schema(
            name=str(about.get("name") or ""),
            description=str(about.get("description") or ""),
            schema=about.get("schema", {}),
            strict=members.optional_flag(about.get("strict"), "response_format.json_schema.strict"),
        )
    raise InvalidRequestError(
        "response_format: expected text, json_object, or json_schema with its schema", field="response_format"
    )
