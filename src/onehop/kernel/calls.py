"""The calls of the execution that runs: sent, waited for, answered, given up; and the word that all are blocked.

The supervisor bounds what an execution may have under way; this keeps below it by itself. Nothing of one
execution is left when the next begins.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from onehop import protocol
from onehop.kernel import blocked, interrupts, modes
from onehop.kernel import channel as channel_module
from onehop.kernel.awaitables import UnawaitedToolCall, UnboundToolCall
from onehop.kernel.channel import Channel, Waiter
from onehop.kernel.plain import NotPlainError, plain
from onehop.kernel.tool_errors import (
    CLASSES,
    ToolArgumentError,
    ToolBudgetError,
    ToolError,
    ToolFailedError,
    ToolResultError,
    ToolUnavailableError,
)
from onehop.protocol import Call, Kind

LOOKS_MS = (2, 10, 50, 100)
CONFIRM_MS = 2
"""When to look again whether all are blocked, after it was not so."""
MAX_NAMED = 5
_FORKED = "the code forked this process, and only the one that was forked from may call tools"


class Pending(Waiter):
    """A call. `number` is 0 until it is sent; `payload` is what will be sent, then nothing."""

    __slots__ = (
        "answer",
        "dropped",
        "error",
        "future",
        "number",
        "path",
        "payload",
        "size",
        "waits",
    )

    def __init__(self, path: str, payload: bytes, *, waits: bool) -> None:
        super().__init__()
        self.path = path
        self.payload = payload
        self.size = len(payload)
        self.waits = waits
        self.number = 0
        self.answer = b""
        self.error: ToolError | None = None
        self.future: asyncio.Future[Any] | None = None
        self.dropped = False

    def state(self) -> str:
        """For people."""
        return "answered" if self.ready else "pending"


class Calls:
    """All calls of one execution.

    Attributes:
        catalogue: id of the catalogue of the execution that runs, empty between those that have one.
    """

    def __init__(self, channel: Channel, home: str) -> None:
        self.catalogue = ""
        self.channel = channel
        self._home = home
        self._sent: dict[int, Pending] = {}
        self._queue: deque[Pending] = deque()
        self._reset()

    def _reset(self) -> None:
        self._last = 0
        self._sent.clear()
        self._queue.clear()
        self._sent_bytes = 0
        self._returned = 0
        self._live = 0
        self._live_waits = 0
        self._looks = 0
        self._said_blocked = False
        self._seemed_blocked: tuple[int, int] | None = None
        """What was under way at the last look, if all seemed to be blocked then."""
        self._unawaited: dict[int, Pending] = {}
        """By identity: calls that gave something to await."""
        self._watched: dict[asyncio.AbstractEventLoop, Callable[[], None] | None] = {}

    # --- an execution's begin and end -----------------------------------------------------------------

    def begin(self, catalogue: str) -> None:
        """An execution with these tools begins."""
        modes.forget()
        with self.channel.sending:
            self._reset()
            self.catalogue = catalogue
        self.channel.on_return = self._on_return
        self.channel.look = self._look

    def end(self) -> None:
        """It has ended: what is under way is given up."""
        channel = self.channel
        if not channel.left:
            with channel.sending:  # after this no thread sends a call of it any more
                self.catalogue = ""
        channel.on_return = channel.look = None
        if channel.left:
            return
        self._warn()
        for end in self._watched.values():
            if end is not None:
                end()
        channel.part()
        for pending in (*self._sent.values(), *self._queue):
            if not pending.ready and not pending.dropped:
                self._fail(pending, "its execution ended before it had an answer")
        self._reset()

    def _warn(self) -> None:
        names = [one.path for one in self._unawaited.values() if not one.dropped]
        if names:
            shown = ", ".join(f"tools.{name}" for name in names[:MAX_NAMED])
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            with contextlib.suppress(Exception):  # whatever user code did to sys.stderr
                sys.stderr.write(
                    f"RuntimeWarning: calls that were never awaited: {shown}{more}; their results are lost "
                    "(write `await`, or use .sync())\n"
                )

    def fork(self) -> None:
        """In a process that user code forked."""
        waiting = [*self._sent.values(), *self._queue]
        self._sent.clear()
        self._queue.clear()
        for end in self._watched.values():
            if end is not None:
                end()
        for pending in waiting:
            if not pending.ready and not pending.dropped:
                self._fail(pending, _FORKED)

    def _fail(self, pending: Pending, why: str) -> None:
        pending.error = ToolUnavailableError(pending.path, why)
        pending.settle()
        if pending.future is not None:
            self._tell(pending)

    # --- a call ---------------------------------------------------------------------------------------

    def check(self, path: str) -> None:
        """Raises ToolUnavailableError where no tool can be called."""
        if self.channel.left:
            raise ToolUnavailableError(path, _FORKED)
        if not self.catalogue:
            raise ToolUnavailableError(path, "no execution with tools is running now")

    def now(self, path: str, name: str, arguments: dict[str, Any], *, waits: bool = False) -> Any:
        """Calls and waits for the value. Raises ToolError."""
        pending = self._start(path, name, arguments, waits)
        try:
            self.channel.wait(pending)
        except BaseException:
            self.give_up(pending)
            raise
        return self._outcome(pending)

    def soon(self, path: str, name: str, arguments: dict[str, Any], *, waits: bool) -> Any:
        """Calls and gives something to await."""
        loop = asyncio._get_running_loop()
        pending = self._start(path, name, arguments, waits, loop)
        self._unawaited[id(pending)] = pending
        if pending.future is not None:
            return pending.future
        return UnboundToolCall(self, pending)

    def future(self, pending: Pending) -> asyncio.Future[Any]:
        """That of a call that was made before a loop ran."""
        if pending.future is None:
            loop = asyncio.get_running_loop()
            self.used(pending)
            future = UnawaitedToolCall(self, pending, loop)
            self._tie(pending, loop, future)
            if pending.ready and not future.done():
                self._settle(pending)
        assert pending.future is not None
        return pending.future

    def used(self, pending: Pending) -> None:
        """Somebody awaits it."""
        self._unawaited.pop(id(pending), None)

    def _tie(self, pending: Pending, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        pending.future = future
        if pending.ready:
            return
        self.channel.join(loop)
        if pending.waits and loop not in self._watched:
            self._watched = {one: end for one, end in self._watched.items() if not one.is_closed()}
            self._watched[loop] = blocked.watch(loop, self._look_from_loop)

    def _start(
        self,
        path: str,
        name: str,
        arguments: dict[str, Any],
        waits: bool,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Pending:
        self.check(path)
        payload = _encode(path, name, arguments)
        pending = Pending(path, payload, waits=waits)
        if waits:
            channel_module.flush()  # whoever is asked sees what was printed before, also half a line
        before = interrupts.hold()
        try:
            if loop is not None:
                self._tie(pending, loop, UnawaitedToolCall(self, pending, loop))
            self._send(pending)
        finally:
            interrupts.release(before)
        return pending

    def _send(self, pending: Pending) -> None:
        def make() -> bytes | None:
            self.check(pending.path)
            if self._last + len(self._queue) >= protocol.MAX_CALLS:
                raise ToolBudgetError(
                    pending.path, f"this execution has made {protocol.MAX_CALLS} calls, the most there can be"
                )
            self._live += 1
            self._live_waits += pending.waits
            self._looks = 0
            if self._queue or not self._has_room(pending):
                self._queue.append(pending)
                return None
            return self._frame(pending)

        self.channel.send_with(Kind.CALL, make)

    def _has_room(self, pending: Pending) -> bool:
        return (
            len(self._sent) < protocol.MAX_PENDING_CALLS
            and self._sent_bytes + pending.size <= protocol.MAX_PENDING_CALL_BYTES
        )

    def _frame(self, pending: Pending) -> bytes:
        self._last += 1
        self._said_blocked = False
        pending.number = self._last
        self._sent[pending.number] = pending
        self._sent_bytes += pending.size
        payload = protocol.CALL_NUMBER.pack(pending.number) + pending.payload
        pending.payload = b""
        return payload

    def _send_queued(self) -> None:
        def make() -> bytes | None:
            while self._queue and self._queue[0].dropped:
                self._queue.popleft()
            if not self._queue or not self.catalogue or not self._has_room(self._queue[0]):
                return None
            return self._frame(self._queue.popleft())

        self.channel.send_with(Kind.CALL, make)

    def give_up(self, pending: Pending) -> None:
        """Nobody waits for it any more; the supervisor counts it until it is answered."""
        if not pending.dropped and not pending.ready:
            pending.dropped = True
            self._live -= 1
            self._live_waits -= pending.waits
            self._looks = 0

    # --- an answer ------------------------------------------------------------------------------------

    def _on_return(self, payload: bytes) -> None:
        """By whoever reads the channel."""
        number = protocol.call_number(payload)
        pending = self._sent.pop(number, None)
        self._returned += 1
        self._looks = 0
        self._said_blocked = False
        if pending is None:
            return
        self._sent_bytes -= pending.size
        if not pending.dropped:
            self._live -= 1
            self._live_waits -= pending.waits
            pending.answer = payload
            pending.settle()
            if pending.future is not None:
                self._tell(pending)
        if self._queue:
            self._send_queued()

    def _tell(self, pending: Pending) -> None:
        """The future gets it, in its own loop's thread."""
        future = pending.future
        assert future is not None
        loop = future.get_loop()
        if asyncio._get_running_loop() is loop:
            self._settle(pending)
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody will ask
                loop.call_soon_threadsafe(self._settle, pending)

    def _settle(self, pending: Pending) -> None:
        future = pending.future
        if future is None or future.done():
            return
        try:
            value = self._outcome(pending)
        except ToolError as error:
            future.set_exception(error)
            if pending.error is not None:
                future.exception()  # given up: nobody has to ask
        else:
            future.set_result(value)

    def _outcome(self, pending: Pending) -> Any:
        if pending.error is not None:
            raise pending.error
        try:
            answer = protocol.decode_return(pending.answer[protocol.CALL_NUMBER.size :])
        except ValueError as error:
            raise ToolResultError(pending.path, f"its result cannot be read: {error}") from None
        finally:
            pending.answer = b""
        if answer.error is not None:
            kind = CLASSES.get(answer.error.kind, ToolFailedError)
            raise kind(pending.path, answer.error.message, answer.error.parameters)
        if answer.files:
            self._write_files(pending.path, answer.files)
        return answer.value

    def _write_files(self, path: str, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            problem = protocol.check_path(name)
            if problem is not None:
                raise ToolResultError(path, f"its result has a file whose path {problem}")
            target = os.path.join(self._home, name)
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as file:
                    file.write(content)
            except OSError as error:
                raise ToolResultError(
                    path, f"its result's file {name!r} cannot be written: {error}"
                ) from None

    # --- blocked --------------------------------------------------------------------------------------

    def _look_from_loop(self, loop: Any) -> int:
        if not blocked.loop_is_idle(loop, self.channel.socket.fileno()):
            return -1  # this very loop waits for something else; it looks again when that has come
        return self._look()

    def _look(self) -> int:
        """Says that all are blocked, if they are; else how many ms until the next look, -1 for none."""
        if self._live_waits == 0 or self._said_blocked or not self.catalogue:
            return -1
        if self._live == self._live_waits and blocked.all_but(
            _thread.get_ident(), self.channel.waiting, self.channel.socket.fileno()
        ):
            # With other threads it has to hold twice: one may have been handed something to do, and not
            # come to its next line yet.
            seen = (self._live, self._returned)
            if threading.active_count() == 1 or self._seemed_blocked == seen:
                self.channel.send_with(Kind.BLOCKED, self._blocked)
                return -1
            self._seemed_blocked = seen
            return CONFIRM_MS
        self._seemed_blocked = None
        self._looks += 1
        return LOOKS_MS[min(self._looks, len(LOOKS_MS)) - 1]

    def _blocked(self) -> bytes | None:
        if self._said_blocked or not self.catalogue or self._live == 0 or self._live != self._live_waits:
            return None
        self._said_blocked = True
        return protocol.CALL_NUMBER.pack(self._returned)


def _encode(path: str, name: str, arguments: dict[str, Any]) -> bytes:
    try:
        payload = protocol.encode(Call(name, plain(arguments)))
    except NotPlainError as error:
        raise ToolArgumentError(path, f"{error.place or 'an argument'}: {error}") from None
    except RecursionError:
        raise ToolArgumentError(path, "its arguments are nested too deeply, or hold themselves") from None
    except (ValueError, OverflowError) as error:
        raise ToolArgumentError(path, f"its arguments cannot be sent: {error}") from None
    if len(payload) + protocol.CALL_NUMBER.size > protocol.MAX_CALL_BYTES:
        raise ToolArgumentError(
            path,
            f"its arguments are {len(payload)} bytes, more than {protocol.MAX_CALL_BYTES}: "
            "send less at once, or save them to a file and pass its path",
        )
    return payload
