"""The engine: sessions, executions and files on one supervisor, put together from their parts.

Whoever waits here may be cancelled or vanish: what was started goes on, is stored, and can be asked
for again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from onehop import errors
from onehop.config import MIB, Settings, is_loopback
from onehop.sessions.batches import Batches
from onehop.sessions.calls import Dispatcher, NoTools
from onehop.sessions.claims import Claims
from onehop.sessions.commands import Commands
from onehop.sessions.contexts import Contexts
from onehop.sessions.executions import Executions
from onehop.sessions.journal import Journal
from onehop.sessions.keyring import Keyring
from onehop.sessions.lifetimes import Lifetimes
from onehop.sessions.meter import Meter
from onehop.sessions.quotas import Quotas
from onehop.sessions.recovery import Recovery
from onehop.sessions.registry import Registry, unavailable
from onehop.sessions.tasks import Tasks
from onehop.sessions.tooling import Tooling
from onehop.sessions.transfers import Transfers
from onehop.store import Store, UsageRow
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import EnvironmentInfo

PRUNE_S = 600.0


class Engine:
    """Use as `async with Engine(settings, client, store) as engine`; sandboxes of sessions outlive it.

    Attributes:
        sessions: their life.
        executions: code in sessions and alone.
        contexts, commands: of sessions.
        batches: several executions and commands at once.
        files: of the sessions' workspaces.
        claims: idempotency keys.
        keyring: API keys.
        store: the database, for layers above that keep something there.
        meter: of what counts like executions and is none.
        ready: set once it has been entered; before that the supervisor may still be starting.
        lost: set when the supervisor is gone; nothing works any more then.

    Args:
        tools: the registered ones; those of a client need none.
    """

    def __init__(
        self,
        settings: Settings,
        client: SupervisorClient,
        store: Store,
        tools: Dispatcher | None = None,
    ) -> None:
        self.settings = settings
        self.ready = asyncio.Event()
        self.lost = client.lost
        self._client = client
        self._store = self.store = store
        self._tasks = Tasks()
        self.keyring = Keyring(store, always=not is_loopback(settings.host))
        self._quotas = Quotas(store)
        self._journal = Journal(settings, client, store, self._quotas)
        self._registry = Registry(client, store, self._quotas)
        self.claims = Claims(store, self._tasks)
        self._tooling = Tooling(settings, client, store, NoTools() if tools is None else tools)
        self.sessions = Lifetimes(
            settings, client, store, self._registry, self._tasks, self._quotas, self._tooling
        )
        self.executions = Executions(
            settings, client, self._registry, self._journal, self._tasks, self._quotas, self._tooling
        )
        self.meter = Meter(store, self._quotas)
        self.commands = Commands(client, self._registry)
        self.batches = Batches(
            settings, self.executions, self.commands, self._tooling, self.claims, self._tasks
        )
        self.contexts = Contexts(settings, client, self._registry)
        self.files = Transfers(settings, client, self._registry)

    async def __aenter__(self) -> Engine:
        await self._tasks.__aenter__()
        try:
            await self._recover()
        except BaseException:
            await self.__aexit__()
            raise
        self._tasks.spawn(self.sessions.reap())
        self._tasks.spawn(self._prune())
        self._tasks.spawn(self.keyring.watch())
        self.ready.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.__aexit__()
        for session in self._registry.live.values():
            session.close_porter()
        self.keyring.write_used()
        self.meter.write()
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
            raise unavailable()

    async def describe(self) -> dict[str, Any]:
        """The supervisor's description; see supervisor/server.py."""
        try:
            return await self._client.describe()
        except errors.EngineError as error:
            raise unavailable() from error

    async def usage(self, first: int, last: int, owner: str | None) -> list[UsageRow]:
        """Sums by day since 1970, from `first` to `last`, of one owner or (None) of all."""
        return await self._store.usage(first, last, owner)

    async def environments(self) -> list[EnvironmentInfo]:
        """What a session or an execution may name at this moment; see supervisor/catalogue.py."""
        try:
            return await self._client.environments()
        except errors.EngineError as error:
            raise unavailable() from error

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Ends of executions by status, since this gateway started."""
        return self._journal.outcomes

    @property
    def call_outcomes(self) -> Mapping[str, int]:
        """Ends of calls of tools by status, since this gateway started."""
        return self._tooling.outcomes

    @property
    def store_lag_s(self) -> float:
        """Age in seconds of the oldest thing that waits to be committed."""
        return self._store.lag_s

    def statistics(self) -> dict[str, int]:
        return {"sessions": len(self._registry.live), **self._journal.statistics()}

    async def _recover(self) -> None:
        executions = self.executions
        recovery = Recovery(
            self._client,
            self._store,
            self._journal,
            on_end=executions.run_ended,
            on_violation=executions.violated,
            tooling=self._tooling,
        )
        alive, lost = await recovery.run()
        self._registry.live.update((session.id, session) for session in alive)
        for session in alive:
            self._quotas.resumed(session.settings.key)
        recovery.hand_over()
        for row, reason in lost:
            self._registry.remember_end(row.id, row.owner, reason)

    async def _prune(self) -> None:
        while True:
            self._store.prune(
                before=time.time() - self.settings.retention_days * 86400,
                limit_bytes=self.settings.retention_mb * MIB,
            )
            await asyncio.sleep(PRUNE_S)
