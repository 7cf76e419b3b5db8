"""What the requests of one key may use together, and what they have used. In memory: a check never waits.

A request over a limit is refused before anything runs for it, so that it costs others nothing. Limits
of a key never change, so nothing is counted for keys without any.
CPU time survives a restart of the gateway by the usage that is stored; starts within the last
minute do not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from onehop.errors import TooManyError
from onehop.sessions.caller import NO_LIMITS, Caller
from onehop.store import Store
from onehop.store.usage import HOUR_S
from onehop.supervisor.messages import ExecutionSpec

MINUTE_S = 60.0
CPU_STEP_S = 0.001
SANDBOX_RETRY_S = 5.0
"""Nobody knows when another session of the key will end."""


@dataclass(slots=True)
class Hours:
    """An amount within the last hour: all of this clock hour's, and of the one before the share that is left.

    Two numbers are enough for that, and they can be had again from the stored usage.
    """

    hour: int = 0
    now: float = 0.0
    before: float = 0.0

    def add(self, amount: float, at: float) -> None:
        self._turn(at)
        self.now += amount

    def total(self, at: float) -> float:
        self._turn(at)
        return self.now + self.before * (1 - at % HOUR_S / HOUR_S)

    def wait_s(self, most: float, at: float) -> float:
        """Seconds until `total` is no more than `most`, if nothing is added; most > 0."""
        if self.total(at) <= most:
            return 0.0
        passed = at % HOUR_S / HOUR_S
        if self.now <= most:
            return (1 - (most - self.now) / self.before - passed) * HOUR_S
        return (1 - passed + 1 - most / self.now) * HOUR_S

    def _turn(self, at: float) -> None:
        hour = int(at // HOUR_S)
        if hour > self.hour:
            self.before = self.now if hour == self.hour + 1 else 0.0
            self.now = 0.0
            self.hour = hour


@dataclass(slots=True)
class Account:
    """One key's: sandboxes at once, starts within the last minute, CPU seconds."""

    sandboxes: int = 0
    starts: deque[float] = field(default_factory=deque)
    cpu_s: Hours = field(default_factory=Hours)


class Quotas:
    """Args:
    clock: seconds since 1970.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        hour = int(clock() // HOUR_S)
        for at, key, cpu_ms in store.cpu_since(hour - 1):
            cpu_s = self._account(key).cpu_s
            cpu_s.hour = hour
            if at == hour - 1:
                cpu_s.before = cpu_ms / 1000
            else:
                cpu_s.now = cpu_ms / 1000

    def admit(self, caller: Caller, spec: ExecutionSpec, *, sandbox: bool = False) -> None:
        """Counts the start of an execution, and bounds its CPU time by what the key has left.

        Args:
            sandbox: it takes one of its own; to be given back by `release`.

        Raises:
            TooManyError: the key is over a limit; nothing was counted.
        """
        limits = caller.limits
        if limits is NO_LIMITS:
            return
        account = self._account(caller.key)
        now = self._clock()
        if sandbox:
            self._check_sandboxes(account, caller)
        if limits.cpu_s_per_hour is not None:
            left_s = limits.cpu_s_per_hour - account.cpu_s.total(now)
            if left_s < CPU_STEP_S:
                raise TooManyError(
                    f"the key has used its {limits.cpu_s_per_hour:g} CPU seconds per hour",
                    retry_after_s=account.cpu_s.wait_s(limits.cpu_s_per_hour - CPU_STEP_S, now),
                    limit="cpu_s_per_hour",
                )
            spec.cpu_s = min(spec.cpu_s or left_s, left_s)
        if limits.executions_per_minute is not None:
            starts = account.starts
            while starts and starts[0] <= now - MINUTE_S:
                starts.popleft()
            if len(starts) >= limits.executions_per_minute:
                raise TooManyError(
                    f"the key has started its {limits.executions_per_minute} executions per minute",
                    retry_after_s=starts[0] + MINUTE_S - now,
                    limit="executions_per_minute",
                )
            starts.append(now)
        if sandbox:
            account.sandboxes += 1

    def withdraw(self, caller: Caller) -> None:
        """Takes back the start that was counted last."""
        account = self._accounts.get(caller.key)
        if account is not None and account.starts:
            account.starts.pop()

    def take_sandbox(self, caller: Caller) -> None:
        """Counts a session; to be given back by `release`. Raises TooManyError."""
        if caller.limits is NO_LIMITS:
            return
        account = self._account(caller.key)
        self._check_sandboxes(account, caller)
        account.sandboxes += 1

    def resumed(self, key: str) -> None:
        """A session of an earlier gateway goes on."""
        if key:
            self._account(key).sandboxes += 1

    def release(self, key: str) -> None:
        """A sandbox of the key is gone."""
        account = self._accounts.get(key)
        if account is not None and account.sandboxes > 0:
            account.sandboxes -= 1

    def charge(self, key: str, cpu_ms: float) -> None:
        """An execution of the key has used CPU time."""
        if key:
            self._account(key).cpu_s.add(cpu_ms / 1000, self._clock())

    def _account(self, key: str) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account()
        return account

    @staticmethod
    def _check_sandboxes(account: Account, caller: Caller) -> None:
        most = caller.limits.max_sessions
        if most is not None and account.sandboxes >= most:
            raise TooManyError(
                f"the key has {account.sandboxes} sessions and one-shot executions at once, the most allowed; "
                "end one, or wait",
                retry_after_s=SANDBOX_RETRY_S,
                limit="max_sessions",
            )
