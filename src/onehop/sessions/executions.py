"""Executions in sessions: started, followed to their end, and what they changed found out.

Whoever waits for one may vanish: what was started goes on and is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

from onehop import errors
from onehop.config import Settings
from onehop.crash import reached
from onehop.sessions import bounds, files
from onehop.sessions.answers import Answer, FileInfo
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.calls import MAX_LISTED, ToolAnswer
from onehop.sessions.journal import Journal
from onehop.sessions.once import OneShots
from onehop.sessions.quotas import Quotas
from onehop.sessions.recovery import follow
from onehop.sessions.registry import Registry, unavailable
from onehop.sessions.requests import CommandRequest, ExecuteOnceRequest, ExecuteRequest
from onehop.sessions.run import COMMAND, EncodedEvent, Run, new_id
from onehop.sessions.session import EndReason, Session
from onehop.sessions.tasks import Tasks
from onehop.sessions.tooling import Tooling
from onehop.store import ToolCallRow
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import ExecutionSpec

RESUMED_WAIT_S = 0.25
"""How long a request waits for the end of an execution that was taken over from a dead gateway."""

log = logging.getLogger("onehop.sessions")


class Executions:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(
        self,
        settings: Settings,
        client: SupervisorClient,
        registry: Registry,
        journal: Journal,
        tasks: Tasks,
        quotas: Quotas,
        tooling: Tooling,
    ) -> None:
        self._settings = settings
        self._client = client
        self._registry = registry
        self._journal = journal
        self._tasks = tasks
        self._quotas = quotas
        self._tooling = tooling
        self._one_shots = OneShots(settings, client, journal, tasks, quotas, tooling)

    async def start(
        self, session_id: str, request: ExecuteRequest, caller: Caller = LOCAL, *, name: str = ""
    ) -> Run:
        """Starts code in a session; the Run's `wait` and `follow` tell how it goes on.

        Args:
            name: its id, where one was promised already.

        Raises:
            SessionNotFoundError, SessionEndedError, SessionBusyError: the session cannot take it.
            InvalidRequestError, TooLargeError, QuotaExceededError: the request cannot be run as asked.
            TooManyError: the key is over a limit.
            UnavailableError: the supervisor or the database is lost.
        """
        registry = self._registry
        session = await registry.find(session_id, caller)
        registry.check_open()
        spec = bounds.execution_spec(
            request, self._settings, name or new_id("exe"), grace_s=self._settings.grace_s
        )
        if spec.imports is None:
            spec.imports = session.settings.imports
        if session.settings.env:
            spec.env = {**session.settings.env, **spec.env}
        toolset = self._tooling.toolset(request, session.settings.tools, caller, spec)
        contents = bounds.contents(request, session.workspace_bytes) if request.files else {}
        context = request.context
        before = session.runs.get(context)
        if before is not None and before.resumed:
            # Most of what a dead gateway left has ended already; only its end has not been read again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESUMED_WAIT_S):
                    await before.wait()
        before = session.runs.get(context)
        if before is not None:
            raise errors.SessionBusyError(
                f"another execution is running in the context {context!r}; wait for its end or interrupt it",
                execution=before.id,
            )
        self._quotas.admit(caller, spec)

        async def send(run: Run) -> None:
            self._tooling.equip(run, toolset)
            if contents:
                await self._put_files(session, contents)
            self._journal.began(run)
            reached("execution-claimed")
            await self._client.execute(session.sandbox, spec, run.take, kernel=context)

        return await self._begin(session, spec, context, caller, send)

    async def start_in_turn(self, session_id: str, request: ExecuteRequest, caller: Caller = LOCAL) -> Run:
        """Like `start`; while another execution runs in the context it waits for that one's end."""
        while True:
            try:
                return await self.start(session_id, request, caller)
            except errors.SessionBusyError as busy:
                before = await self._journal.run(busy.extra["execution"], caller)
            if before is not None:
                await asyncio.shield(before.done)
            await asyncio.sleep(0)

    async def start_command(
        self, session_id: str, request: CommandRequest, caller: Caller = LOCAL, *, name: str = ""
    ) -> Run:
        """Starts a shell command in a session. It runs beside code and other commands.

        Args:
            name: its id, where one was promised already.

        Raises:
            SessionNotFoundError, SessionEndedError: there is no such session.
            InvalidRequestError, TooLargeError: the request cannot be run as asked.
            TooManyError: as many run as are allowed at once, or the key is over a limit.
            UnavailableError: the supervisor or the database is lost.
        """
        session = await self._registry.find(session_id, caller)
        self._registry.check_open()
        spec = bounds.command_spec(request, self._settings, name or new_id("exe"))
        if session.settings.env:
            spec.env = {**session.settings.env, **spec.env}
        if session.commands() >= self._settings.max_commands:
            raise errors.TooManyError(f"{session.commands()} commands run in this session already")
        self._quotas.admit(caller, spec)

        async def send(run: Run) -> None:
            self._journal.began(run)
            reached("execution-claimed")
            await self._client.command(
                session.sandbox,
                spec,
                run.take,
                cwd=request.cwd,
                stdin_open=request.stdin_open,
                background=request.background,
            )

        return await self._begin(session, spec, COMMAND + spec.id, caller, send)

    async def _begin(
        self,
        session: Session,
        spec: ExecutionSpec,
        place: str,
        caller: Caller,
        send: Callable[[Run], Awaitable[None]],
    ) -> Run:
        run = session.runs[place] = Run(
            spec.id,
            session.id,
            owner=session.owner,
            key=caller.key,
            context=place,
            on_violation=self.violated,
            sandbox=session.sandbox,
            isolation=session.isolation,
        )
        run.when_ended(self.run_ended)
        session.touch()
        try:
            await send(run)
        except asyncio.CancelledError:
            if self._journal.has(run):
                self._tasks.spawn(follow(self._client, run))
            else:
                session.forget(run)
            raise
        except errors.OnehopError as error:
            self._refused(run, session)
            raise self._registry.translated(error, session) from error
        except BaseException:
            self._refused(run, session)
            raise
        reached("execution-started")
        return run

    async def start_once(self, request: ExecuteOnceRequest, caller: Caller = LOCAL, *, name: str = "") -> Run:
        """Starts code in a sandbox of its own, which is discarded at the end.

        Args:
            name: the execution's id, where one was promised already.

        Raises:
            TooManyError: as many run as are allowed at once.
            InvalidRequestError, TooLargeError, QuotaExceededError: the request cannot be run as asked.
            UnavailableError: the supervisor or the database is lost.
        """
        self._registry.check_open()
        try:
            return await self._one_shots.start(request, caller, name or new_id("exe"))
        except errors.EngineError as error:
            raise unavailable() from error

    async def interrupt(self, session_id: str, caller: Caller = LOCAL, *, context: str = "main") -> bool:
        """Stops what runs in a context and keeps the variables. False when nothing ran."""
        session = await self._registry.find(session_id, caller)
        session.touch()
        try:
            return await self._client.interrupt(session.sandbox, kernel=context)
        except errors.OnehopError as error:
            raise self._registry.translated(error, session) from error

    async def stop(self, run: Run) -> None:
        """Nobody waits for it any more and it was asked not to go on then: as `interrupt`, alone it is killed."""
        if run.end is not None:
            return
        if run.session is None:
            self.discard(run.sandbox)
            return
        with contextlib.suppress(errors.OnehopError):  # then it has ended
            await self._client.interrupt(run.sandbox, kernel=run.context)

    async def tool_results(
        self, execution_id: str, answers: list[ToolAnswer], caller: Caller = LOCAL
    ) -> tuple[Run, int]:
        """Answers pending calls of an execution, which goes on.

        Returns:
            The execution, and the number of its last event before that.

        Raises:
            ExecutionNotFoundError: there is none.
            CallNotPendingError: a call waits for nothing; none of the answers was used.
            InvalidRequestError: what is given is no answer; none of them was used.
        """
        run = await self._journal.run(execution_id, caller)
        if run is None or run.calls is None or run.end is not None:
            raise errors.CallNotPendingError(
                "the execution has ended, or has no tools: no call of it waits for a result"
            )
        last = len(run.events)
        run.calls.submit(answers)
        if run.session is not None and (session := self._registry.live.get(run.session)) is not None:
            session.touch()
        return run, last

    async def tool_calls(
        self, execution_id: str, caller: Caller = LOCAL, *, after: int = 0
    ) -> list[ToolCallRow]:
        """Calls that have ended, of numbers after `after`, at most 1000. Raises ExecutionNotFoundError."""
        return await self._journal.tool_calls(execution_id, after, MAX_LISTED, caller)

    async def running(self, execution_id: str, caller: Caller = LOCAL) -> Run | None:
        """One that has not been stored yet; None for one that has. Raises ExecutionNotFoundError."""
        return await self._journal.run(execution_id, caller)

    async def answer(
        self, execution_id: str, caller: Caller = LOCAL, *, wait_s: float = 0.0
    ) -> Answer | bytes:
        """The answer, or its JSON as it was stored; status `running` before the end.

        Args:
            wait_s: seconds to wait for the end.
        """
        return await self._journal.answer(execution_id, caller, wait_s=wait_s)

    async def events(
        self, execution_id: str, after: int, caller: Caller = LOCAL, *, pause_s: float
    ) -> AsyncIterator[list[EncodedEvent]]:
        """Events after number `after`, as they come; an empty list after `pause_s` seconds of none."""
        return await self._journal.events(execution_id, after, caller, pause_s=pause_s)

    async def _put_files(self, session: Session, contents: dict[str, bytes]) -> None:
        async with await self._client.open_porter(session.sandbox) as porter:
            for entry in await files.put(porter, contents, session.listing or {}):
                session.knows(entry)

    # --- the end of an execution ----------------------------------------------------------------------

    def run_ended(self, run: Run) -> None:
        """The terminal event of an execution in a session has come."""
        end = run.end
        assert end is not None
        assert run.session is not None
        session = self._registry.live.get(run.session)
        if session is not None and end.workspace_used and end.session == "alive":
            self._tasks.spawn(self._list_changes(run, session))
        else:
            self._complete(run, session, [])

    async def _list_changes(self, run: Run, session: Session) -> None:
        assert run.end is not None
        changes: list[FileInfo] = []
        truncated = True
        try:
            async with asyncio.timeout(files.LISTING_TIMEOUT_S), session.listing_lock:
                try:
                    if session.porter is None:
                        session.porter = await self._client.open_porter(session.sandbox)
                    entries, truncated = await session.porter.list()
                except errors.UnavailableError:
                    # the porter of an earlier execution may have been killed since
                    session.close_porter()
                    session.porter = await self._client.open_porter(session.sandbox)
                    entries, truncated = await session.porter.list()
            if session.listing is None and not run.start_known:
                truncated = True  # nothing to compare with
            else:
                changes = files.changed(
                    entries, session.listing, since_s=run.started_at, leave_out=run.end.spill_file
                )
            session.listing = {entry.path: entry for entry in entries}
        except (errors.OnehopError, TimeoutError) as error:
            session.close_porter()
            log.warning(
                "%s: its files could not be listed: %r",
                session.id[:24],
                error,
                extra={"session": session.id, "execution": run.id},
            )
        finally:
            self._complete(run, session, changes, truncated=truncated)

    def _complete(
        self, run: Run, session: Session | None, changes: list[FileInfo], *, truncated: bool = False
    ) -> None:
        end = run.end
        assert end is not None
        if session is not None:
            session.touch()
            session.forget(run)
            if end.session == "ended":
                reason = "restarted" if end.status == "outcome_unknown" else end.status
                self._registry.mark_ended(session, cast(EndReason, reason))
                self.discard(session.sandbox)
        run.complete(changes, files_truncated=truncated)
        self._journal.ended(run)

    def _refused(self, run: Run, session: Session) -> None:
        session.forget(run)
        self._journal.refused(run)

    def violated(self, run: Run) -> None:
        """A kernel sent what cannot be read: its sandbox is not trusted further."""
        self.discard(run.sandbox)

    def discard(self, sandbox: str) -> None:
        """Ends a sandbox without waiting for it."""
        try:
            self._client.discard_sandbox(sandbox)
        except errors.EngineError:
            pass  # it went with the supervisor
