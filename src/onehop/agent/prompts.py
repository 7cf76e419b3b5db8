"""Our tools as a model is told of them. The same tools give the same bytes, so that a prompt cache holds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from onehop.agent.events import Kind, LoopRequest
from onehop.agent.model import Function
from onehop.errors import InvalidRequestError
from onehop.protocol import ToolEntry
from onehop.sessions.calls import ClientTool, client_entries
from onehop.tools.registry import Registry
from onehop.tools.stubs import stubs

NAMES: dict[Kind, str] = {"python": "python", "bash": "bash", "editor": "text_editor"}
"""What each kind is called, unless the client has a function of that name."""
MAX_STUBS_CHARACTERS = 8192
MAX_LISTED = 100
CONTEXT = {
    "type": "string",
    "description": "An interpreter of its own, with variables of its own; calls that name different ones run side by "
    "side. Leave it out for the usual one.",
    "pattern": "^[A-Za-z0-9_-]{1,64}$",
}
PYTHON = """\
Runs Python code in a sandbox on the server and returns what it prints and the value of its last expression. \
Variables, imports and files stay for the next call. numpy, pandas, scipy, scikit-learn, matplotlib and more are \
installed; there is no network. Figures are shown by themselves. Files belong in the working folder, /workspace. \
Print what you need to see, and as little as that takes."""
BASH = """\
Runs a shell command in the working folder, /workspace, of the sandbox in which the Python code runs. There is no \
network. Files stay; each call is a new shell."""
EDITOR = """\
Views and edits text files of the working folder, /workspace: view (a file, with line numbers, or a folder), create, \
str_replace (old_str has to be in the file exactly once), insert (after the line insert_line, 0 for the beginning)."""
TOOLS = """

In the code, `tools` has these functions. They run on the server: calls cost no turn, so make all that you need \
in one program, in loops where that helps. In code with `await` they are awaitable (asyncio.gather runs them in \
parallel). A call that fails raises tools.ToolError.
```python
{stubs}```"""
MANY_TOOLS = """

In the code, `tools` has {count} functions that run on the server; calls cost no turn. `tools.search("words")` \
finds them, `tools.describe("name")` shows one with its parameters. Their names: {names}"""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[ToolEntry]).decode


class Offer(msgspec.Struct):
    """What one request's model gets of ours.

    Args:
        functions: for the model's request.
        kinds: by the function's name.
        choices: of tools, for every execution.
    """

    functions: list[Function]
    kinds: dict[str, Kind]
    choices: list[str | ClientTool]


def offer(request: LoopRequest, registry: Registry | None) -> Offer:
    """Raises InvalidRequestError, ForbiddenError for tools that the code cannot have."""
    client = [
        ClientTool(
            name=one.name,
            description=one.description,
            parameters=one.parameters or {"type": "object", "properties": {}},
        )
        for one in request.code_callable
    ]
    for one in client:
        if not all(part.isidentifier() for part in one.name.split(".")):
            raise InvalidRequestError(
                f"{one.name[:64]!r} is no Python name: code cannot call it", field="tools"
            )
    choices: list[str | ClientTool] = [*request.tools, *client]
    entries: list[ToolEntry] = []
    if registry is not None:
        entries = registry.catalogue(registry.toolset(list(choices), request.caller)) if choices else []
    elif request.tools:
        raise InvalidRequestError("tools: this server has no registered tools", field="tools")
    else:
        entries = client_entries(client)
    taken = {one.name for one in request.request.tools}
    functions: list[Function] = []
    kinds: dict[str, Kind] = {}
    for kind in request.kinds:
        name = NAMES[kind]
        while name in taken:
            name = f"onehop_{name}"
        kinds[name] = kind
        functions.append(_function(kind, name, entries))
    return Offer(functions, kinds, choices)


def _function(kind: Kind, name: str, entries: list[ToolEntry]) -> Function:
    if kind == "bash":
        return _simple(name, BASH, {"command": {"type": "string"}}, ["command"])
    if kind == "editor":
        members: dict[str, Any] = {
            "command": {"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
            "path": {"type": "string"},
            "file_text": {"type": "string"},
            "old_str": {"type": "string"},
            "new_str": {"type": "string"},
            "insert_line": {"type": "integer"},
            "insert_text": {"type": "string"},
            "view_range": {"type": "array", "items": {"type": "integer"}},
        }
        return _simple(name, EDITOR, members, ["command", "path"])
    return _simple(name, PYTHON + _told(entries), {"code": {"type": "string"}, "context": CONTEXT}, ["code"])


def _simple(name: str, description: str, members: dict[str, Any], required: list[str]) -> Function:
    parameters = {
        "type": "object",
        "properties": members,
        "required": required,
        "additionalProperties": False,
    }
    return Function(name=name, description=description, parameters=parameters)


def _told(entries: list[ToolEntry]) -> str:
    return _described(_encode(entries)) if entries else ""


@lru_cache(maxsize=64)
def _described(encoded: bytes) -> str:
    """Of the same tools again and again: it takes milliseconds, and every request needs it."""
    entries = _decode(encoded)
    text = stubs(entries)
    if len(text) <= MAX_STUBS_CHARACTERS:
        return TOOLS.format(stubs=text)
    names = sorted(one.path for one in entries)
    more = ", …" if len(names) > MAX_LISTED else ""
    return MANY_TOOLS.format(count=len(entries), names=", ".join(names[:MAX_LISTED]) + more)
