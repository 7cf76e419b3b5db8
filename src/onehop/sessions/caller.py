"""Who asks: the owner whose things may be seen, what the key allows, and how much of it.

Everything that lives longer than a request belongs to an owner. Whoever is not it gets the same answer
as for something that does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

EXECUTE = "execute"
READ = "read"
ADMIN = "admin"
SCOPES = frozenset({EXECUTE, READ, ADMIN})


@dataclass(frozen=True, slots=True)
class Limits:
    """What all requests of one key may use together; None is no limit of the key's own.

    Args:
        max_sessions: sandboxes at once, one-shot executions included.
        executions_per_minute: starts of executions.
        cpu_s_per_hour: CPU seconds.
        max_memory_mb, max_workspace_mb: ceilings of one sandbox in MiB.
        tools: patterns of the registered tools that may be called.
    """

    max_sessions: int | None = None
    executions_per_minute: int | None = None
    cpu_s_per_hour: float | None = None
    max_memory_mb: int | None = None
    max_workspace_mb: int | None = None
    tools: tuple[str, ...] | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Caller:
    """The one behind a request.

    Args:
        owner: the tenant; several keys may share one.
        key: id of the key, empty without one.
        scopes: what it may do: `execute`, `read`, `admin`.
    """

    owner: str = ""
    key: str = ""
    scopes: frozenset[str] = SCOPES
    limits: Limits = NO_LIMITS

    @property
    def tools(self) -> tuple[str, ...] | None:
        """Patterns of the registered tools that may be called; None for all."""
        return self.limits.tools


def label(caller: Caller) -> str:
    """Owner and key as one text, for what remembers a single one; no owner's name holds a slash."""
    return f"{caller.owner}/{caller.key}" if caller.key else caller.owner


def parsed_label(text: str) -> tuple[str, str]:
    """Owner and key of a `label`."""
    owner, _, key = text.partition("/")
    return owner, key


LOCAL = Caller()
"""Everybody, as long as there are no keys; also whoever runs an engine in a process of their own."""
