"""The life of sessions: created, looked at, changed, ended by their owner or by time."""

from __future__ import annotations

import asyncio
import builtins
import hmac
import time
from collections.abc import Mapping

from onehop import errors
from onehop.config import Settings
from onehop.crash import reached
from onehop.sessions import bounds
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.imports import import_rules
from onehop.sessions.quotas import Quotas
from onehop.sessions.registry import Registry, unavailable
from onehop.sessions.requests import SessionChange, SessionRequest
from onehop.sessions.run import new_id
from onehop.sessions.session import Session, StoredSettings, limits_of
from onehop.sessions.tasks import Tasks
from onehop.sessions.tooling import Tooling
from onehop.store import Store
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import SandboxSpec

REAP_S = 0.5


class Lifetimes:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(
        self,
        settings: Settings,
        client: SupervisorClient,
        store: Store,
        registry: Registry,
        tasks: Tasks,
        quotas: Quotas,
        tooling: Tooling,
    ) -> None:
        self._tooling = tooling
        self._settings = settings
        self._client = client
        self._store = store
        self._registry = registry
        self._tasks = tasks
        self._quotas = quotas
        self._creating = 0

    async def create(
        self, request: SessionRequest, caller: Caller = LOCAL, *, name: str = "", token: str = ""
    ) -> SessionInfo:
        """A new session.

        Args:
            name: its id, where one was promised already.
            token: gives access to it alone; see `holder`.

        Raises:
            TooManyError, InvalidRequestError, QuotaExceededError, UnavailableError: there will be none.
        """
        self._registry.check_open()
        name = name or new_id("ses")
        spec = bounds.sandbox_spec(request, self._settings, owner=name, one_shot=False, limits=caller.limits)
        settings = StoredSettings(limits_of(spec), *bounds.lifetime(request, self._settings))
        settings.key = caller.key
        settings.pinned = request.pinned
        settings.metadata = bounds.metadata(request.metadata, self._settings)
        settings.env = bounds.check_env(request.env, self._settings)
        settings.token = token
        settings.tools = request.tools
        self._tooling.check(settings.tools, caller)
        settings.imports = import_rules(request.imports)
        if len(self._registry.live) + self._creating >= self._settings.max_sessions:
            raise errors.TooManyError(
                f"there are {self._settings.max_sessions} sessions already, the most allowed"
            )
        self._quotas.take_sandbox(caller)
        self._creating += 1
        try:
            return (await self._tasks.finish(self._create(name, spec, settings, caller.owner))).info()
        except errors.EngineError as error:
            raise unavailable() from error

    async def _create(self, name: str, spec: SandboxSpec, settings: StoredSettings, owner: str) -> Session:
        try:
            box = await self._client.create_sandbox(spec)
            reached("session-created")
            session = Session(name, settings, box, owner=owner, created_at=time.time(), fresh=True)
            try:
                await self._store.add_session(session.row())
            except BaseException:
                self._client.discard_sandbox(box.id)
                raise
            reached("session-stored")
            self._registry.live[name] = session
            return session
        except BaseException:
            self._quotas.release(settings.key)
            raise
        finally:
            self._creating -= 1

    async def get(self, session_id: str, caller: Caller = LOCAL) -> SessionInfo:
        return (await self._registry.find(session_id, caller)).info()

    def list(self, caller: Caller = LOCAL) -> list[SessionInfo]:
        """The caller's live sessions, oldest first."""
        return [session.info() for session in self._registry.owned(caller)]

    def find(self, metadata: Mapping[str, str], caller: Caller = LOCAL) -> builtins.list[SessionInfo]:
        """The caller's live sessions that have all these labels, oldest first."""
        return [
            session.info()
            for session in self._registry.owned(caller)
            if metadata.items() <= session.settings.metadata.items()
        ]

    def holder(self, session_id: str, token: str) -> tuple[str, str] | None:
        """Owner and key of the live session that has this token; None for every other pair."""
        session = self._registry.live.get(session_id)
        mine = session.settings.token if session is not None else ""
        if not hmac.compare_digest(mine.encode(), token.encode("utf-8", "surrogatepass")) or not mine:
            return None
        assert session is not None
        return session.owner, session.settings.key

    def tokens(self) -> builtins.list[tuple[str, str]]:
        """Ids and tokens of all live sessions that have one, for what is signed with it. To be told to nobody."""
        return [
            (session.id, session.settings.token)
            for session in self._registry.live.values()
            if session.settings.token
        ]

    async def token(self, session_id: str, caller: Caller = LOCAL) -> str:
        """For its owner; empty when it has none."""
        return (await self._registry.find(session_id, caller)).settings.token

    async def env(self, session_id: str, caller: Caller = LOCAL) -> dict[str, str]:
        """A session's environment variables with their values, for its owner."""
        return dict((await self._registry.find(session_id, caller)).settings.env)

    async def change(self, session_id: str, change: SessionChange, caller: Caller = LOCAL) -> SessionInfo:
        """Changes how long a session lives and what it is labelled with; counts as use.

        Raises:
            SessionNotFoundError, SessionEndedError: there is nothing to change.
            InvalidRequestError, QuotaExceededError, UnavailableError: nothing has changed.
        """
        session = await self._registry.find(session_id, caller)
        self._registry.check_open()
        settings = bounds.changed(change, session.settings, session.created_at, self._settings)
        if settings != session.settings:
            await self._store.change_session(session.id, settings.encoded())
            session.settings = settings
        session.touch()
        return session.info()

    async def delete(self, session_id: str, caller: Caller = LOCAL) -> None:
        """Ends a session; returns when nothing is left of it."""
        session = await self._registry.find(session_id, caller)
        await self._tasks.finish(self._registry.end(session, "deleted"))

    async def reap(self) -> None:
        """Ends what has lived long enough, for ever."""
        while True:
            for session in [one for one in self._registry.live.values() if one.expired()]:
                self._tasks.spawn(self._registry.end(session, "expired"))
            await asyncio.sleep(REAP_S)
