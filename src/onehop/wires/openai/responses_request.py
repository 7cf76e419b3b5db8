"""A request of Responses in the loop's words. Source: `openai.types.responses.response_create_params`."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from onehop.agent.containers import private
from onehop.agent.events import ContainerChoice
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
from onehop.agent.prompts import NAMES
from onehop.errors import InvalidRequestError, UnsupportedParameterError
from onehop.wires.extras import Extras
from onehop.wires.openai import members
from onehop.wires.openai.members import DATA_URL

REFUSED = {
    "background": "an answer comes with its request",
    "conversation": "use previous_response_id",
    "prompt": "stored prompts are not known here",
    "top_logprobs": "answers of several turns have none",
    "context_management": "not known here",
}
OUTPUTS = "code_interpreter_call.outputs"
INCLUDES = (OUTPUTS, "reasoning.encrypted_content")
MEMORY = re.compile(r"([1-9][0-9]{0,2})g")
IN_PLACE = "[The file {name} is in the working folder of the Python tool.]"


class File(msgspec.Struct, kw_only=True):
    """A file in the input; it belongs in the container when there is one."""

    name: str
    upload: str = ""
    data: str = ""
    part: list[Part]
    """The message's parts, in which it stands."""
    at: int


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """What is to be done, and how it is to be told.

    Args:
        input: its items as they came, for whoever asks for them again.
        echo: members of the request that the response repeats.
        code: the request has the tool code_interpreter.
        servers: labels of `mcp` tools, each with the names that are allowed.
    """

    model: ModelRequest
    extras: Extras | None
    stream: bool
    store: bool
    previous: str
    outputs: bool
    max_tool_calls: int | None
    code: bool
    container: ContainerChoice
    servers: list[str]
    files: list[File]
    input: list[dict[str, Any]]
    echo: dict[str, Any]


def read(document: Any) -> ResponsesRequest:
    """A decoded body. Raises InvalidRequestError (of which UnsupportedParameterError is one) naming the member."""
    if not isinstance(document, dict):
        raise InvalidRequestError("the body has to be a JSON object")
    body: dict[str, Any] = {name: value for name, value in document.items() if value is not None}
    for name, why in REFUSED.items():
        if body.pop(name, None):
            raise UnsupportedParameterError(f"{name} is not supported: {why}", field=name)
    echo = {name: body.get(name, default) for name, default in ECHO.items()}
    model = members.text(body, "model")
    extras = members.extras(body.pop("onehop", None))
    stream, store = members.flag(body, "stream"), body.pop("store", True)
    if not isinstance(store, bool):
        raise members.wrong("store", "true or false")
    body.pop("stream_options", None)
    body.pop("metadata", None)
    previous = body.pop("previous_response_id", "")
    if not isinstance(previous, str):
        raise members.wrong("previous_response_id", "a text")
    include = body.pop("include", [])
    if not isinstance(include, list):
        raise members.wrong("include", "a list")
    for one in include:
        if one not in INCLUDES:
            raise UnsupportedParameterError(f"include: {str(one)[:80]!r} is not known here", field="include")
    code, container, servers, functions, raw_tools = _tools(body.pop("tools", []))
    messages: list[Message] = []
    if "instructions" in body:
        messages.append(Message("system", [TextPart(members.text(body, "instructions"))]))
    given = body.pop("input", [])
    items = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise members.wrong("input", "a text or a list of items")
    files: list[File] = []
    for number, item in enumerate(items):
        _item(item, f"input[{number}]", messages, files)
    most = members.number(body.pop("max_tool_calls", None), "max_tool_calls", whole=True)
    if most is not None and most < 1:
        raise members.wrong("max_tool_calls", "a number of 1 or more")
    options = _options(body)
    if "reasoning.encrypted_content" in include:
        options.extra["include"] = ["reasoning.encrypted_content"]
    return ResponsesRequest(
        model=ModelRequest(
            model=model,
            messages=messages,
            tools=functions,
            raw_tools=raw_tools,
            options=options,
            dialect="responses",
        ),
        extras=extras,
        stream=stream,
        store=store,
        previous=previous,
        outputs=OUTPUTS in include,
        max_tool_calls=most,
        code=code,
        container=container,
        servers=servers,
        files=files,
        input=items,
        echo=echo,
    )


ECHO: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Members of the request that a response repeats, with what they are when the request does not say."""


# --- tools --------------------------------------------------------------------------------------------


def _tools(
    tools: Any,
) -> tuple[bool, ContainerChoice, list[str], list[Function], list[dict[str, Any]]]:
    if not isinstance(tools, list):
        raise members.wrong("tools", "a list")
    code, container = False, ContainerChoice()
    servers: list[str] = []
    functions: list[Function] = []
    raw: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        where = f"tools[{number}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind == "function":
            functions.append(_function(tool, where))
        elif kind == "code_interpreter":
            code, container = True, _container(tool.get("container"), f"{where}.container")
        elif kind == "mcp":
            servers += _server(tool, where)
        elif isinstance(tool, dict) and isinstance(kind, str):
            raw.append(tool)
        else:
            raise InvalidRequestError(f"{where}: a tool is an object with a type", field=where)
    return code, container, servers, functions, raw


def _function(tool: dict[str, Any], where: str) -> Function:
    parameters = tool.get("parameters") or {}
    if not isinstance(tool.get("name"), str) or not isinstance(parameters, dict):
        raise InvalidRequestError(f"{where}: name and parameters are needed", field=where)
    return Function(
        name=tool["name"],
        description=str(tool.get("description") or ""),
        parameters=parameters,
        strict=members.optional_flag(tool.get("strict"), f"{where}.strict"),
    )


def _container(given: Any, where: str) -> ContainerChoice:
    if isinstance(given, str):
        return ContainerChoice(session=private(given))
    if given is None:
        given = {"type": "auto"}
    if not isinstance(given, dict) or given.get("type", "auto") != "auto":
        raise InvalidRequestError(f"{where}: expected a container's id, or {{type: auto}}", field=where)
    choice = ContainerChoice()
    limit = given.get("memory_limit")
    if limit is not None:
        found = MEMORY.fullmatch(str(limit))
        if found is None:
            raise InvalidRequestError(
                f"{where}.memory_limit: expected gigabytes as 4g, got {str(limit)[:20]!r}",
                field=f"{where}.memory_limit",
            )
        choice.memory_mb = int(found[1]) * 1024
    files = given.get("file_ids") or []
    if not isinstance(files, list) or not all(isinstance(one, str) for one in files):
        raise members.wrong(f"{where}.file_ids", "a list of ids")
    choice.files = files
    policy = given.get("network_policy")
    if isinstance(policy, dict) and policy.get("type") not in (None, "disabled"):
        raise UnsupportedParameterError(
            f"{where}.network_policy: containers have no network", field=f"{where}.network_policy"
        )
    return choice


def _server(tool: dict[str, Any], where: str) -> list[str]:
    """Names of registered tools: a source of this server by its label."""
    label = tool.get("server_label")
    if not isinstance(label, str) or not label.isidentifier():
        raise InvalidRequestError(
            f"{where}.server_label: a source's name is needed", field=f"{where}.server_label"
        )
    for name in ("server_url", "connector_id", "authorization", "headers"):
        if tool.get(name):
            raise UnsupportedParameterError(
                f"{where}.{name}: MCP servers are registered by who runs this server; name one by server_label",
                field=f"{where}.{name}",
            )
    allowed = tool.get("allowed_tools")
    if isinstance(allowed, dict):
        allowed = allowed.get("tool_names")
    if allowed is None:
        return [f"{label}.*"]
    if not isinstance(allowed, list) or not all(isinstance(one, str) for one in allowed):
        raise members.wrong(f"{where}.allowed_tools", "a list of names")
    return [one if one.startswith(f"{label}.") else f"{label}.{one}" for one in allowed]


# --- input --------------------------------------------------------------------------------------------


def _item(item: Any, where: str, messages: list[Message], files: list[File]) -> None:
    if not isinstance(item, dict):
        raise members.wrong(where, "an object")
    kind = item.get("type", "message")
    if kind == "message":
        _message(item, where, messages, files)
    elif kind == "function_call":
        call = CallPart(
            id=_member(item, "call_id", where),
            name=_member(item, "name", where),
            arguments=_member(item, "arguments", where),
        )
        _last(messages, "assistant").parts.append(call)
    elif kind == "function_call_output":
        _last(messages, "user").parts.append(_output(item, where, files))
    elif kind == "code_interpreter_call":
        _code(item, where, messages)
    elif kind == "reasoning":
        pieces = [*(item.get("summary") or []), *(item.get("content") or [])]
        text = "\n\n".join(str(one.get("text") or "") for one in pieces if isinstance(one, dict))
        _last(messages, "assistant").parts.append(ReasoningPart(text=text, dialect="responses", raw=item))
    elif kind == "item_reference":
        raise UnsupportedParameterError(
            f"{where}: item references are not known here; use previous_response_id", field=where
        )
    else:
        _last(messages, "assistant").parts.append(RawPart(dialect="responses", raw=item))


def _message(item: dict[str, Any], where: str, messages: list[Message], files: list[File]) -> None:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequestError(
            f"{where}.role: expected user, assistant, system or developer, got {str(role)[:40]!r}",
            field=f"{where}.role",
        )
    parts = _content(item.get("content"), f"{where}.content", files)
    if role == "assistant":
        _last(messages, "assistant").parts.extend(parts)
    elif role == "user":
        message = Message("user", parts)
        messages.append(message)
    else:
        messages.append(Message("system", parts, {"role": role} if role == "developer" else {}))


def _content(content: Any, where: str, files: list[File]) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise members.wrong(where, "a text or a list of parts")
    parts: list[Part] = []
    for number, part in enumerate(content):
        _part(part, f"{where}[{number}]", parts, files)
    return parts


def _part(part: Any, where: str, parts: list[Part], files: list[File]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict):
        raise members.wrong(where, "an object")
    if kind in ("input_text", "output_text", "text"):
        parts.append(TextPart(_member(part, "text", where)))
    elif kind == "refusal":
        parts.append(TextPart(_member(part, "refusal", where), {"refusal": True}))
    elif kind == "input_image":
        url = part.get("image_url")
        extra = {"detail": part["detail"]} if isinstance(part.get("detail"), str) else {}
        if isinstance(part.get("file_id"), str):
            files.append(File(name="", upload=part["file_id"], part=parts, at=len(parts)))
            parts.append(ImagePart(extra=extra))
            return
        if not isinstance(url, str):
            raise members.wrong(f"{where}.image_url", "a text")
        found = DATA_URL.match(url)
        if found is None:
            parts.append(ImagePart(url=url, extra=extra))
        else:
            parts.append(ImagePart(media_type=found[1], data=url[found.end() :], extra=extra))
    elif kind == "input_file":
        if part.get("file_url"):
            raise UnsupportedParameterError(
                f"{where}.file_url: files are not fetched from elsewhere; send file_data or a file_id",
                field=f"{where}.file_url",
            )
        data = part.get("file_data")
        file = File(
            name=str(part.get("filename") or ""),
            upload=str(part.get("file_id") or ""),
            data=str(data or "").partition(",")[2]
            if str(data or "").startswith("data:")
            else str(data or ""),
            part=parts,
            at=len(parts),
        )
        if not file.upload and not file.data:
            raise InvalidRequestError(f"{where}: file_id or file_data is needed", field=where)
        files.append(file)
        parts.append(RawPart(dialect="responses", raw=part))
    else:
        raise InvalidRequestError(f"{where}.type: there is no part {str(kind)[:40]!r}", field=f"{where}.type")


def _output(item: dict[str, Any], where: str, files: list[File]) -> ResultPart:
    parts = _content(item.get("output"), f"{where}.output", files)
    content = [one for one in parts if isinstance(one, TextPart | ImagePart | RawPart)]
    return ResultPart(id=_member(item, "call_id", where), content=content)


def _code(item: dict[str, Any], where: str, messages: list[Message]) -> None:
    """Our own work, sent back by a client that stores its conversations itself."""
    name, code = _member(item, "id", where), item.get("code")
    arguments = json.dumps({"code": code if isinstance(code, str) else ""})
    _last(messages, "assistant").parts.append(CallPart(id=name, name=NAMES["python"], arguments=arguments))
    logs = [
        str(one.get("logs") or "")
        for one in item.get("outputs") or []
        if isinstance(one, dict) and one.get("type") == "logs"
    ]
    content: list[TextPart | ImagePart | RawPart] = [TextPart("\n".join(logs) or "[output not sent back]")]
    _last(messages, "user").parts.append(ResultPart(id=name, name=NAMES["python"], content=content))


def _last(messages: list[Message], role: str) -> Message:
    """The last message if it is of that role and fits, else a new one."""
    last = messages[-1] if messages else None
    if last is not None and last.role == role:
        results = any(isinstance(part, ResultPart) for part in last.parts)
        if role == "assistant" or results:
            return last
    new = Message("assistant" if role == "assistant" else "user", [])
    messages.append(new)
    return new


def _member(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{where}.{name}: a text is needed", field=f"{where}.{name}")
    return value


# --- options ------------------------------------------------------------------------------------------


def _options(body: dict[str, Any]) -> Options:
    """Takes what it knows out of `body`; the rest is `extra`."""
    text = body.pop("text", {})
    if not isinstance(text, dict):
        raise members.wrong("text", "an object")
    reasoning = body.pop("reasoning", {})
    if not isinstance(reasoning, dict):
        raise members.wrong("reasoning", "an object")
    options = Options(
        max_tokens=members.number(body.pop("max_output_tokens", None), "max_output_tokens", whole=True),
        temperature=members.number(body.pop("temperature", None), "temperature"),
        top_p=members.number(body.pop("top_p", None), "top_p"),
        reasoning=reasoning.get("effort"),
        choice=_choice(body.pop("tool_choice", None)),
        parallel_calls=body.pop("parallel_tool_calls", None),
        schema=_schema(text.get("format")),
    )
    if options.reasoning is not None and not isinstance(options.reasoning, str):
        raise members.wrong("reasoning.effort", "a text")
    if options.parallel_calls is not None and not isinstance(options.parallel_calls, bool):
        raise members.wrong("parallel_tool_calls", "true or false")
    options.extra = body
    if more := {name: value for name, value in text.items() if name != "format"}:
        options.extra["text"] = more
    if more := {name: value for name, value in reasoning.items() if name != "effort" and value is not None}:
        options.extra["reasoning"] = more
    return options


def _choice(choice: Any) -> str | None:
    if choice is None:
        return None
    if choice in ("auto", "none", "required"):
        return str(choice)
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return f"={choice['name']}"
    if isinstance(choice, dict) and choice.get("type") == "code_interpreter":
        return "=python"
    raise UnsupportedParameterError(
        "tool_choice: expected none, auto, required, a function, or code_interpreter", field="tool_choice"
    )


def _schema(form: Any) -> Schema | None:
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return Schema()
    if kind == "json_schema" and isinstance(form.get("schema"), dict):
        return Schema(
            name=str(form.get("name") or ""),
            description=str(form.get("description") or ""),
            schema=form["schema"],
            strict=members.optional_flag(form.get("strict"), "text.format.strict"),
        )
    raise InvalidRequestError(
        "text.format: expected text, json_object, or json_schema with its schema", field="text.format"
    )
