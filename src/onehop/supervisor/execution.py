"""One execution as the supervisor sees it: a capped, numbered log of events, its deadlines, its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from onehop.supervisor.messages import LENGTH, End, Event, ExecutionSpec, Usage, encode

SPILL_ASKED = "-"
"""In the place of a spill file's name while init opens it."""
MAX_EVENTS = 20_000
"""More events than this are merged: a flood of one-byte writes must not cost us an object each."""
MAX_RESULTS = 1_000
Follower = Callable[[bytes, bool], None]
"""Takes framed events, ready to be written to a gateway's connection, and whether others may come before it is."""


class Execution:
    """The log keeps framed events, so that sending one again costs nothing."""

    def __init__(self, spec: ExecutionSpec, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.spec = spec
        self.number = number
        self.started_s = time.monotonic()
        self.cpu_start_ns = 0
        self.place = ""
        """The context that runs it, or `!` and its id for a command."""
        self.end: End | None = None
        self.stopping: str = ""
        """Why we ask it to stop: `timeout`, `interrupted`, `output_limit`; empty while nobody does."""
        self.stop_reason = ""
        self.output_left = spec.output_bytes
        self.results_left = spec.results_bytes
        self.results = 0
        self.texts = 0
        """Events of stdout and stderr."""
        self.failed = False
        self.truncated = False
        self.spill_fd = -1
        self.spill_name = ""
        self.exit_code: int | None = None
        """Of a command."""
        self.held_exit: int | None = None
        """The same for a command that ended while the spill file was being opened."""
        self.held_end = b""
        """An end that came while the spill file was being opened."""
        self.spilled_bytes = 0
        self.follower: Follower | None = None
        self._loop = loop
        self._log: list[bytes] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._deadline: _Deadline | None = None
        self._suspension: asyncio.TimerHandle | None = None
        self._suspended_since_s = 0.0
        self._suspended_s = 0.0
        self.suspensions = 0
        """How often."""

    @property
    def spill_asked(self) -> bool:
        """Init is opening the spill file."""
        return self.spill_name == SPILL_ASKED

    @property
    def last(self) -> int:
        """Number of the newest event."""
        return len(self._log)

    def add(self, kind: str, payload: bytes, *, soon: bool = False) -> None:
        """Appends an event and passes it on; with `soon` it need not go at once, others may follow it."""
        raw = encode(Event(self.spec.id, len(self._log) + 1, kind, payload))
        framed = LENGTH.pack(len(raw)) + raw
        self._log.append(framed)
        if self.follower is not None:
            self.follower(framed, soon)

    def replace(self, number: int, kind: str, payload: bytes) -> None:
        """Another payload for an event that everybody has had; who reads it again gets this one."""
        raw = encode(Event(self.spec.id, number, kind, payload))
        self._log[number - 1] = LENGTH.pack(len(raw)) + raw

    def follow(self, follower: Follower, after: int) -> None:
        """Sends the events after number `after`, and all to come."""
        self.follower = follower
        backlog = self._log[after:]
        if backlog:
            follower(b"".join(backlog), False)

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """A timer that ends with the execution."""
        self._timers.append(self._loop.call_later(delay_s, action))

    # --- the deadline -------------------------------------------------------------------------------

    def limit(self, seconds: float, action: Callable[[], None]) -> None:
        """`action` after so many seconds, not counting those in which it is suspended."""
        self._deadline = _Deadline(self._loop, seconds, action)

    @property
    def suspended(self) -> bool:
        """It waits for somebody outside, and its time stands still."""
        return self._suspension is not None

    def suspend(self, timeout_s: float, action: Callable[[], None]) -> bool:
        """Its time stands still until `resume`; `action` after `timeout_s`. False when it does already, or will not."""
        if self.suspended or self.end is not None or self.stopping:
            return False
        self._suspended_since_s = time.monotonic()
        if self._deadline is not None:
            self._deadline.pause()
        self._suspension = self._loop.call_later(timeout_s, action)
        self.suspensions += 1
        return True

    def resume(self) -> None:
        """It has what it waited for."""
        if self._suspension is None:
            return
        self._suspension.cancel()
        self._suspension = None
        self._suspended_s += time.monotonic() - self._suspended_since_s
        if self._deadline is not None and self.end is None:
            self._deadline.go_on()

    def finish(self, end: End) -> None:
        """The terminal event; later ones are refused by the caller."""
        self.resume()
        if self._deadline is not None:
            self._deadline.pause()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.end = end
        self.add("end", encode(end))

    def wall_ms(self) -> float:
        now_s = time.monotonic()
        suspended_s = self._suspended_s
        if self.suspended:
            suspended_s += now_s - self._suspended_since_s
        return round((now_s - self.started_s - suspended_s) * 1000, 3)

    def usage(self, cpu_ns: int, peak_bytes: int) -> Usage:
        cpu_ms = -1.0 if cpu_ns < 0 else round((cpu_ns - self.cpu_start_ns) / 1e6, 3)
        return Usage(wall_ms=self.wall_ms(), cpu_ms=cpu_ms, peak_memory_bytes=peak_bytes)


class _Deadline:
    """A timer that can stand still."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]) -> None:
        self._loop = loop
        self._action = action
        self._left_s = seconds
        self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.go_on()

    def pause(self) -> None:
        if self._timer is not None:
            self._left_s = max(0.0, self._left_s - (time.monotonic() - self._since_s))
            self._timer.cancel()
            self._timer = None

    def go_on(self) -> None:
        if self._timer is None:
            self._since_s = time.monotonic()
            self._timer = self._loop.call_later(self._left_s, self._action)
