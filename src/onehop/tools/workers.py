"""The gateway's end of the workers: starts them, sends calls, hands out what comes back, starts them again.

Calls are plain callbacks, with no task and no await: what a worker sends is answered in the loop's turn
that read it. Each call is answered exactly once, whatever happens to its worker. Nothing here decides who
may call what.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from onehop.errors import ProtocolError
from onehop.tools import model
from onehop.tools.model import CallFrame, CancelFrame, CatalogueFrame, ErrorFrame, LogFrame, RawResultFrame

READ_BYTES = 262_144
MAX_UNSENT_BYTES = 128 * 1024 * 1024
"""A worker that reads nothing is given no more than this."""
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
MAX_WAIT_S = 1.0
"""One that served is started again after no more than that, however often it dies: calls wait for it."""
STEADY_S = 30.0
"""Who has run this long is started again without delay."""
START_TIMEOUT_S = 60.0
HANG_UP_S = 0.5
STUCK_CALLS = 16
"""Given-up calls that still hold something in a worker; it is replaced then."""
LOG_LINES = 100
LOG_PERIOD_S = 1.0
"""More lines than that of one source in such a time are counted only."""
LAUNCHER_MESSAGE_BYTES = 4096

log = logging.getLogger("onehop.tools")

Reply = RawResultFrame | ErrorFrame
Done = Callable[[Reply], None]


class _Call:
    """One that is not answered yet."""

    __slots__ = ("again", "arguments", "done", "ticket", "timer", "tool", "worker")

    def __init__(self, ticket: int, tool: str, arguments: dict[str, Any], done: Done, again: bool) -> None:
        self.ticket = ticket
        self.tool = tool
        self.arguments = arguments
        self.done = done
        self.again = again
        self.timer: asyncio.TimerHandle | None = None
        self.worker: _Worker | None = None


class _Worker:
    """The connection to one process."""

    def __init__(self, owner: SourceLink, number: int, channel: socket.socket) -> None:
        self.number = number
        self.owner = owner
        self.ready = False
        self.retiring = False
        self.pending: dict[int, _Call] = {}
        self.given_up: set[int] = set()
        self.started_s = time.monotonic()
        self.last_words = ""
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._frames = model.for_gateway()
        self._unsent: list[bytes | memoryview] = []
        self._unsent_bytes = 0
        self._flushing = False
        channel.setblocking(False)
        self._loop.add_reader(channel, self.read)

    def send(self, frame: CallFrame | CancelFrame) -> bool:
        """Sends it at the end of the loop's turn, with all others of it; False when too much waits already."""
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            return False
        data = model.encode(frame)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        if self._channel.fileno() < 0:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        try:
            sent = self._channel.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # its end is told by the reader
        self._loop.remove_writer(self._channel)
        if sent == len(data):
            self._unsent.clear()
            self._unsent_bytes = 0
            self._flushing = False
            return
        self._unsent = [memoryview(data)[sent:]]  # copied each time, much data would take for ever
        self._unsent_bytes = len(data) - sent
        self._loop.add_writer(self._channel, self._flush)

    def read(self) -> None:
        """Takes what has come from it."""
        try:
            data = self._channel.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # The launcher says how it ended, which is what people want to know.
            self._loop.remove_reader(self._channel)
            self.owner.ending(self)
            return
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except ProtocolError as error:
            self.owner.lost(self, f"it sent {error}")

    def _take(self, frame: Any) -> None:
        kind = type(frame)
        if kind is RawResultFrame or kind is ErrorFrame:
            call = self.pending.pop(frame.ticket, None)
            if call is not None:
                self.owner.answered(call, frame)
            else:
                self.given_up.discard(frame.ticket)
            if self.retiring:
                self.owner.maybe_end(self)
        elif kind is CatalogueFrame:
            self.owner.published(self, frame.tools)
        elif kind is LogFrame:
            if frame.level == "critical":
                self.last_words = frame.text
            self.owner.logged(frame)

    def close(self) -> None:
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()
        self._unsent.clear()


class SourceLink:
    """One source: its worker, the calls, and what it offers.

    Attributes:
        tools: the newest catalogue, None before the first.
        problem: why it has no worker now, empty when it has one or is about to.
    """

    def __init__(self, workers: Workers, name: str) -> None:
        self.name = name
        self.tools: list[model.ToolSpec] | None = None
        self.problem = ""
        self.settled = asyncio.Event()
        """It has offered its tools, or failed to, for the first time."""
        self._workers = workers
        self._current: _Worker | None = None
        self._others: set[_Worker] = set()
        self._starting = 0
        self._waiting: dict[int, _Call] = {}
        self._delay_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._logged = 0
        self._log_period = 0

    # --- calls ----------------------------------------------------------------------------------------

    def call(
        self, tool: str, arguments: dict[str, Any], done: Done, *, again: bool, timeout_s: float
    ) -> Callable[[], None]:
        """Runs a tool; `done` is called exactly once, unless what this returns is called before: it gives up.

        Args:
            again: it may be run a second time when its worker dies.
            timeout_s: seconds after which the answer is a timeout.
        """
        call = _Call(self._workers.ticket(), tool, arguments, done, again)
        call.timer = self._workers.loop.call_later(timeout_s, self._timed_out, call, timeout_s)
        self._send(call)
        return lambda: self._give_up(call)

    def _send(self, call: _Call) -> None:
        worker = self._current
        if worker is None:
            if self.problem:
                self._fail(call, "unavailable", f"the source {self.name!r} is not available: {self.problem}")
            else:
                self._waiting[call.ticket] = call
            return
        try:
            taken = worker.send(CallFrame(call.ticket, call.tool, call.arguments))
        except ProtocolError as error:
            self._fail(call, "bad_arguments", f"the arguments are too large: {error}")
            return
        if not taken:
            self._fail(call, "unavailable", f"the source {self.name!r} does not take any more calls")
            return
        call.worker = worker
        worker.pending[call.ticket] = call

    def answered(self, call: _Call, frame: Reply) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        call.done(frame)

    def _fail(self, call: _Call, kind: str, message: str) -> None:
        # Not before the caller knows how to cancel it.
        self._workers.loop.call_soon(self.answered, call, ErrorFrame(call.ticket, kind, message))

    def _timed_out(self, call: _Call, timeout_s: float) -> None:
        call.timer = None
        self._give_up(call)
        call.done(ErrorFrame(call.ticket, "timeout", f"it did not answer within {timeout_s:g} s"))

    def _give_up(self, call: _Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        self._waiting.pop(call.ticket, None)
        worker = call.worker
        if worker is None or worker.pending.pop(call.ticket, None) is None:
            return
        worker.given_up.add(call.ticket)
        worker.send(CancelFrame(call.ticket))
        if worker.retiring:
            self.maybe_end(worker)
        elif len(worker.given_up) >= STUCK_CALLS and not self._starting:
            log.warning("%s: %d given-up calls do not end; its worker is replaced", self.name, STUCK_CALLS)
            self.start()

    # --- the worker's life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Starts a worker; it takes over from the present one when it has offered its tools."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._starting:
            self._starting = self._workers.launch(self.name)
            self._timer = self._workers.loop.call_later(START_TIMEOUT_S, self._too_slow, self._starting)

    def _too_slow(self, number: int) -> None:
        if self._starting == number:
            self._workers.kill(number)
            self.failed(number, f"it did not get ready within {START_TIMEOUT_S:g} s")

    def connected(self, number: int, channel: socket.socket) -> None:
        """The launcher has started it."""
        worker = _Worker(self, number, channel)
        if number != self._starting:
            worker.close()
            self._workers.kill(number)
            return
        self._others.add(worker)

    def ending(self, worker: _Worker) -> None:
        """It has hung up; should its process not end by itself, it is of no use."""
        self._workers.loop.call_later(HANG_UP_S, self._workers.kill, worker.number)

    def failed(self, number: int, how: str) -> None:
        """The launcher says that a process has ended, or could not be started."""
        for worker in [self._current, *self._others]:
            if worker is not None and worker.number == number:
                worker.read()  # what it sent last
                if worker is self._current or worker in self._others:
                    self.lost(worker, how)
                return
        if number == self._starting:
            self._starting = 0
            self._no_start(how)

    def lost(self, worker: _Worker, how: str) -> None:
        """Its connection or its process has ended, or it sent what is no frame."""
        worker.close()
        self._workers.kill(worker.number)
        self._others.discard(worker)
        reason = worker.last_words or how
        pending = list(worker.pending.values())
        worker.pending.clear()
        if worker.number == self._starting:
            self._starting = 0
            self._no_start(reason)
        elif worker is self._current:
            self._current = None
            log.warning("%s: its worker is lost (%s); starting it again", self.name, reason)
            self._again(time.monotonic() - worker.started_s, MAX_WAIT_S)
        for call in pending:
            if call.again:
                call.again = False
                call.worker = None
                self._send(call)
            else:
                message = f"the process of the source {self.name!r} ended while the call ran ({reason})"
                self._fail(call, "unavailable", message)

    def _no_start(self, reason: str) -> None:
        if self._current is not None:
            log.error("%s: its new worker did not start, the old one goes on: %s", self.name, reason)
            return
        log.error("%s: %s", self.name, reason)
        self._again(0.0, MAX_DELAY_S)
        self.problem = reason
        self.settled.set()
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for call in waiting:
            self._send(call)

    def _again(self, lived_s: float, most_s: float) -> None:
        self._delay_s = 0.0 if lived_s >= STEADY_S else min(most_s, self._delay_s * 2 or FIRST_DELAY_S)
        if self._timer is not None:
            self._timer.cancel()
        if not self._starting:
            self._timer = self._workers.loop.call_later(self._delay_s, self.start)

    def published(self, worker: _Worker, tools: list[model.ToolSpec]) -> None:
        """Its catalogue: it is ready with the first."""
        if len(tools) > model.MAX_TOOLS:
            log.error("%s: %d tools; only the first %d are offered", self.name, len(tools), model.MAX_TOOLS)
            tools = tools[: model.MAX_TOOLS]
        if worker.number == self._starting:
            self._take_over(worker)
        if worker is self._current:
            self.tools = tools
            self._workers.on_catalogue(self.name, tools)
            self.settled.set()

    def _take_over(self, worker: _Worker) -> None:
        self._starting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        worker.ready = True
        self._others.discard(worker)
        before, self._current = self._current, worker
        self.problem = ""
        if before is not None:
            before.retiring = True
            self._others.add(before)
            self.maybe_end(before)
        waiting = list(self._waiting.values())
        self._waiting.clear()
        for call in waiting:
            self._send(call)

    def maybe_end(self, worker: _Worker) -> None:
        """Ends one that was replaced, once nobody waits for it."""
        if worker.retiring and not worker.pending and worker in self._others:
            self._others.discard(worker)
            worker.close()
            self._workers.kill(worker.number)

    def logged(self, frame: LogFrame) -> None:
        period = int(time.monotonic() / LOG_PERIOD_S)
        if period != self._log_period:
            if self._logged > LOG_LINES:
                log.warning("%s: %d lines of output were left out", self.name, self._logged - LOG_LINES)
            self._log_period, self._logged = period, 0
        self._logged += 1
        if self._logged <= LOG_LINES and frame.level != "critical":
            level = {"debug": 10, "warning": 30, "error": 40}.get(frame.level, 20)
            log.log(level, "%s: %s", self.name, frame.text)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for worker in [self._current, *self._others]:
            if worker is not None:
                for call in worker.pending.values():
                    if call.timer is not None:
                        call.timer.cancel()
                worker.close()
        self._current = None
        self._others.clear()
        for call in self._waiting.values():
            if call.timer is not None:
                call.timer.cancel()
        self._waiting.clear()
        self.problem = "the server is ending"


class Workers:
    """All sources of a server.

    Args:
        channel: the launcher's socket (see launcher.start); closed by `close`, which ends all workers.
        names: of the sources.
        on_catalogue: called with a source's name and its tools, at first and on each change.
    """

    def __init__(
        self,
        channel: socket.socket,
        names: Iterable[str],
        on_catalogue: Callable[[str, list[model.ToolSpec]], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.on_catalogue = on_catalogue
        self.sources = {name: SourceLink(self, name) for name in names}
        self._channel = channel
        self._numbers: dict[int, SourceLink] = {}
        self._last_number = 0
        self._last_ticket = 0
        channel.setblocking(False)
        self.loop.add_reader(channel, self._read)
        for source in self.sources.values():
            source.start()

    async def settled(self) -> None:
        """Until every source has offered its tools, or failed to."""
        for source in self.sources.values():
            await source.settled.wait()

    def ticket(self) -> int:
        self._last_ticket += 1
        return self._last_ticket

    def launch(self, name: str) -> int:
        """Asks for a worker of that source; returns its number."""
        self._last_number += 1
        self._numbers[self._last_number] = self.sources[name]
        self._tell({"start": self._last_number, "source": name})
        return self._last_number

    def kill(self, number: int) -> None:
        self._tell({"kill": number})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(message).encode())
        except OSError as error:  # it is gone, or does not read: then it is of no use
            self.loop.call_soon(self._lost, str(error))

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, LAUNCHER_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(str(error))
            return
        if not data:
            self._lost("it has ended")
            return
        message = json.loads(data)
        if "started" in message:
            channel = socket.socket(fileno=fds[0])
            source = self._numbers.get(message["started"])
            if source is None:
                channel.close()
            else:
                source.connected(message["started"], channel)
        elif "ended" in message:
            source = self._numbers.pop(message["ended"], None)
            if source is not None:
                source.failed(message["ended"], message["how"])
        elif message.get("changed") in self.sources:
            log.info("%s: its files have changed; its worker is replaced", message["changed"])
            self.sources[message["changed"]].start()

    def _lost(self, why: str) -> None:
        if self._channel.fileno() < 0:
            return
        log.error("the launcher of the tools' workers is lost (%s): there are no tools until a restart", why)
        self.loop.remove_reader(self._channel)
        self._channel.close()
        for number, source in self._numbers.items():
            source.failed(number, "its launcher ended")  # and it with it
        for source in self.sources.values():
            source.close()
            source.problem = "the launcher of the workers is lost; restart the server"
            source.settled.set()

    def close(self) -> None:
        for source in self.sources.values():
            source.close()
        if self._channel.fileno() >= 0:
            self.loop.remove_reader(self._channel)
            self._channel.close()
