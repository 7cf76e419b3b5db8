"""A request of Responses in the loop's words. Source: `openai.types.responses.response_create_params`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from onehop.agent.containers import private
from onehop.agent.events import ContainerChoice
from onehop.agent.model import (
    Function,
    Message,
    ModelRequest,
    Options,
    Schema,
    TextPart,
)
from onehop.errors import InvalidRequestError, UnsupportedParameterError
from onehop.wires.extras import Extras
from onehop.wires.openai import members, responses_items
from onehop.wires.openai.responses_items import File

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
    echo["tools"] = _echoed(echo["tools"])
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
        responses_items.read(item, f"input[{number}]", messages, files)
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
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Members of the request that a response repeats, with what they are when the request does not say."""


def _echoed(tools: Any) -> Any:
    """A function tool in a response has all its members."""
    if not isinstance(tools, list):
        return tools
    return [
        {"description": None, "parameters": None, "strict": None, **tool}
        if isinstance(tool, dict) and tool.get("type") == "function"
        else tool
        for tool in tools
    ]


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
