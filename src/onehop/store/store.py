"""The store as the engine sees it: writes that never wait, reads that do not block the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, select
from sqlalchemy.exc import DBAPIError

from onehop.errors import QuotaExceededError, UnavailableError
from onehop.store import functions, keys, usage, writer
from onehop.store.database import is_full, open_database
from onehop.store.records import (
    Claim,
    Finished,
    FunctionRow,
    KeyRow,
    SessionRow,
    StoredExecution,
    ToolCallRow,
    UsageRow,
)
from onehop.store.tables import executions, sessions, tool_calls

T = TypeVar("T")

BATCH_S = 0.05
"""A result is committed this long after it came, together with all that came meanwhile."""


class Store:
    """Owned by one event loop. Make it with `open`; `close` writes what is left.

    Attributes:
        on_stored: called on the loop with ids of executions whose results are committed.
    """

    def __init__(self, url: str, state: Path) -> None:
        self.on_stored: Callable[[list[str]], None] = lambda _: None
        self._loop = asyncio.get_running_loop()
        self._engine = open_database(url, state)
        self._timer: asyncio.TimerHandle | None = None
        self._first_s = 0.0
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        with self._engine.connect() as connection:
            running = set(
                connection.execute(select(executions.c.id).where(executions.c.status == "running")).scalars()
            )
        self._writer = writer.Writer(self._engine, self._stored, running)

    @classmethod
    def open(cls, url: str, state: Path) -> Store:
        """Opens (and migrates) the database; see `open_database`. Call it on the loop that will use it."""
        return cls(url, state)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._writer.close()
        self._readers.shutdown()
        self._engine.dispose()

    @property
    def lag_s(self) -> float:
        """Age in seconds of the oldest thing that waits to be committed."""
        since_s = self._writer.waiting_since_s
        if since_s is None:
            since_s = self._first_s if self._timer is not None else None
        return 0.0 if since_s is None else max(0.0, time.monotonic() - since_s)

    def check_writable(self) -> None:
        """Raises QuotaExceededError while the disk is full, UnavailableError while writing fails."""
        if not self._writer.problem:
            return
        if self._writer.problem == "full":
            raise QuotaExceededError(
                "the server's disk is full; new work is refused until there is room, reads go on"
            )
        raise UnavailableError("the server's database cannot be written; its log has the reason")

    # --- executions ---------------------------------------------------------------------------------

    def started(
        self, execution: str, owner: str, session: str | None, started_at: float, key: str = ""
    ) -> None:
        self._writer.started(execution, owner, session, started_at, key)
        self._soon()

    def withdrawn(self, execution: str) -> None:
        self._writer.withdrawn(execution)
        self._soon()

    def finished(self, record: Finished) -> None:
        self._writer.finished(record)
        self._soon()

    def called(self, row: ToolCallRow) -> None:
        """A call of a tool has ended."""
        self._writer.called(row)
        self._soon()

    async def tool_calls(self, execution: str, after: int, most: int) -> list[ToolCallRow]:
        """Calls of an execution with numbers after `after`, in their order."""

        def job(connection: Connection) -> list[ToolCallRow]:
            columns = [tool_calls.c[one.name] for one in fields(ToolCallRow)]
            query = select(*columns).where(tool_calls.c.execution == execution, tool_calls.c.number > after)
            return [
                ToolCallRow(*row)
                for row in connection.execute(query.order_by(tool_calls.c.number).limit(most))
            ]

        return await self.read(job)

    async def execution(self, name: str) -> StoredExecution | None:
        found = await self.read(_executions(executions.c.id == name))
        return found[0] if found else None

    async def running(self) -> list[StoredExecution]:
        """Executions of which only the start is known."""
        return await self.read(_executions(executions.c.status == "running"))

    # --- sessions -----------------------------------------------------------------------------------

    async def add_session(self, row: SessionRow) -> None:
        """Returns when the row is committed. Raises QuotaExceededError, UnavailableError."""
        await self.commit(writer.add_session(row))

    async def change_session(self, session: str, settings: bytes) -> None:
        """Like `add_session`, for the settings of one that is there."""
        await self.commit(writer.change_session(session, settings))

    async def commit(self, statement: Callable[[Connection], T]) -> T:
        """Runs it on the writer's thread; returns what it gave when that is committed.

        Raises QuotaExceededError when the disk is full, UnavailableError when it cannot be written.
        """
        found: list[T] = []

        def job(connection: Connection) -> None:
            found[:] = [statement(connection)]

        future = self._writer.job(job, wait=True)
        self._writer.wake()
        assert future is not None
        try:
            await asyncio.wrap_future(future)
        except DBAPIError as error:
            if is_full(error):
                raise QuotaExceededError(
                    "the server's disk is full; new work is refused until there is room, reads go on"
                ) from error
            raise UnavailableError(
                "the server's database cannot be written; its log has the reason"
            ) from error
        return found[0]

    def end_session(self, session: str, reason: str) -> None:
        self._writer.job(writer.end_session(session, reason, time.time()))
        self._soon()

    async def session(self, name: str) -> SessionRow | None:
        found = await self.read(_sessions(sessions.c.id == name))
        return found[0] if found else None

    async def live_sessions(self) -> list[SessionRow]:
        return await self.read(_sessions(sessions.c.ended_at.is_(None)))

    # --- idempotency --------------------------------------------------------------------------------

    async def claim(self, claim: Claim) -> Claim | None:
        """Takes a key, and records the start of its execution, if it is for one; None when that is committed.

        Otherwise who has the key already. Raises QuotaExceededError, UnavailableError.
        """
        found: list[Claim] = []
        await self.commit(self._writer.claim(claim, found))
        return found[0] if found else None

    def unclaim(self, claim: Claim) -> None:
        """Nothing came of it: the key is free again, and an execution that has not ended was never begun."""
        self._writer.job(self._writer.unclaim(claim))
        self._soon()

    # --- keys and what was used with them -----------------------------------------------------------

    def keys_now(self) -> list[KeyRow]:
        """All keys, at once: for a gateway that does not serve yet."""
        with self._engine.connect() as connection:
            return keys.changed(connection, 0)

    async def changed_keys(self, since: int) -> list[KeyRow]:
        """Keys made or revoked after revision `since`."""
        return await self.read(lambda connection: keys.changed(connection, since))

    async def add_key(self, row: KeyRow) -> None:
        """Returns when the row is committed. Raises QuotaExceededError, UnavailableError."""
        await self.commit(lambda connection: keys.add(connection, row))

    async def revoke_key(self, key: str) -> bool:
        """Returns when that is committed; False when there is no such key, or it was revoked before."""
        found: list[bool] = []
        await self.commit(lambda connection: found.append(keys.revoke(connection, key)))
        return found[-1]

    def keys_used(self, times: Mapping[str, float]) -> None:
        """When keys were used last, by id."""
        self._writer.job(lambda connection: keys.used(connection, times))
        self._soon()

    async def usage(self, first: int, last: int, owner: str | None) -> list[UsageRow]:
        """By day since 1970; see `onehop.store.usage.by_day`."""
        return await self.read(lambda connection: usage.by_day(connection, first, last, owner))

    # --- functions ----------------------------------------------------------------------------------

    async def put_function(self, row: FunctionRow, most: int) -> bool | None:
        """Returns when that is committed; see `onehop.store.functions.put`."""
        return await self.commit(lambda connection: functions.put(connection, row, most))

    async def functions(self, owner: str, name: str | None = None) -> list[FunctionRow]:
        """The owner's, all or the one of that name."""
        return await self.read(lambda connection: functions.find(connection, owner, name))

    async def remove_function(self, owner: str, name: str) -> bool:
        """Returns when that is committed; False when there is none."""
        return await self.commit(lambda connection: functions.remove(connection, owner, name))

    def add_usage(self, sums: Mapping[tuple[int, str, str], Sequence[float]]) -> None:
        """What was used by something that is no execution; see `onehop.store.usage.add`."""
        self._writer.job(lambda connection: usage.add(connection, sums))
        self._soon()

    def cpu_since(self, hour: int) -> list[tuple[int, str, float]]:
        """Hour, key and CPU milliseconds from `hour` on, at once: for a gateway that does not serve yet."""
        with self._engine.connect() as connection:
            return usage.cpu_since(connection, hour)

    # --- both ---------------------------------------------------------------------------------------

    def prune(self, *, before: float, limit_bytes: int) -> None:
        """Forgets what is older than `before`, and the oldest results beyond `limit_bytes` in all."""
        self._writer.job(writer.prune(before, limit_bytes))
        self._soon()

    async def flush(self) -> None:
        """Returns when everything that was written before is committed (or refused)."""
        future = self._writer.job(lambda _: None, wait=True)
        self._writer.wake()
        assert future is not None
        try:
            await asyncio.wrap_future(future)
        except DBAPIError:
            self.check_writable()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH_S, self._now)
            self._first_s = time.monotonic()

    def _now(self) -> None:
        self._timer = None
        self._writer.wake()

    def _stored(self, ids: list[str]) -> None:
        try:
            self._loop.call_soon_threadsafe(lambda: self.on_stored(ids))
        except RuntimeError:
            pass  # the loop is closed; the next gateway finds the results in the database

    async def read(self, read: Callable[[Connection], T]) -> T:
        """Runs it on a thread for reading. Raises UnavailableError."""

        def run() -> T:
            with self._engine.connect() as connection:
                return read(connection)

        try:
            return await self._loop.run_in_executor(self._readers, run)
        except DBAPIError as error:
            raise UnavailableError("the server's database cannot be read; its log has the reason") from error


_EXECUTION = select(*(executions.c[field.name] for field in fields(StoredExecution)))


def _executions(where: ColumnElement[bool]) -> Callable[[Connection], list[StoredExecution]]:
    query = _EXECUTION.where(where)
    return lambda connection: [StoredExecution(**row) for row in connection.execute(query).mappings()]


def _sessions(where: ColumnElement[bool]) -> Callable[[Connection], list[SessionRow]]:
    query = select(sessions).where(where)
    return lambda connection: [SessionRow(**row) for row in connection.execute(query).mappings()]
