"""Keys: how one is made, what is stored of it, and what is told about it. Only its digest is ever kept."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from onehop.errors import InvalidRequestError
from onehop.sessions.caller import ADMIN, EXECUTE, NO_LIMITS, READ, SCOPES, Limits
from onehop.sessions.requests import Positive, PositiveInt
from onehop.sessions.session import timestamp
from onehop.store import KeyRow

PREFIX = "oh_"
E2B_PREFIX = "e2b_"
"""What E2B's clients insist on, followed by 40 hexadecimal digits."""
SHOWN_CHARACTERS = 5
"""So many characters of a key's random part are shown in lists."""
MAX_NAME = 255
OWNER = re.compile(r"[A-Za-z0-9._@:-]{0,64}")

ToolPattern = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.*?/:-]{1,128}(?![\s\S])")]

_IMPLIED = {EXECUTE: {READ}, ADMIN: {READ}, READ: set[str]()}


class KeyLimits(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What all requests of one key may use together; null is no limit besides the server's own.

    Args:
        max_sessions: sessions and one-shot executions at once.
        executions_per_minute: starts of executions within any 60 seconds.
        cpu_s_per_hour: CPU seconds within an hour.
        max_memory_mb, max_workspace_mb: ceilings of one sandbox in MiB.
        tools: registered tools that may be called: names, `source.*`, or `*`; an empty list is none at all.
    """

    max_sessions: PositiveInt | None = None
    executions_per_minute: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    cpu_s_per_hour: Positive | None = None
    max_memory_mb: Annotated[int, Meta(ge=64)] | None = None
    max_workspace_mb: PositiveInt | None = None
    tools: Annotated[list[ToolPattern], Meta(max_length=1000)] | None = None

    def limits(self) -> Limits:
        given = msgspec.structs.asdict(self)
        return Limits(**given | {"tools": None if self.tools is None else tuple(self.tools)})


class KeyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key to be made.

    Args:
        name: for people.
        owner: the tenant whose things it reaches; a new one of its own when left out.
        scopes: `execute` (includes `read`), `read`, `admin` (includes `read`).
        expires_in_s: seconds until it is of no use any more; never when left out.
        e2b: make it of the form that E2B's clients insist on.
    """

    name: Annotated[str, Meta(max_length=255)] = ""
    owner: Annotated[str, Meta(max_length=64)] | None = None
    scopes: list[str] = msgspec.field(default_factory=lambda: [EXECUTE])
    expires_in_s: Positive | None = None
    limits: KeyLimits = KeyLimits()
    e2b: bool = False


class KeyInfo(msgspec.Struct, kw_only=True):
    """A key, without the key itself. Times are RFC 3339 in UTC.

    Args:
        prefix: its first characters.
        state: whether it can be used.
        last_used_at: up to a minute late when the gateway was killed.
    """

    id: str
    name: str
    owner: str
    prefix: str
    state: Literal["active", "expired", "revoked"]
    scopes: list[str]
    limits: KeyLimits
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class NewKey(KeyInfo, kw_only=True):
    """A key that was made just now.

    Args:
        key: the key itself; it is not stored, and nobody can ask for it again.
    """

    key: str


class KeyList(msgspec.Struct):
    """Oldest first, revoked ones too."""

    keys: list[KeyInfo]


def make_key(
    *,
    name: str = "",
    owner: str | None = None,
    scopes: Iterable[str] = (EXECUTE,),
    expires_in_s: float | None = None,
    limits: Limits = NO_LIMITS,
    e2b: bool = False,
) -> tuple[str, KeyRow]:
    """A new key, and what is stored of it.

    Args:
        name: for people.
        owner: the tenant; several keys may have the same (default: one of its own).
        scopes: `execute`, `read`, `admin`.
        expires_in_s: seconds until it is of no use any more (None: never).
        e2b: of the form that E2B's clients want.

    Raises:
        InvalidRequestError: naming the field that is wrong.
    """
    chosen = tuple(dict.fromkeys(scopes))
    unknown = [scope for scope in chosen if scope not in SCOPES]
    if unknown or not chosen:
        what = f"got {unknown[0][:40]!r}" if unknown else "got none"
        raise InvalidRequestError(
            f"scopes: expected one or more of {', '.join(sorted(SCOPES))}, {what}", field="scopes"
        )
    if len(name) > MAX_NAME:
        raise InvalidRequestError(f"name: longer than {MAX_NAME} characters", field="name")
    if owner is not None and not OWNER.fullmatch(owner):
        raise InvalidRequestError(
            "owner: expected up to 64 of the characters A-Z a-z 0-9 . _ @ : -", field="owner"
        )
    if expires_in_s is not None and not 0 < expires_in_s < 1e10:
        raise InvalidRequestError("expires_in_s: expected a number of seconds above 0", field="expires_in_s")
    prefix = E2B_PREFIX if e2b else PREFIX
    key = prefix + (secrets.token_hex(20) if e2b else secrets.token_urlsafe(32))
    key_id = f"key_{secrets.token_hex(8)}"
    now = time.time()
    row = KeyRow(
        id=key_id,
        name=name,
        owner=key_id if owner is None else owner,
        prefix=key[: len(prefix) + SHOWN_CHARACTERS],
        digest=hashlib.sha256(key.encode()).digest(),
        scopes=chosen,
        limits=msgspec.json.encode(limits),
        created_at=now,
        expires_at=None if expires_in_s is None else now + expires_in_s,
    )
    return key, row


def limits_of(row: KeyRow) -> Limits:
    limits = msgspec.json.decode(row.limits, type=Limits)
    return NO_LIMITS if limits == NO_LIMITS else limits


def effective(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with those that they include."""
    return frozenset(scopes).union(*(_IMPLIED.get(scope, ()) for scope in scopes))


def key_info(row: KeyRow, used_at: float) -> KeyInfo:
    """What is told about a key; `used_at`: seconds since 1970, 0 for never."""
    expired = row.expires_at is not None and row.expires_at <= time.time()
    return KeyInfo(
        id=row.id,
        state="revoked" if row.revoked_at is not None else "expired" if expired else "active",
        name=row.name,
        owner=row.owner,
        prefix=row.prefix,
        scopes=list(row.scopes),
        limits=msgspec.convert(limits_of(row), KeyLimits, from_attributes=True),
        created_at=timestamp(row.created_at),
        expires_at=None if row.expires_at is None else timestamp(row.expires_at),
        revoked_at=None if row.revoked_at is None else timestamp(row.revoked_at),
        last_used_at=timestamp(used_at) if used_at else None,
    )
