"""Contexts of sessions, as far as they are not executions: who they are, and what is done to them.

The supervisor knows all of it; the gateway keeps nothing, so nothing is lost with it.
"""

from __future__ import annotations

import secrets
from typing import Literal, cast

from onehop import errors
from onehop.config import Settings
from onehop.sessions import bounds
from onehop.sessions.answers import ContextInfo
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.registry import Registry
from onehop.sessions.requests import ContextRequest
from onehop.sessions.session import timestamp
from onehop.supervisor import messages
from onehop.supervisor.client import SupervisorClient


class Contexts:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, settings: Settings, client: SupervisorClient, registry: Registry) -> None:
        self._settings = settings
        self._client = client
        self._registry = registry

    async def create(self, session_id: str, request: ContextRequest, caller: Caller = LOCAL) -> ContextInfo:
        """Another kernel. Raises ConflictError, TooManyError, InvalidRequestError."""
        async with self._registry.using(session_id, caller) as session:
            self._registry.check_open()
            session.touch()
            if request.cwd:
                bounds.check_path(request.cwd)
            name = request.name or f"ctx-{secrets.token_hex(4)}"
            return _context(
                await self._client.create_context(
                    session.sandbox, name, cwd=request.cwd, most=self._settings.max_contexts
                )
            )

    async def list(self, session_id: str, caller: Caller = LOCAL) -> list[ContextInfo]:
        async with self._registry.using(session_id, caller) as session:
            return [_context(one) for one in await self._client.contexts(session.sandbox)]

    async def get(self, session_id: str, name: str, caller: Caller = LOCAL) -> ContextInfo:
        for one in await self.list(session_id, caller):
            if one.name == name:
                return one
        raise errors.ContextNotFoundError(f"there is no context {name[:80]!r} in this session")

    async def restart(self, session_id: str, name: str, caller: Caller = LOCAL) -> ContextInfo:
        """A new kernel in its place: the variables are gone, the files stay, what runs is `killed`."""
        async with self._registry.using(session_id, caller) as session:
            session.touch()
            return _context(await self._client.restart_context(session.sandbox, name))

    async def delete(self, session_id: str, name: str, caller: Caller = LOCAL) -> None:
        """Raises ContextNotFoundError; ConflictError for `main`."""
        async with self._registry.using(session_id, caller) as session:
            session.touch()
            await self._client.delete_context(session.sandbox, name)


def _context(one: messages.ContextInfo) -> ContextInfo:
    status = cast(Literal["idle", "busy", "starting"], one.status)
    return ContextInfo(name=one.name, status=status, cwd=one.cwd, created_at=timestamp(one.created_at))
