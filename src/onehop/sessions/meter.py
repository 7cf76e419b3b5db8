"""What counts like executions and is none: admitted by the same limits, summed up for the same usage.

Nothing here waits: sums go to the database with the next batch of the writer.
"""

from __future__ import annotations

import asyncio
import time

from onehop.sessions.caller import Caller
from onehop.sessions.quotas import Quotas
from onehop.store import Store
from onehop.store.usage import HOUR_S
from onehop.supervisor.messages import ExecutionSpec

WRITE_S = 0.5

Sums = dict[tuple[int, str, str], list[float]]


class Meter:
    def __init__(self, store: Store, quotas: Quotas) -> None:
        self._store = store
        self._quotas = quotas
        self._sums: Sums = {}
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, caller: Caller) -> None:
        """Counts a start. Raises TooManyError when the key is over a limit; nothing was counted then."""
        self._quotas.admit(caller, ExecutionSpec(id="", code=""))

    def withdraw(self, caller: Caller) -> None:
        """The start that was admitted last comes to be an execution, and is counted as one."""
        self._quotas.withdraw(caller)

    def used(self, caller: Caller, cpu_ms: float, *, executions: int = 1) -> None:
        """Adds to the usage of now."""
        self._quotas.charge(caller.key, cpu_ms)
        sums = self._sums.setdefault((int(time.time() // HOUR_S), caller.key, caller.owner), [0, 0.0, 0.0, 0])
        sums[0] += executions
        sums[1] += cpu_ms
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_S, self.write)

    def write(self) -> None:
        """Hands the sums to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sums:
            sums, self._sums = self._sums, {}
            self._store.add_usage(sums)
