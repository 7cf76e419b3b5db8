"""What goes into the store and comes out of it. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session. `settings` is a JSON document of its owner's choice; `reason` says why it ended."""

    id: str
    owner: str
    sandbox: str
    environment: str
    settings: bytes
    created_at: float
    ended_at: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key that a request has taken.

    Args:
        request: SHA-256 of what was asked for, in hex.
        made: id of the execution or session that comes of it.
        session: of the execution, if it has one.
    """

    owner: str
    key: str
    request: str
    made: str
    created_at: float
    session: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """An execution with its result.

    Args:
        encode: gives the answer's document and the packed events; called on the writer's thread.
    """

    id: str
    owner: str
    session: str | None
    status: str
    started_at: float
    ended_at: float
    encode: Callable[[], tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """`document` and `events` are None as long as the status is `running`."""

    id: str
    owner: str
    session: str | None
    status: str
    started_at: float
    document: bytes | None
    events: bytes | None
