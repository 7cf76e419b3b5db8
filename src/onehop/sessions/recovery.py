"""What a new gateway takes over from one that is gone: sessions, running executions, results nobody stored.

Sessions whose sandbox lives go on; the others are closed in the store. A sandbox that nobody knows is
discarded once its executions are stored. Nothing here waits for an execution to end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from onehop.crash import reached
from onehop.errors import EngineError, ExecutionNotFoundError
from onehop.sessions.caller import parsed_label
from onehop.sessions.journal import Journal
from onehop.sessions.run import Run
from onehop.sessions.session import EndReason, Session, key_of, restored
from onehop.sessions.tooling import Tooling
from onehop.store import SessionRow, Store, StoredExecution
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import ExecutionInfo, SandboxInfo


class Recovery:
    """One pass at the start of an engine.

    Args:
        on_end: what the engine does at the end of a session's execution.
        on_violation: what it does with a sandbox that breaks the protocol.
    """

    def __init__(
        self,
        client: SupervisorClient,
        store: Store,
        journal: Journal,
        *,
        on_end: Callable[[Run], None],
        on_violation: Callable[[Run], None],
        tooling: Tooling,
    ) -> None:
        self._tooling = tooling
        self._client = client
        self._store = store
        self._journal = journal
        self._on_end = on_end
        self._on_violation = on_violation
        self._in_sessions: list[tuple[Session, Run]] = []

    async def run(self) -> tuple[list[Session], list[tuple[SessionRow, EndReason]]]:
        """The sessions that go on, and those that are lost, with the reason."""
        boxes = {box.id: box for box in await self._client.sandboxes()}
        kept = {one.id: one for one in await self._client.executions()}
        reasons = {one.owner: one.ended_session for one in kept.values() if one.ended_session}
        unfinished = {row.id: row for row in await self._store.running()}
        alive: list[Session] = []
        lost: list[tuple[SessionRow, EndReason]] = []
        for row in await self._store.live_sessions():
            box = boxes.get(row.sandbox)
            if box is None or box.owner != row.id:
                lost.append((row, cast(EndReason, reasons.get(row.id, "restarted"))))
                continue
            del boxes[box.id]
            session = restored(row, box)
            alive.append(session)
            # What runs comes last: it has the place in the session that earlier ones have left.
            for execution in sorted(box.executions, key=set(box.running).__contains__):
                place = box.places.get(execution, "main")
                about = kept.pop(execution, None)
                await self._resume_in_session(execution, place, session, unfinished, about)
        reached("recovery-half-done")
        for box in boxes.values():
            followed = [
                await self._resume_alone(execution, unfinished, kept.get(execution), box)
                for execution in box.executions
            ]
            for execution in box.executions:
                kept.pop(execution, None)
            # A session that has an end in the store was being deleted: what runs in it ends with it.
            if not any(followed) or not box.one_shot:
                self._client.discard_sandbox(box.id)
        # No sandbox is left of the others; the supervisor still has the events of those it kept.
        for execution in dict.fromkeys([*unfinished, *kept]):
            await self._resume_alone(execution, unfinished, kept.get(execution), None)
        return alive, lost

    async def _resume_in_session(
        self,
        execution: str,
        place: str,
        session: Session,
        unfinished: dict[str, StoredExecution],
        kept: ExecutionInfo | None,
    ) -> None:
        if await self._settled(execution, unfinished):
            return
        row = unfinished.pop(execution, None)
        run = Run(
            execution,
            session.id,
            owner=session.owner,
            key=row.key if row is not None else session.settings.key,
            context=place,
            on_violation=self._on_violation,
            sandbox=session.sandbox,
            isolation=session.isolation,
        )
        run.resumed = True
        session.runs[run.context] = run
        self._in_sessions.append((session, run))
        await self._follow(run, row, kept)

    def hand_over(self) -> None:
        """The engine knows the sessions now: it is told of ends, also of those that came meanwhile."""
        for session, run in self._in_sessions:
            run.when_ended(self._on_end if session.runs.get(run.context) is run else self._earlier_ended)

    def _earlier_ended(self, run: Run) -> None:
        """A later execution has changed the files since: which ones this one changed cannot be told."""
        run.complete([], files_truncated=True)
        self._journal.ended(run)

    async def _resume_alone(
        self,
        execution: str,
        unfinished: dict[str, StoredExecution],
        kept: ExecutionInfo | None,
        box: SandboxInfo | None,
    ) -> bool:
        if await self._settled(execution, unfinished):
            return False
        row = unfinished.pop(execution, None)
        if row is not None:
            session, owner, key = row.session, row.owner, row.key
        else:
            session, owner, key = await self._whose(kept)
        run = Run(
            execution,
            session,
            owner=owner,
            key=key,
            on_violation=self._on_violation,
            sandbox=box.id if box is not None else "",
            isolation=kept.isolation if kept is not None else {},
        )
        run.when_ended(self._alone_ended)
        await self._follow(run, row, kept)
        return True

    async def _whose(self, kept: ExecutionInfo | None) -> tuple[str | None, str, str]:
        """Session, owner and key of an execution that the last gateway had no time to write down."""
        if kept is None or kept.one_shot:
            return None, *parsed_label(kept.owner if kept is not None else "")
        row = await self._store.session(kept.owner)
        if row is None:
            return kept.owner, "", ""
        return kept.owner, row.owner, key_of(row)

    async def _settled(self, execution: str, unfinished: dict[str, StoredExecution]) -> bool:
        """True when the last gateway stored it and had no time to say so."""
        if execution in unfinished or await self._store.execution(execution) is None:
            return False
        self._journal.acknowledge(execution)
        return True

    async def _follow(self, run: Run, row: StoredExecution | None, kept: ExecutionInfo | None) -> None:
        if kept is not None:
            self._tooling.resume(run, kept.context_data, kept.events)
        if row is not None:
            run.started_at = row.started_at
        else:
            run.start_known = False
        self._journal.resumed(run)
        await follow(self._client, run)

    def _alone_ended(self, run: Run) -> None:
        if run.sandbox:
            try:
                self._client.discard_sandbox(run.sandbox)
            except EngineError:
                pass  # it went with the supervisor
        run.complete([])
        self._journal.ended(run)


async def follow(client: SupervisorClient, run: Run) -> None:
    """Listens to an execution again, from the first event on that `run` has not seen."""
    try:
        await client.attach(run.id, run.take, after=run.seen)
    except ExecutionNotFoundError:
        run.lose(
            "outcome_unknown",
            "the engine was started again while it ran, and its outcome is not known",
            ends=not run.sandbox,
        )
    except EngineError:
        run.take(None)
