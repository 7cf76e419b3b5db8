"""Calls of tools by an execution: its part of the conversation between code and tools, and the record of it.

What a tool is and where it runs is the dispatcher's business (onehop.tools). Here calls are counted against
their budgets, started in order, kept until they are answered, and told to the client when it owns them or
has to approve them. A call's arguments come from hostile code: they are data, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from onehop.errors import InvalidRequestError
from onehop.protocol import CallError, ToolEntry
from onehop.sessions.caller import Caller

MAX_LISTED = 1000
"""So many calls are in an answer; the others can be asked for."""

CallStatus = Literal["pending", "running", "ok", "error", "denied", "abandoned", "outcome_unknown"]
Needs = Literal["result", "approval"]
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
ToolName = Annotated[str, Meta(pattern=rf"^{_NAME}(\.{_NAME})*(?![\s\S])", max_length=128)]


class ClientTool(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A tool that the client runs: the code that calls it waits until the client has sent a result.

    Args:
        name: what code calls it by, a Python name; dots make namespaces.
        description: for who writes the code.
        parameters: JSON Schema of an object.
    """

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})


ToolChoice = ClientTool | str


class ToolSet(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one execution may call, and how much of it. Kept with the execution, so that it outlives a gateway.

    Args:
        catalogue: id of what the code is told; the same for the same tools.
        names: registered tools.
        client: tools of the client.
        key: id of the key that asked for the execution.
        max_calls: in one execution.
        max_parallel: calls of registered tools that run at once; more wait in their order.
        timeout_s: of one call of a registered tool.
        results_timeout_s: how long a suspended execution waits for its client.
        max_bytes_in, max_bytes_out: of all results, and of all arguments, together.
    """

    catalogue: str = ""
    names: list[str] = []
    client: list[ClientTool] = []
    key: str = ""
    max_calls: int = 10_000
    max_parallel: int = 100
    timeout_s: float = 60.0
    results_timeout_s: float = 300.0
    max_bytes_in: int = 256 << 20
    max_bytes_out: int = 256 << 20

    def encoded(self) -> bytes:
        return _encode(self)


_encode = msgspec.msgpack.Encoder().encode
decode_toolset = msgspec.msgpack.Decoder(ToolSet).decode


class Call(msgspec.Struct, gc=False):
    """One call on its way to a dispatcher.

    Args:
        execution: id of the execution.
        number: counts from 1 in its execution.
        name: of the tool, as code names it below `tools`.
        owner, key: who asked for the execution.
    """

    execution: str
    number: int
    name: str
    arguments: dict[str, Any]
    owner: str = ""
    key: str = ""


class ToolAnswer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the client has to say to a pending call: a result, an error, or whether it may be made.

    Args:
        id: of the call.
        result: JSON.
        error: the code gets a ToolFailedError with this text.
        approve: for a call that needs approval; false: the code gets a ToolDeniedError.
        reason: why it was not approved.
    """

    id: str
    result: Any = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    approve: bool | msgspec.UnsetType = msgspec.UNSET
    reason: str = ""


class ToolResults(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Answers to calls of a suspended execution; others may follow."""

    results: Annotated[list[ToolAnswer], Meta(min_length=1, max_length=4096)]


class Outcome(msgspec.Struct, gc=False):
    """What came of a call: a value (plain data, or msgpack of it), or an error. `files`: workspace path → content."""

    value: Any = None
    error: CallError | None = None
    files: dict[str, bytes] = {}


class Dispatcher(Protocol):
    """Where registered tools are. No method waits; each may be called tens of thousands of times a second."""

    def toolset(self, wanted: list[ToolChoice], caller: Caller) -> ToolSet:
        """What these choices come to. Raises InvalidRequestError, ForbiddenError for those that cannot be had."""

    def catalogue(self, toolset: ToolSet) -> list[ToolEntry]:
        """What the code is told."""

    def check(self, toolset: ToolSet, name: str, arguments: dict[str, Any]) -> CallError | None:
        """Whether the tool may be called like that, the client's as well."""

    def approval(self, toolset: ToolSet, name: str) -> bool:
        """Each call of it waits until the client has approved it."""

    def repeatable(self, toolset: ToolSet, name: str) -> bool:
        """A call whose outcome was lost may be started once more."""

    def start(self, toolset: ToolSet, call: Call, done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Runs it; `done` is called exactly once. What is returned cancels it."""


class NoTools:
    """The dispatcher of a server without registered tools: those of the client are all there is."""

    def toolset(self, wanted: list[ToolChoice], caller: Caller) -> ToolSet:
        client = []
        for choice in wanted:
            if isinstance(choice, str):
                raise InvalidRequestError(
                    f"tools: there is no tool {choice[:128]!r}; this server has none of its own",
                    field="tools",
                )
            client.append(choice)
        return ToolSet(catalogue=catalogue_id(client_entries(client)), client=client, key=caller.key)

    def catalogue(self, toolset: ToolSet) -> list[ToolEntry]:
        return client_entries(toolset.client)

    def check(self, toolset: ToolSet, name: str, arguments: dict[str, Any]) -> CallError | None:
        return None

    def approval(self, toolset: ToolSet, name: str) -> bool:
        return False

    def repeatable(self, toolset: ToolSet, name: str) -> bool:
        return False

    def start(self, toolset: ToolSet, call: Call, done: Callable[[Outcome], None]) -> Callable[[], None]:
        done(Outcome(error=CallError("not_found", f"there is no tool {call.name!r}")))
        return _nothing


def client_entries(tools: list[ClientTool]) -> list[ToolEntry]:
    """What code is told of tools that the client runs."""
    return [
        ToolEntry(
            name=tool.name,
            path=tool.name,
            description=tool.description,
            parameters=tool.parameters,
            waits=True,
        )
        for tool in tools
    ]


def catalogue_id(entries: list[ToolEntry]) -> str:
    """The same for the same entries in the same order."""
    return sha256(_encode(entries)).hexdigest()[:32] if entries else ""


def _nothing() -> None:
    """Cancels what has ended."""
