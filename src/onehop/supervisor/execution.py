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
Follower = Callable[[bytes], None]
"""Takes framed events, ready to be written to a gateway's connection."""


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

    @property
    def spill_asked(self) -> bool:
        """Init is opening the spill file."""
        return self.spill_name == SPILL_ASKED

    @property
    def last(self) -> int:
        """Number of the newest event."""
        return len(self._log)

    def add(self, kind: str, payload: bytes) -> None:
        """Appends an event and passes it on."""
        raw = encode(Event(self.spec.id, len(self._log) + 1, kind, payload))
        framed = LENGTH.pack(len(raw)) + raw
        self._log.append(framed)
        if self.follower is not None:
            self.follower(framed)

    def follow(self, follower: Follower, after: int) -> None:
        """Sends the events after number `after`, and all to come."""
        self.follower = follower
        backlog = self._log[after:]
        if backlog:
            follower(b"".join(backlog))

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """A timer that ends with the execution."""
        self._timers.append(self._loop.call_later(delay_s, action))

    def finish(self, end: End) -> None:
        """The terminal event; later ones are refused by the caller."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.end = end
        self.add("end", encode(end))

    def wall_ms(self) -> float:
        return round((time.monotonic() - self.started_s) * 1000, 3)

    def usage(self, cpu_ns: int, peak_bytes: int) -> Usage:
        cpu_ms = -1.0 if cpu_ns < 0 else round((cpu_ns - self.cpu_start_ns) / 1e6, 3)
        return Usage(wall_ms=self.wall_ms(), cpu_ms=cpu_ms, peak_memory_bytes=peak_bytes)
