"""The kernel's end of its socket to the supervisor: frames out, and frames in, for whichever thread they are.

There is no thread of ours that reads. Of the threads that wait for a frame one reads (the leader) and hands
the others theirs; when it has its own, it wakes another. An event loop with calls under way reads when the
socket is readable and nobody leads. Nothing here may be interrupted between two bytes of a frame.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

from onehop import protocol
from onehop.kernel import interrupts
from onehop.protocol import HEADER, HEADER_BYTES, Kind, Result

READ_BYTES = 65_536
_flush: Callable[[], None] | None = None


class Waiter:
    """What one thread waits for; `ready` once it is there."""

    __slots__ = ("lock", "ready")

    def __init__(self) -> None:
        self.ready = False
        self.lock: _thread.LockType | None = None

    def settle(self) -> None:
        """It is there."""
        self.ready = True
        self.wake()

    def wake(self) -> None:
        """Has its thread look again, if it sleeps."""
        lock, self.lock = self.lock, None
        if lock is not None:
            with contextlib.suppress(RuntimeError):  # somebody else was faster
                lock.release()


class Channel:
    """The socket, who reads it, and who waits for what.

    Attributes:
        execution: number of the one that runs, 0 between cells.
        left: True in a process that user code forked: it has no say here.
        waiting: by thread, what it waits for.
        on_return: takes the payloads of RETURN frames of this execution; it must not block.
        sending: held while a frame is made and sent.
        look: called before the leader goes to sleep; how many ms it may sleep at most, -1 for ever.
    """

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.execution = 0
        self.left = False
        self.waiting: dict[int, Waiter] = {}
        self.on_return: Callable[[bytes], None] | None = None
        self.look: Callable[[], int] | None = None
        self._held = b""
        self._received = bytearray()
        self.sending = threading.RLock()
        self._reading = _thread.allocate_lock()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._followers: deque[Waiter] = deque()
        self._loops: dict[asyncio.AbstractEventLoop, bool] = {}
        """Those that read, and whether they do at this moment."""
        self._asked: deque[Waiter] = deque()
        self._commands: deque[tuple[int, int, bytes]] = deque()
        self._main: Waiter | None = None

    # --- out ------------------------------------------------------------------------------------------

    def send(self, kind: Kind, payload: bytes = b"", *, hold: bool = False) -> None:
        """Sends a frame; with `hold` it goes together with the next one, which must follow soon."""
        self.send_with(kind, lambda: payload, hold=hold)

    def send_with(self, kind: Kind, make: Callable[[], bytes | None], *, hold: bool = False) -> None:
        """Like `send`; what `make` does is in the same order as the frames. Nothing is sent for None."""
        before = interrupts.hold()
        # The collector may run a finalizer of the user's, which may print, which is a frame.
        collects = gc.isenabled()
        if collects:
            gc.disable()
        try:
            with self.sending:
                payload = make()
                if payload is None or (kind == Kind.RESULT and not self.execution):
                    return  # nothing, or by a thread whose cell has just ended
                frame = self._held + protocol.pack(kind, self.execution, payload)
                self._held = b""
                if hold:
                    self._held = frame
                else:
                    self.socket.sendall(frame)
        finally:
            if collects:
                gc.enable()
            interrupts.release(before)

    def display(self, data: dict[str, str | bytes], *, final: bool = False) -> None:
        """Sends something displayed, in order with the text: what was printed before comes before it."""
        if not self.execution:
            return  # displayed by a thread after its cell had ended
        flush()
        if not final:
            self.synchronize()
        result = Result(
            text={mime: value for mime, value in data.items() if isinstance(value, str)},
            binary={mime: value for mime, value in data.items() if isinstance(value, bytes)},
            final=final,
        )
        payload = protocol.encode(result)
        if len(payload) > protocol.MAX_KERNEL_FRAME_BYTES:
            text = f"<output of {len(payload)} bytes is too large to show; save it to a file>"
            payload = protocol.encode(Result(text={"text/plain": text}, final=final))
        self.send(Kind.RESULT, payload, hold=final)  # the end follows: one wake-up of the supervisor

    def synchronize(self) -> None:
        """Waits until the supervisor has taken everything that was written to the pipes so far."""
        waiter = Waiter()

        def ask() -> bytes:
            self._asked.append(waiter)  # answers come in the order of the questions
            return b""

        self.send_with(Kind.SYNC, ask)
        self.wait(waiter)

    # --- in -------------------------------------------------------------------------------------------

    def receive(self) -> tuple[int, int, bytes]:
        """The next frame that is no answer; for the main thread, between cells."""
        self._main = Waiter()  # before the look: another thread may just be bringing it
        if not self._commands:
            self.wait(self._main)
        self._main = None
        return self._commands.popleft()

    def wait(self, waiter: Waiter) -> None:
        """Returns when `waiter` is ready. May be interrupted."""
        thread = _thread.get_ident()
        before = interrupts.hold()
        self.waiting[thread] = waiter
        try:
            while not waiter.ready:
                if self._reading.acquire(False):
                    try:
                        while not waiter.ready:
                            timeout_ms = self.look() if self.look is not None else -1
                            interrupts.release(before)
                            try:
                                self._poll.poll(timeout_ms)
                            finally:
                                interrupts.hold()
                            self._take()
                    finally:
                        self._reading.release()
                        self._promote()
                else:
                    self._follow(waiter, before)
        finally:
            self.waiting.pop(thread, None)
            if self._followers and not self._reading.locked():
                self._promote()  # we were woken to lead, and do not
            interrupts.release(before)

    def _follow(self, waiter: Waiter, before: bool) -> None:
        lock = waiter.lock = _thread.allocate_lock()
        lock.acquire()
        self._followers.append(waiter)
        try:
            # Looked at again, now that the leader would find us: it may have gone a moment ago.
            if waiter.ready or not self._reading.locked():
                return
            interrupts.release(before)
            try:
                lock.acquire()
            finally:
                interrupts.hold()
        finally:
            with contextlib.suppress(ValueError):
                self._followers.remove(waiter)
            waiter.lock = None

    def _promote(self) -> None:
        """Somebody else has to read now."""
        with contextlib.suppress(IndexError):  # another thread took the last
            while self._followers:
                follower = self._followers.popleft()
                if not follower.ready:
                    follower.wake()
                    break
        for loop, reads in list(self._loops.items()):
            if not reads:
                with contextlib.suppress(RuntimeError):  # it was closed
                    loop.call_soon_threadsafe(self._add_reader, loop)

    def _take(self) -> None:
        """Reads what has come and hands it out. For who holds `_reading`."""
        collects = gc.isenabled()  # see send_with
        if collects:
            gc.disable()
        try:
            self._take_frames()
        finally:
            if collects:
                gc.enable()

    def _take_frames(self) -> None:
        buffer = self._received
        size = READ_BYTES
        if len(buffer) >= HEADER_BYTES:
            size = max(size, HEADER_BYTES + HEADER.unpack_from(buffer)[0] - len(buffer))
        try:
            data = self.socket.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            os._exit(0)  # the supervisor has hung up: there is nobody to work for
        buffer += data
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            length, kind, execution = HEADER.unpack_from(buffer, start)
            end = start + HEADER_BYTES + length
            if len(buffer) < end:
                break
            payload = bytes(memoryview(buffer)[start + HEADER_BYTES : end])
            start = end
            if kind == Kind.RETURN:
                if self.on_return is not None and execution == self.execution:
                    self.on_return(payload)
            elif kind == Kind.PROCEED:
                if self._asked:
                    self._asked.popleft().settle()
            else:
                self._commands.append((kind, execution, payload))
                if self._main is not None:
                    self._main.settle()
        del buffer[:start]

    # --- event loops ----------------------------------------------------------------------------------

    def join(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`, which runs in this thread, reads from now on."""
        if loop not in self._loops:
            self._loops = {one: reads for one, reads in self._loops.items() if not one.is_closed()}
            self._loops[loop] = False
            self._add_reader(loop)

    def part(self) -> None:
        """No loop reads any more. For the main thread."""
        loops, self._loops = self._loops, {}
        for loop, reads in loops.items():
            if reads and not loop.is_closed():
                with contextlib.suppress(RuntimeError):
                    if loop.is_running():
                        loop.call_soon_threadsafe(loop.remove_reader, self.socket.fileno())
                    else:
                        loop.remove_reader(self.socket.fileno())

    def _add_reader(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop in self._loops and not self._loops[loop]:
            self._loops[loop] = True
            loop.add_reader(self.socket.fileno(), self._readable, loop)

    def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop not in self._loops:
            loop.remove_reader(self.socket.fileno())
            return
        before = interrupts.hold()
        try:
            if not self._reading.acquire(False):
                # A thread reads: this loop would be told again and again.
                self._loops[loop] = False
                loop.remove_reader(self.socket.fileno())
                if not self._reading.locked():
                    self._add_reader(loop)
                return
            try:
                self._take()
            finally:
                self._reading.release()
                if self._followers:
                    self._promote()
        finally:
            try:
                interrupts.release(before)
            except KeyboardInterrupt:
                loop.call_soon(interrupts.strike)  # between two steps of the loop

    # --- a fork of the user's -------------------------------------------------------------------------

    def leave(self) -> None:
        """In a process that user code forked: it may neither read nor write here."""
        self.left = True
        self.execution = 0
        self.on_return = self.look = None
        self._loops = {}
        self.socket.close()


def rehearse(rounds: int) -> None:
    """What every cell does here, in the zygote, so that forks share the bytecode that CPython rewrites."""
    ours, theirs = socket.socketpair()
    channel = Channel(theirs.detach())
    try:
        for _ in range(rounds):
            ours.sendall(protocol.pack(Kind.PROCEED, 0))
            channel.synchronize()
            ours.sendall(protocol.pack(Kind.ENTER, 0, b"x"))
            channel.receive()
    finally:
        ours.close()
        channel.socket.close()


def use_flush(call: Callable[[], None]) -> None:
    """What `flush` is to do."""
    global _flush
    _flush = call


def flush() -> None:
    """What was printed so far goes to the pipes."""
    if _flush is not None:
        _flush()
