"""All executions that are not stored yet, and the way of each into the store.

At most once executed, exactly once recorded: the supervisor keeps the events of an execution until
it is acknowledged, and it is acknowledged only when its result is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator

from onehop.config import MIB, Settings
from onehop.crash import reached
from onehop.errors import EngineError, ExecutionNotFoundError, QuotaExceededError, UnavailableError
from onehop.sessions.answers import Answer
from onehop.sessions.caller import Caller
from onehop.sessions.quotas import Quotas
from onehop.sessions.run import EncodedEvent, Run, read_stored
from onehop.store import Finished, Store, StoredExecution, ToolCallRow
from onehop.supervisor.client import SupervisorClient

_NO_EVENTS = b"\x90"
"""An empty msgpack list."""


log = logging.getLogger("onehop.sessions")


class Journal:
    def __init__(self, settings: Settings, client: SupervisorClient, store: Store, quotas: Quotas) -> None:
        self._settings = settings
        self._client = client
        self._store = store
        self._quotas = quotas
        self.outcomes: Counter[str] = Counter()
        """Ends of executions by status, since this gateway started."""
        self._runs: dict[str, Run] = {}
        store.on_stored = self._stored

    def close(self) -> None:
        self._store.on_stored = lambda _: None

    def began(self, run: Run) -> None:
        """To be called before the supervisor is asked to start it."""
        self._runs[run.id] = run
        self._store.started(run.id, run.owner, run.session, run.started_at, run.key)

    def resumed(self, run: Run) -> None:
        """It began under an earlier gateway."""
        self._runs[run.id] = run

    def refused(self, run: Run) -> None:
        """It did not begin: as if it had never been."""
        if self._runs.pop(run.id, None) is not None:
            self._store.withdrawn(run.id)

    def ended(self, run: Run) -> None:
        """Its answer is complete and can be stored."""
        assert run.end is not None
        reached("answer-complete")
        limit_bytes = self._settings.stored_events_bytes
        usage = run.end.usage
        # -1 where it is not known, as of an outcome that was lost
        cpu_ms, wall_s = max(0.0, usage.cpu_ms), max(0.0, usage.wall_ms) / 1000
        self.outcomes[run.end.status] += 1
        self._quotas.charge(run.key, cpu_ms)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "an execution ended: %s",
                run.end.status,
                extra={
                    "execution": run.id,
                    "session": run.session,
                    "key": run.key,
                    "owner": run.owner,
                    "duration_ms": usage.wall_ms,
                },
            )
        self._store.finished(
            Finished(
                run.id,
                run.owner,
                run.session,
                run.end.status,
                run.started_at,
                run.ended_at,
                lambda: run.encoded(limit_bytes),
                run.key,
                cpu_ms,
                max(0, usage.peak_memory_bytes) / MIB * wall_s,
                0 if run.calls is None else run.calls.made,
            )
        )

    def has(self, run: Run) -> bool:
        return run.id in self._runs

    def acknowledge(self, execution: str) -> None:
        try:
            self._client.acknowledge(execution)
        except EngineError:
            pass  # its events went with the supervisor

    def _stored(self, executions: list[str]) -> None:
        reached("before-acknowledge")
        for execution in executions:
            self._runs.pop(execution, None)
            self.acknowledge(execution)

    def statistics(self) -> dict[str, int]:
        running = sum(1 for run in self._runs.values() if run.end is None)
        return {"running": running, "unstored": len(self._runs) - running}

    async def run(self, execution: str, caller: Caller) -> Run | None:
        """One that is not stored yet; None for one that is. Raises ExecutionNotFoundError."""
        run = self._runs.get(execution)
        if run is not None and run.owner == caller.owner:
            return run
        await self._find(execution, caller)
        return None

    async def tool_calls(self, execution: str, after: int, most: int, caller: Caller) -> list[ToolCallRow]:
        """Calls of tools that have ended. Raises ExecutionNotFoundError."""
        if await self.run(execution, caller) is not None:
            # Who was told of a call's end finds it here, however far the writer is.
            with contextlib.suppress(QuotaExceededError, UnavailableError):  # what is committed can be read
                await self._store.flush()
        return await self._store.tool_calls(execution, after, most)

    # --- asked for again ------------------------------------------------------------------------------

    async def answer(self, execution: str, caller: Caller, *, wait_s: float = 0.0) -> Answer | bytes:
        """The answer, or its JSON as it was stored. Raises ExecutionNotFoundError."""
        run = self._runs.get(execution)
        if run is not None and run.owner == caller.owner:
            if wait_s > 0:
                await asyncio.wait({run.turn()}, timeout=wait_s)
            return run.answer or run.snapshot([])
        stored = await self._find(execution, caller)
        if stored.document is None:
            raise ExecutionNotFoundError("the execution has begun, but nothing is known about it any more")
        return stored.document

    async def events(
        self, execution: str, after: int, caller: Caller, *, pause_s: float
    ) -> AsyncIterator[list[EncodedEvent]]:
        """Events after number `after`, as they come; an empty list after `pause_s` seconds of none."""
        run = self._runs.get(execution)
        if run is not None and run.owner == caller.owner:
            return run.follow_encoded(after, pause_s=pause_s)
        stored = await self._find(execution, caller)
        return _at_once(read_stored(stored.events or _NO_EVENTS, after))

    async def _find(self, execution: str, caller: Caller) -> StoredExecution:
        stored = await self._store.execution(execution) if execution.startswith("exe_") else None
        if stored is None or stored.owner != caller.owner:
            raise ExecutionNotFoundError("there is no such execution, or it was too long ago")
        return stored


async def _at_once(events: list[EncodedEvent]) -> AsyncIterator[list[EncodedEvent]]:
    if events:
        yield events
