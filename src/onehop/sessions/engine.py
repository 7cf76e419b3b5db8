"""The engine: sessions and executions on one supervisor, and the only owner of what runs for them.

Whoever waits here may be cancelled or vanish: what was started goes on, is stored, and can be asked
for again. There is one logic for waiting and for streaming: both look at a `Run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn, cast

from onehop import errors
from onehop.config import MIB, Settings
from onehop.sessions import files, requests
from onehop.sessions.answers import Answer, FileInfo, FileList, SessionInfo
from onehop.sessions.journal import Journal
from onehop.sessions.once import OneShots
from onehop.sessions.recovery import Recovery, follow
from onehop.sessions.requests import ExecuteOnceRequest, ExecuteRequest, SessionRequest
from onehop.sessions.run import EncodedEvent, Run, new_id
from onehop.sessions.session import ENDS, EndReason, Session, StoredSettings, limits_of
from onehop.sessions.tasks import Tasks
from onehop.store import Store
from onehop.supervisor.client import Porter, SupervisorClient
from onehop.supervisor.messages import SandboxSpec

REAP_S = 0.5
PRUNE_S = 600.0
DESTROY_TIMEOUT_S = 10.0
MAX_REMEMBERED_ENDS = 10_000

log = logging.getLogger("onehop.sessions")


RESUMED_WAIT_S = 0.25
"""How long a request waits for the end of an execution that was taken over from a dead gateway."""


class Engine:
    """Use as `async with Engine(settings, client, store) as engine`; sandboxes of sessions outlive it.

    Methods raise ProblemError and its subclasses only.

    Attributes:
        ready: set once it has been entered; before that the supervisor may still be starting.
        lost: set when the supervisor is gone; nothing works any more then.
    """

    def __init__(self, settings: Settings, client: SupervisorClient, store: Store) -> None:
        self.settings = settings
        self.ready = asyncio.Event()
        self.lost = client.lost
        self._client = client
        self._store = store
        self._tasks = Tasks()
        self._journal = Journal(settings, client, store)
        self._one_shots = OneShots(settings, client, self._journal, self._tasks)
        self._sessions: dict[str, Session] = {}
        self._ended: dict[str, EndReason] = {}
        self._creating = 0

    async def __aenter__(self) -> Engine:
        await self._tasks.__aenter__()
        try:
            await self._recover()
        except BaseException:
            await self.__aexit__()
            raise
        self._tasks.spawn(self._reap())
        self.ready.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.__aexit__()
        for session in self._sessions.values():
            session.close_porter()
        self._journal.close()

    async def wait_ready(self) -> None:
        """Returns when it has been entered. Raises UnavailableError when the supervisor is lost before that."""
        waits = {asyncio.ensure_future(event.wait()) for event in (self.ready, self.lost)}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self.ready.is_set():
            raise _unavailable()

    # --- executions ---------------------------------------------------------------------------------

    async def execute(self, session_id: str, request: ExecuteRequest) -> Answer:
        """Runs code in a session and waits for the outcome. Raises what `start` raises."""
        return await (await self.start(session_id, request)).wait()

    async def execute_once(self, request: ExecuteOnceRequest) -> Answer:
        """Runs code in a sandbox of its own and waits for the outcome. Raises what `start_once` raises."""
        return await (await self.start_once(request)).wait()

    async def start(self, session_id: str, request: ExecuteRequest) -> Run:
        """Starts code in a session; the Run's `wait` and `follow` tell how it goes on.

        Raises:
            SessionNotFoundError, SessionEndedError, SessionBusyError: the session cannot take it.
            InvalidRequestError, TooLargeError, QuotaExceededError: the request cannot be run as asked.
            UnavailableError: the supervisor or the database is lost.
        """
        session = self._sessions.get(session_id) or await self._gone(session_id)
        self._check_open()
        spec = requests.execution_spec(request, self.settings, new_id("exe"), grace_s=self.settings.grace_s)
        contents = requests.contents(request, session.workspace_bytes) if request.files else {}
        if session.run is not None and session.run.resumed:
            # Most of what a dead gateway left has ended already; only its end has not been read again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESUMED_WAIT_S):
                    await session.run.wait()
        if session.run is not None:
            raise errors.SessionBusyError(
                "another execution is running in this session; wait for its end or interrupt it",
                execution=session.run.id,
            )
        run = session.run = Run(
            spec.id,
            session.id,
            on_violation=self._violated,
            sandbox=session.sandbox,
            isolation=session.isolation,
        )
        run.when_ended(self._run_ended)
        session.touch()
        try:
            if contents:
                await self._put_files(session, contents)
            self._journal.began(run)
            await self._client.execute(session.sandbox, spec, run.take)
        except asyncio.CancelledError:
            if self._journal.has(run):
                self._tasks.spawn(follow(self._client, run))
            else:
                session.run = None
            raise
        except errors.OnehopError as error:
            self._refused(run, session)
            raise self._translated(error, session) from error
        except BaseException:
            self._refused(run, session)
            raise
        return run

    async def start_once(self, request: ExecuteOnceRequest) -> Run:
        """Starts code in a sandbox of its own, which is discarded at the end.

        Raises:
            TooManyError: as many run as are allowed at once.
            InvalidRequestError, TooLargeError, QuotaExceededError: the request cannot be run as asked.
            UnavailableError: the supervisor or the database is lost.
        """
        self._check_open()
        try:
            return await self._one_shots.start(request)
        except errors.EngineError as error:
            raise _unavailable() from error

    async def interrupt(self, session_id: str) -> bool:
        """Stops what runs and keeps the variables. False when nothing ran."""
        session = self._sessions.get(session_id) or await self._gone(session_id)
        session.touch()
        try:
            return await self._client.interrupt(session.sandbox)
        except errors.OnehopError as error:
            raise self._translated(error, session) from error

    async def get_execution(self, execution_id: str) -> Answer | bytes:
        """The answer, or its JSON as it was stored; status `running` before the end."""
        return await self._journal.answer(execution_id)

    async def events(
        self, execution_id: str, after: int, *, pause_s: float
    ) -> AsyncIterator[list[EncodedEvent]]:
        """Events after number `after`, as they come; an empty list after `pause_s` seconds of none."""
        return await self._journal.events(execution_id, after, pause_s=pause_s)

    # --- sessions -----------------------------------------------------------------------------------

    async def create_session(self, request: SessionRequest, *, owner: str = "") -> SessionInfo:
        """A new session. Raises TooManyError, InvalidRequestError, QuotaExceededError, UnavailableError."""
        self._check_open()
        name = new_id("ses")
        spec = requests.sandbox_spec(request, self.settings, owner=name, one_shot=False)
        idle_timeout_s, max_age_s = requests.lifetime(request, self.settings)
        if len(self._sessions) + self._creating >= self.settings.max_sessions:
            raise errors.TooManyError(
                f"there are {self.settings.max_sessions} sessions already, the most allowed"
            )
        self._creating += 1
        settings = StoredSettings(limits_of(spec), idle_timeout_s, max_age_s)
        try:
            return (await self._tasks.finish(self._create(name, spec, settings, owner))).info()
        except errors.EngineError as error:
            raise _unavailable() from error

    async def _create(self, name: str, spec: SandboxSpec, settings: StoredSettings, owner: str) -> Session:
        try:
            box = await self._client.create_sandbox(spec)
            session = Session(name, settings, box, owner=owner, created_at=time.time(), fresh=True)
            try:
                await self._store.add_session(session.row())
            except BaseException:
                self._one_shots.discard(box.id)
                raise
            self._sessions[name] = session
            return session
        finally:
            self._creating -= 1

    async def get_session(self, session_id: str) -> SessionInfo:
        return (self._sessions.get(session_id) or await self._gone(session_id)).info()

    def list_sessions(self) -> list[SessionInfo]:
        """Live sessions, oldest first."""
        return [session.info() for session in self._sessions.values()]

    async def delete_session(self, session_id: str) -> None:
        """Ends a session; returns when nothing is left of it."""
        session = self._sessions.get(session_id) or await self._gone(session_id)
        await self._tasks.finish(self._end(session, "deleted"))

    # --- files --------------------------------------------------------------------------------------

    async def list_files(self, session_id: str) -> FileList:
        async with self._transfer(session_id) as (_, porter), files.step("list its files"):
            entries, truncated = await porter.list()
        return FileList([FileInfo(entry.path, entry.bytes) for entry in entries], truncated)

    @contextlib.asynccontextmanager
    async def read_file(
        self, session_id: str, path: str
    ) -> AsyncIterator[tuple[FileInfo, AsyncIterator[bytes]]]:
        """The file and its content in chunks, to be read inside the context."""
        requests.check_path(path)
        async with self._transfer(session_id) as (_, porter):
            async with files.step("hand out the file"):
                entry, chunks = await porter.read(path)
            yield FileInfo(entry.path, entry.bytes), files.patient(chunks)

    async def write_file(self, session_id: str, path: str, content: AsyncIterator[bytes]) -> FileInfo:
        """Creates or replaces a file whole; on any error nothing has changed."""
        requests.check_path(path)
        self._check_open()
        async with self._transfer(session_id) as (session, porter):
            entry = await files.write(porter, path, files.at_most(content, session.workspace_bytes))
            session.knows(entry)
            return FileInfo(entry.path, entry.bytes)

    async def delete_file(self, session_id: str, path: str) -> None:
        requests.check_path(path)
        async with self._transfer(session_id) as (session, porter):
            async with files.step("delete the file"):
                await porter.delete(path)
            if session.listing is not None:
                session.listing.pop(path, None)

    async def workspace_limit(self, session_id: str) -> int:
        """The most bytes a file of this session can have."""
        return (self._sessions.get(session_id) or await self._gone(session_id)).workspace_bytes

    @contextlib.asynccontextmanager
    async def _transfer(self, session_id: str) -> AsyncIterator[tuple[Session, Porter]]:
        session = self._sessions.get(session_id) or await self._gone(session_id)
        if session.transfers >= self.settings.max_transfers:
            raise errors.TooManyError(
                f"{session.transfers} file transfers of this session are under way already"
            )
        session.transfers += 1
        try:
            async with await self._client.open_porter(session.sandbox) as porter:
                yield session, porter
        except errors.OnehopError as error:
            raise self._translated(error, session) from error
        finally:
            session.transfers -= 1
            session.touch()

    async def _put_files(self, session: Session, contents: dict[str, bytes]) -> None:
        async with await self._client.open_porter(session.sandbox) as porter:
            for entry in await files.put(porter, contents, session.listing or {}):
                session.knows(entry)

    # --- about the engine ---------------------------------------------------------------------------

    async def describe(self) -> dict[str, Any]:
        """The supervisor's description; see supervisor/server.py."""
        try:
            return await self._client.describe()
        except errors.EngineError as error:
            raise _unavailable() from error

    def statistics(self) -> dict[str, int]:
        return {"sessions": len(self._sessions), **self._journal.statistics()}

    # --- the end of an execution ----------------------------------------------------------------------

    def _run_ended(self, run: Run) -> None:
        end = run.end
        assert end is not None
        assert run.session is not None
        session = self._sessions.get(run.session)
        if session is not None and end.workspace_used and end.session == "alive":
            self._tasks.spawn(self._list_changes(run, session))
        else:
            self._complete(run, session, [])

    async def _list_changes(self, run: Run, session: Session) -> None:
        assert run.end is not None
        changes: list[FileInfo] = []
        truncated = True
        try:
            async with asyncio.timeout(files.LISTING_TIMEOUT_S):
                try:
                    if session.porter is None:
                        session.porter = await self._client.open_porter(session.sandbox)
                    entries, truncated = await session.porter.list()
                except (
                    errors.UnavailableError
                ):  # the porter of an earlier execution may have been killed since
                    session.close_porter()
                    session.porter = await self._client.open_porter(session.sandbox)
                    entries, truncated = await session.porter.list()
            if session.listing is None and not run.start_known:
                truncated = True  # nothing to compare with
            else:
                spill_file = run.end.spill_file
                changes = files.changed(
                    entries, session.listing, since_s=run.started_at, leave_out=spill_file
                )
            session.listing = {entry.path: entry for entry in entries}
        except (errors.OnehopError, TimeoutError) as error:
            session.close_porter()
            log.warning("%s: its files could not be listed: %r", session.id[:12], error)
        finally:
            self._complete(run, session, changes, truncated=truncated)

    def _complete(
        self, run: Run, session: Session | None, changes: list[FileInfo], *, truncated: bool = False
    ) -> None:
        end = run.end
        assert end is not None
        if session is not None:
            session.touch()
            if session.run is run:
                session.run = None
            if end.session == "ended":
                self._mark_ended(session, cast(EndReason, end.status))
                self._one_shots.discard(session.sandbox)
        run.complete(changes, files_truncated=truncated)
        self._journal.ended(run)

    def _refused(self, run: Run, session: Session) -> None:
        if session.run is run:
            session.run = None
        self._journal.refused(run)

    def _violated(self, run: Run) -> None:
        self._one_shots.discard(run.sandbox)

    # --- the end of a session -------------------------------------------------------------------------

    async def _end(self, session: Session, reason: EndReason) -> None:
        """Ends a session; returns when its sandbox is gone."""
        if not self._mark_ended(session, reason):
            return
        try:
            async with asyncio.timeout(DESTROY_TIMEOUT_S):
                await self._client.destroy_sandbox(session.sandbox)
        except errors.OnehopError:
            pass  # gone already, or lost with the supervisor
        except TimeoutError:
            log.error("%s: its sandbox is not gone after %g s", session.id[:12], DESTROY_TIMEOUT_S)
        if session.run is not None:
            session.run.lose("killed", "the session was ended while it ran", ends=True)

    def _mark_ended(self, session: Session, reason: EndReason) -> bool:
        """False when it has ended already."""
        if self._sessions.pop(session.id, None) is None:
            return False
        session.close_porter()
        self._remember_end(session.id, reason)
        return True

    def _remember_end(self, session_id: str, reason: EndReason) -> None:
        self._ended[session_id] = reason
        if len(self._ended) > MAX_REMEMBERED_ENDS:
            del self._ended[next(iter(self._ended))]
        self._store.end_session(session_id, reason)

    async def _gone(self, session_id: str) -> NoReturn:
        """Raises what there is to say about a session that is not alive."""
        reason: str | None = self._ended.get(session_id)
        if reason is None:
            row = await self._store.session(session_id) if session_id.startswith("ses_") else None
            if row is None or row.reason is None:
                raise errors.SessionNotFoundError("there is no such session")
            reason = row.reason
        raise _ended(reason)

    async def _reap(self) -> None:
        pruned_s = -PRUNE_S
        while True:
            for session in [one for one in self._sessions.values() if one.expired()]:
                self._tasks.spawn(self._end(session, "expired"))
            if time.monotonic() - pruned_s > PRUNE_S:
                pruned_s = time.monotonic()
                self._store.prune(
                    before=time.time() - self.settings.retention_days * 86400,
                    limit_bytes=self.settings.retention_mb * MIB,
                )
            await asyncio.sleep(REAP_S)

    async def _recover(self) -> None:
        recovery = Recovery(
            self._client, self._store, self._journal, on_end=self._run_ended, on_violation=self._violated
        )
        alive, lost = await recovery.run()
        self._sessions.update((session.id, session) for session in alive)
        recovery.hand_over()
        for session_id in lost:
            self._remember_end(session_id, "restarted")

    # --- refusals -------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.lost.is_set():
            raise _unavailable()
        self._store.check_writable()

    def _translated(self, error: errors.OnehopError, session: Session) -> errors.OnehopError:
        """What an error of the supervisor means to the session's user."""
        if isinstance(error, errors.EngineError):
            return _unavailable()
        if isinstance(error, errors.SessionNotFoundError):
            self._mark_ended(session, "killed")  # the sandbox died between two executions
        if session.id not in self._sessions and not isinstance(error, errors.InvalidRequestError):
            return _ended(self._ended.get(session.id, "killed"))
        return error


def _unavailable() -> errors.UnavailableError:
    return errors.UnavailableError(
        "the engine has lost its supervisor and starts again; try again in a moment"
    )


def _ended(reason: str) -> errors.SessionEndedError:
    return errors.SessionEndedError(ENDS.get(reason, "the session has ended"), reason=reason)
