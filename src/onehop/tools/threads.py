"""A worker whose functions may block: threads take turns at reading, and each runs what it has read itself.

One thread leads: it reads a call and runs it at once, which costs no hop. When the call lasts, the watcher
makes another thread the leader, and the tool is remembered as slow: its later calls give the lead away
before they begin. So quick calls never pay for a thread switch, and slow ones never hold up others for
longer than WATCH_S.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from onehop.errors import ProtocolError
from onehop.tools import model
from onehop.tools.loops import READ_BYTES, Calls
from onehop.tools.source import Source
from onehop.tools.worker import Wire, leave

WATCH_S = 0.002
PARK_AFTER = 250
"""Ticks without a call, after which the watcher sleeps until there is one."""
QUICK_S = 0.0005
HOLD_S = 0.0002
"""Results of calls that came together go out together, if they are there within this time."""
MAX_THREADS = 128
"""More calls that block wait for one of these."""


async def serve(source: Source, wire: Wire) -> None:
    """For ever: the process ends when the gateway hangs up. Raises OnehopError when the source does not start."""
    calls = Calls(source, wire)
    await source.start(calls.publish)
    Threads(source, wire, calls, asyncio.get_running_loop()).start()
    await asyncio.Event().wait()


class Threads:
    def __init__(self, source: Source, wire: Wire, calls: Calls, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._wire = wire
        self._calls = calls
        self._loop = loop
        self._frames = model.for_worker()
        self._read_ahead: deque[Any] = deque()
        self._lead = threading.Lock()
        self._slow: set[str] = set()
        # The call that the leader runs, by ticket. Whoever takes it out (`dict.pop` is atomic) decides who
        # leads on: the leader when it is done, the watcher when it lasts.
        self._led: dict[int, model.CallFrame] = {}
        self._count_lock = threading.Lock()
        self._waiting = 0
        self._threads = 0
        self._calls_led = 0
        self._parked = False
        self._unpark = threading.Event()

    def start(self) -> None:
        self._spawn()
        threading.Thread(target=self._watch, daemon=True, name="watcher").start()

    def _spawn(self) -> None:
        self._threads += 1
        self._waiting += 1
        threading.Thread(target=self._work, daemon=True, name=f"tool-{self._threads}").start()

    def _give_lead(self) -> None:
        with self._count_lock:
            if not self._waiting and self._threads < MAX_THREADS:
                self._spawn()
        self._lead.release()

    def _work(self) -> None:
        while True:
            self._lead.acquire()
            with self._count_lock:
                self._waiting -= 1
            self._as_leader()
            with self._count_lock:
                self._waiting += 1

    def _as_leader(self) -> None:
        """Reads and runs until somebody else leads."""
        led, slow, ahead, wire = self._led, self._slow, self._read_ahead, self._wire
        held_s = 0.0
        while True:
            frame = self._next()
            if isinstance(frame, model.CancelFrame):
                self._loop.call_soon_threadsafe(self._calls.cancel, frame.ticket)
                continue
            function = self._source.here(frame.tool)
            if function is None:
                self._loop.call_soon_threadsafe(self._calls.start, frame)
                continue
            if frame.tool in slow:
                wire.flush()
                self._give_lead()
                self._run_slow(frame, function)
                return
            if not ahead:
                wire.hold = False  # its result takes along what was held back
            elif not wire.hold:
                wire.hold, held_s = True, time.monotonic()
            elif time.monotonic() - held_s > HOLD_S:
                wire.hold = False
            led[frame.ticket] = frame
            self._calls_led += 1
            if self._parked:
                self._parked = False
                self._unpark.set()
            self._run(frame, function)
            if led.pop(frame.ticket, None) is None:
                return  # the watcher has made another thread the leader

    def _run(self, frame: model.CallFrame, function: Callable[[dict[str, Any]], Any]) -> None:
        try:
            value = function(frame.arguments)
        except BaseException as error:  # noqa: BLE001 - whatever a tool raises is the caller's to know
            self._wire.error(frame.ticket, error)
        else:
            self._wire.result(frame.ticket, value)

    def _run_slow(self, frame: model.CallFrame, function: Callable[[dict[str, Any]], Any]) -> None:
        started_s = time.perf_counter()
        self._run(frame, function)
        if time.perf_counter() - started_s < QUICK_S:
            self._slow.discard(frame.tool)

    def _next(self) -> Any:
        """The next frame; ends the process with the connection."""
        ahead = self._read_ahead
        if not ahead and self._wire.hold:
            self._wire.flush()
        while not ahead:
            try:
                data = self._wire.channel.recv(READ_BYTES)
            except OSError:
                leave()
            if not data:
                leave()
            try:
                ahead.extend(self._frames.feed(data))
            except ProtocolError as error:
                self._wire.log("critical", str(error))
                leave()
        return ahead.popleft()

    def _watch(self) -> None:
        led = self._led
        before: model.CallFrame | None = None
        count, idle = 0, 0
        while True:
            time.sleep(WATCH_S)
            now = _first(led)
            if now is not None and now is before:
                if led.pop(now.ticket, None) is not None:
                    self._slow.add(now.tool)
                    self._wire.flush()
                    self._give_lead()
                before = None
                continue
            before = now
            idle = idle + 1 if now is None and count == self._calls_led else 0
            count = self._calls_led
            if idle > PARK_AFTER:
                idle = 0
                self._unpark.clear()
                self._parked = True
                if not led and count == self._calls_led:
                    self._unpark.wait()
                self._parked = False


def _first(led: dict[int, model.CallFrame]) -> model.CallFrame | None:
    try:
        return next(iter(led.values()), None)
    except RuntimeError:  # it changed in this moment
        return None
