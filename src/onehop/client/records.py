"""What the server tells about sessions, contexts, commands, files, keys and usage, as frozen dataclasses.

Members that are not known here are left out, and those that an older server does not send have defaults.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")
Content = bytes  # `File` has a field of that name


def record(kind: type[T], document: Mapping[str, Any]) -> T:
    """`document` as a dataclass; members whose name ends in `_at` become datetimes."""
    given = {}
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        if one.name in document:
            value = document[one.name]
            is_time = one.name.endswith("_at") and isinstance(value, str)
            given[one.name] = datetime.fromisoformat(value) if is_time else value
    return kind(**given)


@dataclass(frozen=True)
class SessionInfo:
    """A session. It ends at `expires_at` unless somebody uses it before; `executions` are those that run."""

    id: str
    status: str
    environment: str
    created_at: datetime
    expires_at: datetime
    idle_timeout_s: float
    max_age_s: float
    pinned: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    env: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)
    isolation: dict[str, str] = field(default_factory=dict)
    executions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ContextInfo:
    """One of a session's kernels; `status` is `idle`, `busy` or `starting`."""

    name: str
    status: str
    cwd: str
    created_at: datetime


@dataclass(frozen=True)
class CommandInfo:
    """A shell command. `pid` is its number inside the sandbox; `exit_code` is None while it runs and after a signal."""

    id: str
    command: str
    status: str
    exit_code: int | None = None
    pid: int | None = None
    background: bool = False
    stdin_open: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class File:
    """A file of the workspace.

    Args:
        path: relative to the workspace.
        bytes: its size.
        modified_at: None where the server was not asked for it.
        content: in the answer of a one-shot run with `return_files`; None if it was not asked for, or if
            `omitted` says that all together were too large.
    """

    path: str
    bytes: int
    modified_at: datetime | None = None
    content: Content | None = field(default=None, repr=False)
    omitted: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> File:
        found = record(cls, document)
        if isinstance(document.get("base64"), str):
            found = dataclasses.replace(found, content=base64.b64decode(document["base64"]))
        return found


class FileList(list[File]):
    """Files sorted by path; `truncated` when there are more."""

    truncated = False


@dataclass(frozen=True)
class EnvironmentInfo:
    """A set of packages that sessions can name: versions by name. `ready`: it is warm."""

    name: str
    ready: bool = True
    default: bool = False
    packages: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class KeyInfo:
    """An API key; `state` is `active`, `expired` or `revoked`. `key`, the secret itself, is told once: to its maker."""

    id: str
    name: str = ""
    owner: str = ""
    prefix: str = ""
    state: str = ""
    scopes: list[str] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class DayUsage:
    """What one key used on one day (UTC). `cost` is None where no prices are configured."""

    day: str
    key: str
    owner: str
    executions: int
    cpu_s: float
    memory_mb_s: float
    tool_calls: int
    cost: float | None = None
