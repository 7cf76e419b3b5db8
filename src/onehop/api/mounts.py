"""Other protocols in the same application: their routes, their shape of errors, where they carry a key.

They stand beside the native routes, behind the same guard and with the same scopes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from onehop.api.asgi import Call, Header
from onehop.api.resources import Operation
from onehop.errors import ProblemError
from onehop.sessions import Engine
from onehop.sessions.caller import Caller
from onehop.tools.registry import Registry


@dataclass(frozen=True)
class Refusal:
    """An error as a protocol writes it."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = ((b"content-type", b"application/json"),)


@dataclass(frozen=True)
class Socket:
    """A websocket of a protocol.

    Args:
        path: whole, with parameters in braces.
        handler: gets the connection before it is accepted; raises a ProblemError to refuse it.
        scope: what a key needs for it, as of an Operation.
    """

    path: str
    handler: Callable[[Call], Awaitable[None]]
    scope: str


@dataclass(frozen=True)
class Mount:
    """One protocol.

    Args:
        prefix: what its paths begin with, without a slash at the end.
        operations: its routes, their paths whole.
        refuse: an error and the request's id, as this protocol's clients read them.
        key: the key of a request whose protocol carries it elsewhere than in Authorization or X-API-Key, or nothing.
        caller: who asks, of a request that shows something else than a key, such as a session's token; None: its key
            is looked for. It may raise UnauthorizedError.
        sockets: its websockets.
    """

    prefix: str
    operations: list[Operation]
    refuse: Callable[[ProblemError, str], Refusal]
    key: Callable[[Scope], bytes] | None = None
    caller: Callable[[Scope], Caller | None] | None = None
    sockets: tuple[Socket, ...] = ()


class Mounts:
    """All of them, by path."""

    def __init__(self, mounts: list[Mount]) -> None:
        self._mounts = [(mount.prefix, mount.prefix + "/", mount) for mount in mounts]

    def of(self, path: str) -> Mount | None:
        """Whose path that is; None for a native one."""
        for whole, below, mount in self._mounts:
            if path.startswith(below) or path == whole:
                return mount
        return None


class Wires(AbstractAsyncContextManager["Wires"], Protocol):
    """What serves other protocols; entered inside of the engine."""

    mounts: list[Mount]


MakeWires = Callable[[Engine, Registry | None], Wires]
