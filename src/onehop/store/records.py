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
        asked_by: id of the API key of the request, empty without one.
    """

    owner: str
    key: str
    request: str
    made: str
    created_at: float
    session: str | None
    asked_by: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """An execution with its result.

    Args:
        key: id of the key that asked for it, empty without one.
        cpu_ms, memory_mb_s, tool_calls: what it used, 0 where that is not known.
        encode: gives the answer's document and the packed events; called on the writer's thread.
    """

    id: str
    owner: str
    session: str | None
    status: str
    started_at: float
    ended_at: float
    encode: Callable[[], tuple[bytes, bytes]]
    key: str = ""
    cpu_ms: float = 0.0
    memory_mb_s: float = 0.0
    tool_calls: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallRow:
    """One call of a tool that has ended.

    Args:
        number: of the call in its execution, from 1 on.
        name: of the tool.
        arguments_sha256: of the arguments as the code sent them, in hex.
        bytes_out, bytes_in: of the arguments, and of the result.
        ms: from its start to its end.
        status: `ok`, `error`, `denied`, `abandoned` or `outcome_unknown`.
    """

    execution: str
    number: int
    owner: str
    key: str
    name: str
    arguments_sha256: str
    bytes_out: int
    bytes_in: int
    started_at: float
    ms: float
    status: str
    error: str


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
    key: str = ""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key; nobody can make the key itself from it.

    Args:
        prefix: its first characters, by which people know it.
        digest: SHA-256 of it, which needs no salt: the key has 160 random bits or more.
        limits: a JSON document.
        revision: larger than that of every change before.
    """

    id: str
    name: str
    owner: str
    prefix: str
    digest: bytes
    scopes: tuple[str, ...]
    limits: bytes
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A stored function. `routed`: why its code does not fit Monty."""

    owner: str
    name: str
    code: bytes
    routed: str
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """What the model loop keeps for a later request, under a name of its kind."""

    owner: str
    kind: str
    id: str
    data: bytes
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class UploadRow:
    """A file that a client has uploaded. `expires_at`: None for one that stays until it is deleted."""

    id: str
    owner: str
    name: str
    purpose: str
    media_type: str
    bytes: int
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used in one period with one key."""

    period: int
    key: str
    owner: str
    executions: int
    cpu_ms: float
    memory_mb_s: float
    tool_calls: int
