"""Shell commands of sessions, as far as they are not executions: who they are, and what is done to them.

The supervisor knows all of it; the gateway keeps nothing, so nothing is lost with it.
"""

from __future__ import annotations

import contextlib
import signal
from typing import cast

from onehop import errors
from onehop.sessions.answers import CommandInfo, Status
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.registry import Registry
from onehop.sessions.session import timestamp
from onehop.supervisor import messages
from onehop.supervisor.client import SupervisorClient


class Commands:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, client: SupervisorClient, registry: Registry) -> None:
        self._client = client
        self._registry = registry

    async def list(self, session_id: str, caller: Caller = LOCAL) -> list[CommandInfo]:
        """Those that run, and the last of those that have ended; oldest first."""
        async with self._registry.using(session_id, caller) as session:
            return [_command(one) for one in await self._client.commands(session.sandbox)]

    async def get(self, session_id: str, execution: str, caller: Caller = LOCAL) -> CommandInfo:
        for one in await self.list(session_id, caller):
            if one.id == execution:
                return one
        raise errors.CommandNotFoundError("there is no such command in this session")

    async def feed(
        self, session_id: str, execution: str, data: bytes, caller: Caller = LOCAL, *, close: bool
    ) -> None:
        """More stdin. Raises CommandNotFoundError, ConflictError, TooManyError."""
        async with self._registry.using(session_id, caller) as session:
            session.touch()
            await self._client.feed(session.sandbox, execution, data, close=close)

    async def signal(self, session_id: str, execution: str, number: int, caller: Caller = LOCAL) -> None:
        """For its process group. Raises CommandNotFoundError, ConflictError."""
        async with self._registry.using(session_id, caller) as session:
            session.touch()
            await self._client.signal(session.sandbox, execution, number)

    async def kill(self, session_id: str, execution: str, caller: Caller = LOCAL) -> None:
        """Ends it, unless it has ended. Raises CommandNotFoundError."""
        with contextlib.suppress(errors.ConflictError):
            await self.signal(session_id, execution, signal.SIGKILL, caller)


def _command(one: messages.CommandInfo) -> CommandInfo:
    return CommandInfo(
        id=one.id,
        command=one.command,
        status=cast(Status, one.status),
        exit_code=one.exit_code,
        pid=one.pid,
        background=one.background,
        stdin_open=one.stdin_open,
        started_at=timestamp(one.started_at),
        ended_at=timestamp(one.ended_at) if one.ended_at else None,
    )
