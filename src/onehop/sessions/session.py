"""What the gateway knows about one session. State only: who changes it is the engine."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Literal

import msgspec

from onehop.config import MIB
from onehop.protocol import Entry, ImportRules
from onehop.sessions.answers import SandboxLimits, SessionInfo
from onehop.sessions.calls import ToolChoice
from onehop.sessions.run import COMMAND, Run
from onehop.store import SessionRow
from onehop.supervisor.messages import SandboxInfo, SandboxSpec
from onehop.supervisor.porter import Porter

EndReason = Literal[
    "deleted",
    "expired",
    "restarted",
    "killed",
    "timeout",
    "out_of_memory",
    "output_limit",
    "kernel_died",
    "protocol_error",
    "outcome_unknown",
]

ENDS: dict[str, str] = {
    "deleted": "the session was deleted",
    "expired": "the session was not used for too long, or was too old",
    "restarted": "the session was lost when the server was started again",
    "killed": "the session's sandbox was ended",
    "timeout": "the session ended because its code did not stop at the deadline",
    "out_of_memory": "the session ended because its code needed more memory than it may have",
    "output_limit": "the session ended because its output filled the workspace",
    "kernel_died": "the session ended because its interpreter died",
    "protocol_error": "the session ended because its interpreter was tampered with",
    "outcome_unknown": "the session was lost when the server was started again",
}
"""Why a session has ended, for people."""


class StoredSettings(msgspec.Struct):
    """What of a session is stored as one document."""

    limits: SandboxLimits
    idle_timeout_s: float
    max_age_s: float
    ends_at: float | None = None
    """Seconds since 1970: it ends then at the latest."""
    pinned: bool = False
    metadata: dict[str, str] = {}
    key: str = ""
    """Id of the API key that made it, empty without one."""
    tools: list[ToolChoice] = []
    imports: ImportRules | None = None
    env: dict[str, str] = {}
    """Environment variables of its executions and commands."""
    token: str = ""
    """Who shows it may use this session, and nothing else, in place of the key; empty: there is no such."""

    def encoded(self) -> bytes:
        return _encode(self)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StoredSettings).decode


class Session:
    """A live session.

    Attributes:
        runs: what is executing, by context; commands by `!` and their id.
        listing_lock: held while its files are compared with `listing`.
        listing: files at the last look, or None when nobody has looked since a restart of the gateway.
        porter: kept open for listings; who holds the lock may use it.
        transfers: file operations under way for clients.
    """

    __slots__ = (
        "created_at",
        "environment",
        "id",
        "isolation",
        "last_used_s",
        "listing",
        "listing_lock",
        "owner",
        "porter",
        "runs",
        "sandbox",
        "settings",
        "transfers",
    )

    def __init__(
        self,
        name: str,
        settings: StoredSettings,
        box: SandboxInfo,
        *,
        owner: str,
        created_at: float,
        fresh: bool,
    ) -> None:
        self.id = name
        self.owner = owner
        self.sandbox = box.id
        self.environment = box.environment
        self.isolation = box.isolation
        self.settings = settings
        self.created_at = created_at
        self.last_used_s = time.monotonic()
        self.runs: dict[str, Run] = {}
        self.listing: dict[str, Entry] | None = {} if fresh else None
        self.listing_lock = asyncio.Lock()
        self.porter: Porter | None = None
        self.transfers = 0

    @property
    def workspace_bytes(self) -> int:
        return self.settings.limits.workspace_mb * MIB

    def touch(self) -> None:
        """Somebody uses it."""
        self.last_used_s = time.monotonic()

    def knows(self, entry: Entry) -> None:
        """A file that did not come from its code."""
        if self.listing is not None:
            self.listing[entry.path] = entry

    def knows_not(self, path: str) -> None:
        """A file or folder is gone, and not by its code."""
        if self.listing is not None:
            below = path + "/"
            for gone in [one for one in self.listing if one == path or one.startswith(below)]:
                del self.listing[gone]

    def knows_moved(self, path: str, target: str) -> None:
        """A file or folder has another path, and not by its code."""
        if self.listing is None:
            return
        below = path + "/"
        found = [one for one in self.listing if one == path or one.startswith(below)]
        for old in found:
            entry = self.listing.pop(old)
            entry.path = target + old[len(path) :]
            self.listing[entry.path] = entry

    def commands(self) -> int:
        """How many commands run."""
        return sum(1 for place in self.runs if place.startswith(COMMAND))

    def forget(self, run: Run) -> None:
        """The run has ended, or was never begun."""
        if self.runs.get(run.context) is run:
            del self.runs[run.context]

    def ends_at(self) -> float:
        """Seconds since 1970 when it ends in any case."""
        oldest = self.created_at + self.settings.max_age_s
        return oldest if self.settings.ends_at is None else min(oldest, self.settings.ends_at)

    def expired(self) -> bool:
        """Too old, or unused for too long; what runs or is transferred counts as use."""
        if time.time() > self.ends_at():
            return True
        if self.runs or self.transfers or self.settings.pinned:
            return False
        return time.monotonic() - self.last_used_s > self.settings.idle_timeout_s

    def close_porter(self) -> None:
        porter, self.porter = self.porter, None
        if porter is not None:
            porter.close()

    def info(self) -> SessionInfo:
        expires_at = self.ends_at()
        if not self.settings.pinned:
            idle_s = time.monotonic() - self.last_used_s
            expires_at = min(expires_at, time.time() + self.settings.idle_timeout_s - idle_s)
        return SessionInfo(
            id=self.id,
            status="busy" if self.runs else "idle",
            environment=self.environment,
            created_at=timestamp(self.created_at),
            expires_at=timestamp(expires_at),
            idle_timeout_s=self.settings.idle_timeout_s,
            max_age_s=self.settings.max_age_s,
            pinned=self.settings.pinned,
            metadata=self.settings.metadata,
            env=list(self.settings.env),
            executions=[run.id for run in self.runs.values()],
            limits=self.settings.limits,
            isolation=self.isolation,
        )

    def row(self) -> SessionRow:
        return SessionRow(
            self.id, self.owner, self.sandbox, self.environment, self.settings.encoded(), self.created_at
        )


def restored(row: SessionRow, box: SandboxInfo) -> Session:
    """The session of a stored row, whose sandbox is alive."""
    return Session(
        row.id, _decode(row.settings), box, owner=row.owner, created_at=row.created_at, fresh=False
    )


def key_of(row: SessionRow) -> str:
    """Id of the API key that made the session, empty without one."""
    return _decode(row.settings).key


def limits_of(spec: SandboxSpec) -> SandboxLimits:
    return SandboxLimits(
        memory_mb=spec.memory_bytes // MIB,
        processes=spec.processes,
        workspace_mb=spec.workspace_bytes // MIB,
        workspace_inodes=spec.workspace_inodes,
    )


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
