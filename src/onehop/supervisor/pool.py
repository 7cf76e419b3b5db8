"""The pool of one environment: ready sandboxes made ahead of demand, and the zygote they come from.

Demand is measured, not configured: the pool aims at what was taken during the time that making
one takes, plus the minimum, within the operator's bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onehop.environments.remove import hold
from onehop.errors import EngineError, TooManyError, UnavailableError
from onehop.supervisor.messages import SandboxSpec
from onehop.supervisor.sandbox import Sandbox
from onehop.supervisor.surroundings import Surroundings
from onehop.supervisor.zygotes import Zygote

TAKE_TIMEOUT_S = 30.0
DEMAND_WINDOW_S = 2.0
SHRINK_AFTER_S = 30.0
PARALLEL_STARTS = 4
REFILL_DELAY_S = 0.004
RETRY_S = 0.5


OWN_DESCRIPTORS = 32
DESCRIPTORS_PER_SANDBOX = 9
"""Control socket, workspace, Landlock ruleset, channel, two pipes, pidfds of init and kernel, and one for
what comes and goes."""


def room_for_sandboxes() -> int:
    """How many sandboxes the limit on open files allows: beyond it, what is there would break, not what is new."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft - OWN_DESCRIPTORS) // DESCRIPTORS_PER_SANDBOX)


class Slots:
    """Numbers and host uids of all sandboxes of a supervisor; a uid is free again when its sandbox is gone."""

    def __init__(self, most: int, *, separate_uids: bool) -> None:
        self.most = most
        self.used = 0
        self._next = 0
        self._separate = separate_uids
        self._free_ids: deque[int] = deque(range(1, 65000)) if separate_uids else deque()

    def take(self) -> tuple[int, int]:
        """A number that was never used before, and the uid in the zygote's namespace."""
        if self.used >= self.most or (self._separate and not self._free_ids):
            raise TooManyError(f"{self.most} sandboxes exist already; delete some or raise max_sandboxes")
        self.used += 1
        self._next += 1
        return self._next, self._free_ids.popleft() if self._separate else 0

    def give_back(self, uid: int) -> None:
        self.used -= 1
        if self._separate:
            self._free_ids.append(uid)


class Pool:
    def __init__(
        self,
        environment: dict[str, Any],
        around: Surroundings,
        slots: Slots,
        *,
        on_gone: Callable[[Sandbox], None],
    ) -> None:
        self.name: str = environment["name"]
        self.environment = environment
        self.retired = False
        self.around = around
        self.sandboxes: dict[int, Sandbox] = {}
        self.takes = 0
        self.misses = 0
        self.start_s = 0.05
        self.failure = ""
        self._uids: dict[int, int] = {}
        self._slots = slots
        self._on_gone = on_gone
        self._ready: deque[Sandbox] = deque()
        self._starting = 0
        self._waiters: deque[asyncio.Future[Sandbox]] = deque()
        self._recent: deque[float] = deque()
        self._above_since_s = 0.0
        self._closing = False
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.zygote = Zygote(
            environment,
            around.settings,
            cgroup_memory=around.cgroups.has("memory"),
            on_forked=self._forked,
            on_failed=self._fork_failed,
            on_ready=self._zygote_ready,
            children=around.children,
            log=around.log,
        )
        self.zygote.broken.add_done_callback(self._zygote_broken)
        self._hold = -1

    def start(self) -> None:
        """Raises EnvironmentInUseError when the environment is being removed."""
        with contextlib.suppress(OSError):  # the zygote says better what is missing
            self._hold = hold(Path(self.environment["path"]))
        self.zygote.start()

    def retire(self) -> None:
        """Nobody asks for it any more: what is handed out lives on, the rest ends."""
        self.retired = True
        while self._ready:
            self._ready.pop().die("its environment was removed or replaced")

    @property
    def in_use(self) -> bool:
        """For a retired one: whether any sandbox is left, or is waited for."""
        return bool(self._waiters or self.sandboxes)

    @property
    def target(self) -> int:
        """How many ready sandboxes the pool aims at now."""
        if self.retired:
            return 0
        now = time.monotonic()
        while self._recent and self._recent[0] < now - DEMAND_WINDOW_S:
            self._recent.popleft()
        rate = len(self._recent) / DEMAND_WINDOW_S
        wanted: int = self.around.settings["pool_min"] + math.ceil(rate * self.start_s * 2)
        most: int = self.around.settings["pool_max"]
        return min(wanted, most)

    def statistics(self) -> dict[str, Any]:
        warm = sum(one.warmth == "warm" for one in self._ready)
        return {
            "ready": len(self._ready),
            "warm": warm,
            "starting": self._starting,
            "target": self.target,
            "taken": self.takes,
            "waited": self.misses,
            "start_ms": round(self.start_s * 1000, 1),
            "zygote": self.zygote.report,
            "zygote_restarts": self.zygote.restarts,
        }

    async def take(self, spec: SandboxSpec, owner_id: str) -> Sandbox:
        """A ready sandbox with the limits of `spec`.

        Raises:
            TooManyError: there is no slot left.
            UnavailableError: none became ready in time.
        """
        self.takes += 1
        self._recent.append(time.monotonic())
        while True:
            sandbox = self._pop_ready() or await self._wait()
            if sandbox.state == "ready":
                break
        # Making the next one takes a core: not while the request that has just been served runs its code.
        self._loop.call_later(REFILL_DELAY_S if self._ready else 0, self._refill)
        try:
            await sandbox.assign(spec, owner_id)
        except BaseException:
            sandbox.die("it could not be given its limits")
            raise
        return sandbox

    def _pop_ready(self) -> Sandbox | None:
        """A warm one if there is one, a cold one rather than one that is at its warm-up cells."""
        for warmth in ("warm", "cold", "warming"):
            for sandbox in self._ready:
                if sandbox.warmth == warmth and sandbox.state == "ready":
                    self._ready.remove(sandbox)
                    return sandbox
        return None

    def _warm_next(self) -> None:
        """Warms one at a time, and only while nobody waits: a warm-up costs as much as a new sandbox."""
        if self._waiters or self._starting or any(one.warmth == "warming" for one in self._ready):
            return
        for sandbox in self._ready:
            if sandbox.warmth == "cold" and sandbox.state == "ready":
                sandbox.warm_up()
                return

    def _became_warm(self, sandbox: Sandbox) -> None:
        self._warm_next()

    async def _wait(self) -> Sandbox:
        self.misses += 1
        if self._full():
            raise self._too_many()
        if self.zygote.broken.done() and not self.zygote.ready:
            raise UnavailableError(self.failure)
        waiter: asyncio.Future[Sandbox] = self._loop.create_future()
        self._waiters.append(waiter)
        self._refill()
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                return await waiter
        except TimeoutError:
            raise UnavailableError(
                f"no sandbox became ready within {TAKE_TIMEOUT_S:g} s; {self.failure}"
            ) from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    # --- making them ----------------------------------------------------------------------------------

    def _refill(self) -> None:
        if self._closing or not self.zygote.ready or self._retry is not None:
            return
        wanted = self.target + len(self._waiters)
        while len(self._ready) + self._starting < wanted and self._starting < PARALLEL_STARTS + len(
            self._waiters
        ):
            try:
                slot, uid = self._slots.take()
            except TooManyError:
                self._refuse_waiters()
                return
            self._uids[slot] = uid
            try:
                sandbox = Sandbox(
                    slot,
                    self._default_spec(),
                    self.around,
                    fork_kernel=self.zygote.fork_kernel,
                    on_ready=self._became_ready,
                    on_warm=self._became_warm,
                    on_gone=self._gone,
                )
            except OSError as error:  # no descriptor left
                self._slots.give_back(self._uids.pop(slot))
                self.failure = str(error)
                self._retry = self._loop.call_later(RETRY_S, self._try_again)
                return
            self.sandboxes[slot] = sandbox
            self._starting += 1
            try:
                self.zygote.fork(slot, uid, sandbox.start_request(), sandbox.fork_fds())
            except EngineError as error:
                sandbox.fork_failed(str(error))
                return

    def _full(self) -> bool:
        """No slot is free, and none is about to be: a sandbox that is dying gives its slot back in a moment."""
        dying = any(one.state in ("dying", "gone") for one in self.sandboxes.values())
        return self._slots.used >= self._slots.most and not self._starting and not dying

    def _too_many(self) -> TooManyError:
        return TooManyError(f"{self._slots.most} sandboxes exist already; delete some or raise max_sandboxes")

    def _refuse_waiters(self) -> None:
        while self._waiters and self._full():
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self._too_many())

    def _default_spec(self) -> SandboxSpec:
        s = self.around.settings
        return SandboxSpec(
            environment=self.name,
            memory_bytes=s["memory_bytes"],
            processes=s["processes"],
            workspace_bytes=s["workspace_bytes"],
            workspace_inodes=s["workspace_inodes"],
        )

    def _zygote_ready(self) -> None:
        self.around.baseline_bytes = max(self.around.baseline_bytes, self.zygote.report["resident_bytes"])
        self._refill()

    def _zygote_broken(self, broken: asyncio.Future[str]) -> None:
        """It will be tried again, but not within the time of those who wait now."""
        if broken.cancelled():
            return
        self.failure = f"the environment {self.name!r} does not start: {broken.result()}"
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(UnavailableError(self.failure))

    def _forked(self, slot: int, pid: int) -> None:
        sandbox = self.sandboxes[slot]
        self.around.children.watch(pid, sandbox.reaped)
        task = self._loop.create_task(sandbox.forked(pid))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fork_failed(self, slot: int, detail: str) -> None:
        self.sandboxes[slot].fork_failed(detail)

    def _became_ready(self, sandbox: Sandbox) -> None:
        self._starting -= 1
        self._failures = 0
        self.start_s = 0.8 * self.start_s + 0.2 * (time.monotonic() - sandbox.created_s)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(sandbox)
                break
        else:
            self._ready.append(sandbox)
            if self.retired:
                self.retire()
        self._refill()
        self._warm_next()

    def _gone(self, sandbox: Sandbox) -> None:
        was_starting = sandbox.owner_id == "" and sandbox not in self._ready and sandbox.started is False
        if sandbox in self._ready:
            self._ready.remove(sandbox)
        self.sandboxes.pop(sandbox.slot, None)
        self._slots.give_back(self._uids.pop(sandbox.slot))
        self._on_gone(sandbox)
        if was_starting:
            self._starting -= 1
            self._failures += 1
            self.failure = sandbox.death_reason
            if not self._closing:
                self.around.log(f"a sandbox of {self.name} did not start: {sandbox.death_reason}")
            if self._failures > 3 and self._retry is None:  # not in a tight loop
                self._retry = self._loop.call_later(min(5.0, 0.1 * self._failures), self._try_again)
        self._refill()

    def _try_again(self) -> None:
        self._retry = None
        self._refill()

    def shrink(self) -> None:
        """Called now and then: lets go of what has been too much for a while."""
        now = time.monotonic()
        if len(self._ready) <= self.target:
            self._above_since_s = now
        elif now - self._above_since_s > SHRINK_AFTER_S:
            self._ready.pop().die("the pool shrinks")

    def close(self) -> None:
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        self.zygote.close()
        for sandbox in list(self.sandboxes.values()):
            sandbox.die("the server stops")
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1
