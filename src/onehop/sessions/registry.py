"""The live sessions and how the others ended: who looks for a session finds it here, if it is theirs.

A session ends once, whoever is first to say so; after that everybody gets the same reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from onehop import errors
from onehop.crash import reached
from onehop.sessions.caller import Caller
from onehop.sessions.quotas import Quotas
from onehop.sessions.session import ENDS, EndReason, Session
from onehop.store import Store
from onehop.supervisor.client import SupervisorClient

DESTROY_TIMEOUT_S = 10.0
MAX_REMEMBERED_ENDS = 10_000

log = logging.getLogger("onehop.sessions")


def unavailable() -> errors.UnavailableError:
    return errors.UnavailableError(
        "the engine has lost its supervisor and starts again; try again in a moment"
    )


def _ended(reason: str) -> errors.SessionEndedError:
    return errors.SessionEndedError(ENDS.get(reason, "the session has ended"), reason=reason)


class Registry:
    def __init__(self, client: SupervisorClient, store: Store, quotas: Quotas) -> None:
        self.live: dict[str, Session] = {}
        self._client = client
        self._store = store
        self._quotas = quotas
        self._ended: dict[str, tuple[EndReason, str]] = {}
        """By id: why it ended, and its owner."""

    async def find(self, session_id: str, caller: Caller) -> Session:
        """The caller's live session. Raises SessionNotFoundError, SessionEndedError."""
        session = self.live.get(session_id)
        if session is not None and session.owner == caller.owner:
            return session
        raise await self._gone(session_id, caller)

    async def _gone(self, session_id: str, caller: Caller) -> errors.ProblemError:
        reason: str | None
        reason, owner = self._ended.get(session_id, (None, ""))
        if reason is None and session_id not in self.live and session_id.startswith("ses_"):
            row = await self._store.session(session_id)
            if row is not None:
                reason, owner = row.reason, row.owner
        if reason is None or owner != caller.owner:
            return errors.SessionNotFoundError("there is no such session")
        return _ended(reason)

    @contextlib.asynccontextmanager
    async def using(self, session_id: str, caller: Caller) -> AsyncIterator[Session]:
        """The caller's live session; what the supervisor refuses within is told in the user's words."""
        session = await self.find(session_id, caller)
        try:
            yield session
        except errors.OnehopError as error:
            raise self.translated(error, session) from error

    def owned(self, caller: Caller) -> list[Session]:
        """Live sessions of the caller, oldest first."""
        return [session for session in self.live.values() if session.owner == caller.owner]

    def check_open(self) -> None:
        """Raises UnavailableError, QuotaExceededError when nothing new can be begun."""
        if self._client.lost.is_set():
            raise unavailable()
        self._store.check_writable()

    # --- ends ---------------------------------------------------------------------------------------

    async def end(self, session: Session, reason: EndReason) -> None:
        """Ends a session; returns when its sandbox is gone."""
        if not self.mark_ended(session, reason):
            return
        with contextlib.suppress(errors.OnehopError):  # on a full disk it ends all the same
            # Written first: whatever dies now, nobody hears that a session was lost which somebody deleted.
            await self._store.flush()
        reached("session-ending")
        try:
            async with asyncio.timeout(DESTROY_TIMEOUT_S):
                await self._client.destroy_sandbox(session.sandbox)
        except errors.OnehopError:
            pass  # gone already, or lost with the supervisor
        except TimeoutError:
            log.error(
                "%s: its sandbox is not gone after %g s",
                session.id[:24],
                DESTROY_TIMEOUT_S,
                extra={"session": session.id},
            )
        for run in list(session.runs.values()):
            run.lose("killed", "the session was ended while it ran", ends=True)
        reached("session-gone")

    def mark_ended(self, session: Session, reason: EndReason) -> bool:
        """False when it has ended already."""
        if self.live.pop(session.id, None) is None:
            return False
        session.close_porter()
        self._quotas.release(session.settings.key)
        self.remember_end(session.id, session.owner, reason)
        return True

    def remember_end(self, session_id: str, owner: str, reason: EndReason) -> None:
        self._ended[session_id] = (reason, owner)
        if len(self._ended) > MAX_REMEMBERED_ENDS:
            del self._ended[next(iter(self._ended))]
        self._store.end_session(session_id, reason)

    # --- refusals of the supervisor ---------------------------------------------------------------------

    def translated(self, error: errors.OnehopError, session: Session) -> errors.OnehopError:
        """What an error of the supervisor means to the session's user."""
        if isinstance(error, errors.EngineError):
            return unavailable()
        if isinstance(error, errors.SessionNotFoundError):
            self.mark_ended(session, "killed")  # the sandbox died between two executions
        if session.id not in self.live and not isinstance(error, errors.InvalidRequestError):
            reason, _ = self._ended.get(session.id, ("killed", ""))
            return _ended(reason)
        return error
