"""The one thread that writes to the database, in batches. It must never make a request wait for a commit.

An execution is written when it starts and when it ends; one that ends within the same batch is
written once. What cannot be written stays in the batch and is tried again; meanwhile `problem` says
why, and the engine refuses new work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from onehop.crash import reached
from onehop.store import usage
from onehop.store.database import is_full
from onehop.store.records import Claim, Finished, SessionRow, ToolCallRow
from onehop.store.tables import executions, idempotency, sessions, tool_calls

RETRY_S = 1.0
PRUNE_ROWS = 200

log = logging.getLogger("onehop.store")

Job = Callable[[Connection], None]


class Batch:
    """What is to be committed next."""

    def __init__(self) -> None:
        self.started: dict[str, dict[str, Any]] = {}
        self.withdrawn: set[str] = set()
        self.finished: dict[str, Finished] = {}
        self.calls: dict[tuple[str, int], ToolCallRow] = {}
        self.jobs: list[tuple[Job, Future[None] | None]] = []

    def __bool__(self) -> bool:
        return bool(self.started or self.withdrawn or self.finished or self.calls or self.jobs)


class Writer:
    """Methods may be called from any thread; what they leave is written after the next `wake`.

    Args:
        on_stored: called on the writer's thread with the ids of executions whose results are committed.
    """

    def __init__(self, engine: Engine, on_stored: Callable[[list[str]], None], running: set[str]) -> None:
        self.problem = ""
        """Empty, `full` or `failed`."""
        self.waiting_since_s: float | None = None
        """Monotonic time from which on there was something that is not committed yet."""
        self._engine = engine
        self._on_stored = on_stored
        self._queue: deque[tuple[str, Any]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._batch = Batch()
        self._in_database = running
        """Executions with a row that says `running`."""
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def started(self, execution: str, owner: str, session: str | None, started_at: float, key: str) -> None:
        row = {"id": execution, "owner": owner, "session": session, "started_at": started_at, "key": key}
        self._queue.append(("started", row))

    def withdrawn(self, execution: str) -> None:
        """The execution was refused before it began: there is nothing to remember."""
        self._queue.append(("withdrawn", execution))

    def finished(self, record: Finished) -> None:
        self._queue.append(("finished", record))

    def called(self, row: ToolCallRow) -> None:
        self._queue.append(("called", row))

    def job(self, job: Job, *, wait: bool = False) -> Future[None] | None:
        """Another statement. With `wait` a failure drops it and is raised by the future."""
        future: Future[None] | None = None
        if wait:
            future = Future()
            # From now on nobody can cancel it: its waiter may go, its result still has a place to be put.
            future.set_running_or_notify_cancel()
        self._queue.append(("job", (job, future)))
        return future

    def claim(self, claim: Claim, found: list[Claim]) -> Job:
        """Takes a key, or leaves in `found` who has it."""

        def job(connection: Connection) -> None:
            found.clear()
            query = select(idempotency).where(_is(claim))
            row = connection.execute(query).one_or_none()
            if row is not None:
                found.append(Claim(row.owner, row.key, row.request, row.made, row.created_at, None))
                return
            connection.execute(
                insert(idempotency).values(
                    owner=claim.owner,
                    key=claim.key,
                    request=claim.request,
                    made=claim.made,
                    created_at=claim.created_at,
                )
            )
            if claim.made.startswith("exe_"):
                started = {
                    "id": claim.made,
                    "owner": claim.owner,
                    "session": claim.session,
                    "key": claim.asked_by,
                }
                connection.execute(
                    insert(executions).values(
                        **started, started_at=claim.created_at, status="running", stored_bytes=0
                    )
                )
                self._in_database.add(claim.made)

        return job

    def unclaim(self, claim: Claim) -> Job:
        def job(connection: Connection) -> None:
            made = idempotency.c.made == claim.made
            connection.execute(delete(idempotency).where(_is(claim), made))
            running = executions.c.status == "running"
            connection.execute(delete(executions).where(executions.c.id == claim.made, running))
            self._in_database.discard(claim.made)

        return job

    def wake(self) -> None:
        """Write now. Waking a thread costs more than all else here: it is not for every execution."""
        self._wake.set()

    def close(self, timeout_s: float = 3.0) -> None:
        """Writes what is left, once."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._engine.connect() as connection:
            while True:
                self._wake.wait(RETRY_S if self._batch else None)
                self._wake.clear()
                self._drain()
                if self._batch:
                    self.waiting_since_s = self.waiting_since_s or time.monotonic()
                    self._commit(connection)
                if self._closing and not self._queue:
                    break
        if self._batch:
            log.error("%d results could not be stored", len(self._batch.finished))

    def _drain(self) -> None:
        batch = self._batch
        while self._queue:
            kind, value = self._queue.popleft()
            if kind == "finished":
                batch.started.pop(value.id, None)
                batch.finished[value.id] = value
            elif kind == "called":
                batch.calls[value.execution, value.number] = value
            elif kind == "started":
                batch.started[value["id"]] = value
            elif kind == "withdrawn":
                if batch.started.pop(value, None) is None:
                    batch.withdrawn.add(value)
            else:
                batch.jobs.append(value)

    def _commit(self, connection: Connection) -> None:
        batch = self._batch
        try:
            for job, _ in batch.jobs:
                job(connection)
            written = self._write_executions(connection, batch)
            reached("before-commit")
            connection.commit()
            reached("after-commit")
        except DBAPIError as error:
            connection.rollback()
            self.problem = "full" if is_full(error) else "failed"
            log.error("the database cannot be written: %s", error.orig)
            for _, future in batch.jobs:
                if future is not None:
                    future.set_exception(error)
            batch.jobs = [(job, future) for job, future in batch.jobs if future is None]
            return
        except Exception as error:  # a statement's own defect must not end the thread that stores everything
            connection.rollback()
            log.exception("a statement of %d failed; none of them is repeated", len(batch.jobs))
            for _, future in batch.jobs:
                if future is not None:
                    future.set_exception(error)
            if not batch.jobs:
                self.problem = "failed"
            batch.jobs = []
            return
        if self.problem:
            log.warning("the database can be written again")
        self.problem = ""
        self.waiting_since_s = None
        self._batch = Batch()
        self._in_database.update(batch.started)
        self._in_database.difference_update(batch.finished, batch.withdrawn)
        for _, future in batch.jobs:
            if future is not None:
                future.set_result(None)
        if written:
            self._on_stored(written)

    def _write_executions(self, connection: Connection, batch: Batch) -> list[str]:
        if batch.started:
            fresh = [
                {**row, "status": "running", "stored_bytes": 0}
                for row in batch.started.values()
                if row["id"] not in self._in_database
            ]
            if fresh:
                connection.execute(insert(executions), fresh)
        if batch.withdrawn:
            connection.execute(delete(executions).where(executions.c.id.in_(batch.withdrawn)))
        inserts, updates = [], []
        for record in batch.finished.values():
            row = _row(record)
            if record.id in self._in_database:
                updates.append({"execution": record.id, **{name: row[name] for name in _RESULT}})
            else:
                inserts.append(row)
        if inserts:
            connection.execute(insert(executions), inserts)
        if updates:
            connection.execute(_UPDATE, updates)
        if batch.calls:
            _write_calls(connection, list(batch.calls.values()))
        if batch.finished:
            usage.count(connection, batch.finished.values())
        return list(batch.finished)


_CALL = tuple(field.name for field in fields(ToolCallRow))


def _write_calls(connection: Connection, rows: list[ToolCallRow]) -> None:
    """A call that a gateway before us has written, and could not tell the supervisor of, is left as it is."""
    table = tool_calls.c
    numbers = [row.number for row in rows]
    written = connection.execute(
        select(table.execution, table.number).where(
            table.execution.in_({row.execution for row in rows}),
            table.number.between(min(numbers), max(numbers)),
        )
    )
    known = {(execution, number) for execution, number in written}
    # Not asdict: it copies deeply, which costs more than the insert.
    fresh = [
        {name: getattr(row, name) for name in _CALL}
        for row in rows
        if (row.execution, row.number) not in known
    ]
    if fresh:
        connection.execute(insert(tool_calls), fresh)


_RESULT = ("status", "ended_at", "document", "events", "stored_bytes", "key")
_UPDATE = (
    update(executions)
    .where(executions.c.id == bindparam("execution"))
    .values({name: bindparam(name) for name in _RESULT})
)


def _row(record: Finished) -> dict[str, Any]:
    document, events = record.encode()
    return {
        "id": record.id,
        "owner": record.owner,
        "session": record.session,
        "status": record.status,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "document": document,
        "events": events,
        "stored_bytes": len(document) + len(events),
        "key": record.key,
    }


def _is(claim: Claim) -> ColumnElement[bool]:
    return and_(idempotency.c.owner == claim.owner, idempotency.c.key == claim.key)


def add_session(row: SessionRow) -> Job:
    def job(connection: Connection) -> None:
        connection.execute(
            insert(sessions).values(
                id=row.id,
                owner=row.owner,
                sandbox=row.sandbox,
                environment=row.environment,
                settings=row.settings,
                created_at=row.created_at,
            )
        )

    return job


def change_session(session: str, settings: bytes) -> Job:
    def job(connection: Connection) -> None:
        connection.execute(update(sessions).where(sessions.c.id == session).values(settings=settings))

    return job


def end_session(session: str, reason: str, ended_at: float) -> Job:
    def job(connection: Connection) -> None:
        connection.execute(
            update(sessions)
            .where(sessions.c.id == session, sessions.c.ended_at.is_(None))
            .values(ended_at=ended_at, reason=reason)
        )

    return job


def prune(before: float, limit_bytes: int) -> Job:
    """Forgets executions that started before `before`, then the oldest until the rest fits `limit_bytes`."""

    def job(connection: Connection) -> None:
        over = executions.c.status != "running"
        connection.execute(delete(executions).where(executions.c.started_at < before, over))
        connection.execute(delete(sessions).where(sessions.c.ended_at < before))
        connection.execute(delete(idempotency).where(idempotency.c.created_at < before))
        connection.execute(delete(tool_calls).where(tool_calls.c.started_at < before))
        total = connection.execute(select(func.coalesce(func.sum(executions.c.stored_bytes), 0))).scalar_one()
        while total > limit_bytes:
            oldest = (
                select(executions.c.id, executions.c.stored_bytes)
                .where(over)
                .order_by(executions.c.started_at)
                .limit(PRUNE_ROWS)
            )
            doomed = []
            for name, size in connection.execute(oldest):
                if total <= limit_bytes:
                    break
                doomed.append(name)
                total -= size
            if not doomed:
                break
            connection.execute(delete(executions).where(executions.c.id.in_(doomed)))
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA incremental_vacuum(1000)")

    return job
