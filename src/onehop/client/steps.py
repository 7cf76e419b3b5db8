"""The steps that the SDK's logic asks for, and the two shapes of that logic. No input or output in here.

An `Op` is a generator: it yields a step, gets the step's outcome sent (or its error thrown) and returns
its result. A `Flow` hands out values on the way with `Emit`. A carrier performs the steps, one blocking,
one in asyncio; so every call, retry and reconnection is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

R = TypeVar("R")
E = TypeVar("E")

READ_TIMEOUT_S = 60.0
"""Silence after which a connection is taken for dead. The server's streams say something every 15 s."""


@dataclass(frozen=True)
class Source:
    """A body that is read piece by piece.

    Args:
        open: begins to read it.
        again: it can be read more than once, so that the request can be repeated.
        length_bytes: its size, if that is known.
    """

    open: Callable[[], Iterator[bytes]]
    again: bool
    length_bytes: int | None = None


@dataclass(frozen=True)
class Request:
    """A request below the server's address; `path` is quoted already."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Source = b""

    @property
    def repeatable(self) -> bool:
        """Sent twice it does no more than sent once."""
        if isinstance(self.body, Source) and not self.body.again:
            return False
        return self.method in ("GET", "PUT", "DELETE") or KEY in self.headers


KEY = "Idempotency-Key"


@dataclass(frozen=True)
class Reply:
    """Status, headers (names in lower case) and body; the body of an opened stream is empty."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Send:
    """→ Reply with the whole body."""

    request: Request


@dataclass(frozen=True)
class Open:
    """→ Reply; its body is then read with `Read`. Closes the stream opened before."""

    request: Request


@dataclass(frozen=True)
class Read:
    """→ the next bytes of the open stream, empty at its end."""


@dataclass(frozen=True)
class Pause:
    """Waits."""

    seconds: float


@dataclass(frozen=True)
class Call:
    """Calls a user's function; in asyncio it may be a coroutine function."""

    function: Callable[[Any], object]
    argument: object


@dataclass(frozen=True)
class CallAll:
    """→ what each of a user's functions returns, or the Exception it raises; they run side by side."""

    functions: list[Callable[[], Any]]


@dataclass(frozen=True)
class Emit(Generic[E]):
    """Hands out a value of a Flow."""

    value: E


Step = Send | Open | Read | Pause | Call | CallAll
Op = Generator[Step, Any, R]
Flow = Generator[Step | Emit[E], Any, None]


def perform(request: Request) -> Op[Reply]:
    """One attempt. Raises UnreachableError."""
    reply: Reply = yield Send(request)
    return reply


def open_stream(request: Request) -> Op[Reply]:
    """One attempt. Raises UnreachableError."""
    reply: Reply = yield Open(request)
    return reply


def read() -> Op[bytes]:
    """The next bytes of the open stream. Raises UnreachableError."""
    chunk: bytes = yield Read()
    return chunk
