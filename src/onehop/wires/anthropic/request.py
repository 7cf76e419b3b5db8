"""A request of Messages in the loop's words. Source: `anthropic.types.beta.message_create_params`.

Members and blocks that the loop has no word for go to an upstream of the same kind as they are; those that we would
have to carry out ourselves and cannot are refused by name.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from onehop.agent.containers import private
from onehop.agent.events import ContainerChoice, Kind
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

VERSIONS: dict[str, list[Kind]] = {
    "code_execution_20250522": ["python"],
    "code_execution_20250825": ["python", "bash", "editor"],
    "code_execution_20260120": ["python", "bash", "editor"],
    "code_execution_20260521": ["python", "bash", "editor"],
}
"""Of the code execution tool, with what each has besides Python."""
SERVER_TOOLS: dict[str, Kind] = {
    "code_execution": "python",
    "bash_code_execution": "bash",
    "text_editor_code_execution": "editor",
}
"""Names of our work's blocks."""
USE, OURS = "srvtoolu_", "code_"
"""In front of a call's name: for clients, and in the loop."""
IN_PLACE = "[The file {name} is in the working folder of the code execution tool.]"
REFUSED = {"mcp_servers": "MCP servers are registered by who runs this server; see `onehop.tools`"}


class Upload(msgspec.Struct):
    """A container_upload block: its file, and where the note about it belongs."""

    file: str
    parts: list[Part]
    at: int


class MessagesRequest(msgspec.Struct, kw_only=True):
    """What is to be done, and how it is to be told.

    Args:
        version: of the code execution tool, empty without one.
        callable, callable_only: functions that code may call, and those of them that only code may call.
    """

    model: ModelRequest
    extras: Extras | None
    stream: bool
    version: str
    container: ContainerChoice
    uploads: list[Upload]
    callable: list[str]
    callable_only: list[str]
    hosted: dict[str, Any]


def read(document: Any) -> MessagesRequest:
    """A decoded body. Raises InvalidRequestError (of which UnsupportedParameterError is one) naming the member."""
    if not isinstance(document, dict):
        raise InvalidRequestError("the body has to be a JSON object")
    body: dict[str, Any] = {name: value for name, value in document.items() if value is not None}
    for name, why in REFUSED.items():
        if body.pop(name, None):
            raise UnsupportedParameterError(f"{name}: not supported: {why}", field=name)
    model = body.pop("model", None)
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("model: Field required", field="model")
    if not isinstance(body.get("max_tokens"), int) or isinstance(body["max_tokens"], bool):
        raise InvalidRequestError("max_tokens: a whole number is needed", field="max_tokens")
    stream = body.pop("stream", False)
    if not isinstance(stream, bool):
        raise InvalidRequestError("stream: expected true or false", field="stream")
    given = body.pop("messages", None)
    if not isinstance(given, list) or not given:
        raise InvalidRequestError("messages: at least one message is needed", field="messages")
    messages: list[Message] = []
    uploads: list[Upload] = []
    if "system" in body:
        messages.append(Message("system", _parts(body.pop("system"), "system", uploads)))
    for number, one in enumerate(given):
        _message(one, f"messages.{number}", messages, uploads)
    extras = body.pop("onehop", None)
    tools = _Tools(body.pop("tools", []))
    container = _container(body.pop("container", None))
    return MessagesRequest(
        model=ModelRequest(
            model=model,
            messages=messages,
            tools=tools.functions,
            raw_tools=tools.raw,
            options=_options(body),
            dialect="messages",
        ),
        extras=None if extras is None else _extras(extras),
        stream=stream,
        version=tools.version,
        container=container,
        uploads=uploads,
        callable=tools.callable,
        callable_only=tools.callable_only,
        hosted=tools.hosted,
    )


def _extras(given: Any) -> Extras:
    try:
        return msgspec.convert(given, Extras)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"onehop: {error}", field="onehop") from None


def _container(given: Any) -> ContainerChoice:
    if isinstance(given, dict):
        if given.get("skills"):
            raise UnsupportedParameterError(
                "container.skills: containers have no skills here", field="container"
            )
        given = given.get("id")
    if given is None:
        return ContainerChoice()
    if not isinstance(given, str):
        raise InvalidRequestError("container: expected a container's id", field="container")
    return ContainerChoice(session=private(given))


# --- tools --------------------------------------------------------------------------------------------


class _Tools:
    def __init__(self, tools: Any) -> None:
        self.version = ""
        self.functions: list[Function] = []
        self.raw: list[dict[str, Any]] = []
        self.callable: list[str] = []
        self.callable_only: list[str] = []
        self.hosted: dict[str, Any] = {}
        if not isinstance(tools, list):
            raise InvalidRequestError("tools: expected a list", field="tools")
        for number, tool in enumerate(tools):
            if not isinstance(tool, dict):
                raise InvalidRequestError(f"tools.{number}: expected an object", field=f"tools.{number}")
            self._take(tool, f"tools.{number}")
        if self.callable and not self.version:
            raise InvalidRequestError(
                "tools: allowed_callers names code execution, and there is no code execution tool",
                field="tools",
            )

    def _take(self, tool: dict[str, Any], where: str) -> None:
        kind = tool.get("type") or "custom"
        if kind in VERSIONS:
            self.version, self.hosted = kind, tool
        elif isinstance(kind, str) and kind.startswith("code_execution_"):
            raise UnsupportedParameterError(
                f"{where}.type: there is no {kind[:60]!r}; there are {', '.join(VERSIONS)}",
                field=f"{where}.type",
            )
        elif kind == "custom":
            self._function(tool, where)
        else:
            self.raw.append(tool)

    def _function(self, tool: dict[str, Any], where: str) -> None:
        name, schema = tool.get("name"), tool.get("input_schema")
        if not isinstance(name, str) or not isinstance(schema, dict):
            raise InvalidRequestError(f"{where}: name and input_schema are needed", field=where)
        callers = tool.get("allowed_callers") or ["direct"]
        if not isinstance(callers, list):
            raise InvalidRequestError(
                f"{where}.allowed_callers: expected a list", field=f"{where}.allowed_callers"
            )
        if any(one != "direct" for one in callers):
            self.callable.append(name)
            if "direct" not in callers:
                self.callable_only.append(name)
        known = ("type", "name", "description", "input_schema", "strict", "allowed_callers")
        extra = {key: value for key, value in tool.items() if key not in known}
        description = str(tool.get("description") or "")
        self.functions.append(
            Function(
                name=name, description=description, parameters=schema, strict=tool.get("strict"), extra=extra
            )
        )


# --- messages -----------------------------------------------------------------------------------------


def _message(one: Any, where: str, messages: list[Message], uploads: list[Upload]) -> None:
    role = one.get("role") if isinstance(one, dict) else None
    if role not in ("user", "assistant"):
        raise InvalidRequestError(f"{where}.role: expected user or assistant", field=f"{where}.role")
    content = one.get("content")
    if role == "user":
        messages.append(Message("user", _parts(content, f"{where}.content", uploads)))
        return
    turn: list[Part] = []
    for part in _parts(content, f"{where}.content", uploads):
        if isinstance(part, ResultPart):
            # Results of our work stand among the assistant's blocks; for a model they are the other side's.
            if turn:
                messages.append(Message("assistant", turn))
                turn = []
            last = messages[-1] if messages else None
            if last is not None and last.role == "user" and _only_results(last):
                last.parts.append(part)
            else:
                messages.append(Message("user", [part]))
        else:
            turn.append(part)
    if turn:
        messages.append(Message("assistant", turn))


def _only_results(message: Message) -> bool:
    return all(isinstance(part, ResultPart) for part in message.parts)


def _parts(content: Any, where: str, uploads: list[Upload]) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise InvalidRequestError(f"{where}: expected a text or a list of blocks", field=where)
    parts: list[Part] = []
    for number, block in enumerate(content):
        at = f"{where}.{number}"
        if not isinstance(block, dict):
            raise InvalidRequestError(f"{at}: expected an object", field=at)
        if block.get("type") == "container_upload":
            uploads.append(Upload(_text(block, "file_id", at), parts, len(parts)))
            parts.append(TextPart(""))
        else:
            parts.append(_part(block, at, uploads))
    return parts


def _part(block: dict[str, Any], where: str, uploads: list[Upload]) -> Part:
    kind = block.get("type")
    if kind == "text":
        return TextPart(_text(block, "text", where), _extra(block, "text"))
    if kind == "image":
        return _image(block, where)
    if kind == "tool_use":
        arguments = json.dumps(block.get("input") or {})
        extra = {
            name: value for name, value in _extra(block, "id", "name", "input").items() if name != "caller"
        }
        return CallPart(
            id=_text(block, "id", where), name=_text(block, "name", where), arguments=arguments, extra=extra
        )
    if kind == "tool_result":
        content = block.get("content")
        shown = [] if content is None else _parts(content, f"{where}.content", uploads)
        return ResultPart(
            id=_text(block, "tool_use_id", where),
            content=[one for one in shown if isinstance(one, TextPart | ImagePart | RawPart)],
            error=bool(block.get("is_error")),
            extra=_extra(block, "tool_use_id", "content", "is_error"),
        )
    if kind in ("thinking", "redacted_thinking"):
        return ReasoningPart(text=str(block.get("thinking") or ""), dialect="messages", raw=block)
    if kind == "server_tool_use" and block.get("name") in SERVER_TOOLS:
        name = NAMES[SERVER_TOOLS[str(block["name"])]]
        return CallPart(
            id=_ours(_text(block, "id", where)), name=name, arguments=json.dumps(block.get("input") or {})
        )
    if isinstance(kind, str) and kind.removesuffix("_tool_result") in SERVER_TOOLS:
        return _work(block, kind, where)
    if not isinstance(kind, str):
        raise InvalidRequestError(f"{where}.type: Field required", field=f"{where}.type")
    return RawPart(dialect="messages", raw=block)


def _image(block: dict[str, Any], where: str) -> Part:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(source, dict) and kind == "base64":
        return ImagePart(
            media_type=_text(source, "media_type", f"{where}.source"),
            data=_text(source, "data", f"{where}.source"),
            extra=_extra(block, "source"),
        )
    if isinstance(source, dict) and kind == "url":
        return ImagePart(url=_text(source, "url", f"{where}.source"), extra=_extra(block, "source"))
    raise UnsupportedParameterError(f"{where}.source: expected base64 or url", field=f"{where}.source")


def _work(block: dict[str, Any], kind: str, where: str) -> ResultPart:
    """A result of ours that a client sends back: what the model was told of it, as far as the block has it."""
    content = block.get("content")
    about = content if isinstance(content, dict) else {}
    pieces = [
        str(about[name]) for name in ("stdout", "stderr", "content") if isinstance(about.get(name), str)
    ]
    failed = about.get("return_code") not in (None, 0) or str(about.get("type", "")).endswith("_error")
    if about.get("error_code"):
        pieces.append(str(about["error_code"]))
    lines = about.get("lines")
    if isinstance(lines, list):
        pieces.append("\n".join(map(str, lines)))
    name = NAMES[SERVER_TOOLS[kind.removesuffix("_tool_result")]]
    text = "\n".join(piece for piece in pieces if piece) or "[no output]"
    return ResultPart(
        id=_ours(_text(block, "tool_use_id", where)), name=name, content=[TextPart(text)], error=failed
    )


def _ours(name: str) -> str:
    return OURS + name.removeprefix(USE) if name.startswith(USE) else name


def _extra(block: dict[str, Any], *known: str) -> dict[str, Any]:
    return {
        name: value for name, value in block.items() if name not in ("type", *known) and value is not None
    }


def _text(block: dict[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{where}.{name}: a text is needed", field=f"{where}.{name}")
    return value


# --- options ------------------------------------------------------------------------------------------


def _options(body: dict[str, Any]) -> Options:
    """Takes what it knows out of `body`; the rest is `extra`."""
    choice = body.pop("tool_choice", None) or {}
    output = body.pop("output_config", None) or {}
    form = body.pop("output_format", None) or (output.get("format") if isinstance(output, dict) else None)
    if not isinstance(choice, dict) or not isinstance(output, dict):
        raise InvalidRequestError("tool_choice, output_config: expected objects", field="tool_choice")
    stop = body.pop("stop_sequences", [])
    if not isinstance(stop, list) or not all(isinstance(one, str) for one in stop):
        raise InvalidRequestError("stop_sequences: expected a list of texts", field="stop_sequences")
    schema = None
    if form is not None:
        if not isinstance(form, dict) or not isinstance(form.get("schema"), dict):
            raise InvalidRequestError(
                "output_config.format: a schema is needed", field="output_config.format"
            )
        schema = Schema(schema=form["schema"])
    for name in ("temperature", "top_p", "top_k"):
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InvalidRequestError(f"{name}: expected a number", field=name)
    effort = output.get("effort")
    options = Options(
        max_tokens=body.pop("max_tokens"),
        temperature=body.pop("temperature", None),
        top_p=body.pop("top_p", None),
        top_k=body.pop("top_k", None),
        stop=stop,
        reasoning=effort if isinstance(effort, str) else None,
        choice=_choice(choice),
        parallel_calls=False if choice.get("disable_parallel_tool_use") else None,
        schema=schema,
    )
    options.extra = body
    return options


def _choice(choice: dict[str, Any]) -> str | None:
    kind = choice.get("type")
    if kind in (None, "auto", "none"):
        return kind
    if kind == "any":
        return "required"
    if kind == "tool" and isinstance(choice.get("name"), str):
        ours = SERVER_TOOLS.get(choice["name"])
        return f"={ours or choice['name']}"
    raise InvalidRequestError("tool_choice: expected auto, any, tool or none", field="tool_choice")
