"""The calls of one execution, from the code's question to its answer: counted, started in order, recorded.

Each ends exactly once. What the supervisor told in an earlier life of the gateway is told again first
(`held`); only then is anything started, so that no call is carried out twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol, cast

import msgspec

from onehop import protocol
from onehop.crash import reached
from onehop.errors import CallNotPendingError, InvalidRequestError
from onehop.protocol import CallError
from onehop.sessions.answers import (
    ToolCallEvent,
    ToolCallInfo,
    ToolCallRequiredEvent,
    ToolResultEvent,
    ToolsLoadedEvent,
)
from onehop.sessions.calls import Call, CallStatus, Dispatcher, Needs, Outcome, ToolAnswer, ToolSet
from onehop.store import ToolCallRow
from onehop.supervisor.messages import CallEnd, decode_call_end

CALL_PREFIX = "call_"
SHOWN_BYTES = 4096
"""Longer arguments of a registered tool are left out of its event; nobody has to act on them."""
ERROR_CHARACTERS = 2000

PublicCallEvent = tuple[str, ToolCallEvent | ToolResultEvent | ToolCallRequiredEvent | ToolsLoadedEvent]
_encode = msgspec.msgpack.Encoder().encode


class Supervisor(Protocol):
    """What calls need of SupervisorClient."""

    def return_call(self, execution: str, call: int, payload: bytes, end: bytes) -> None: ...
    def suspend(self, execution: str, timeout_s: float) -> None: ...


class _Pending:
    """A call that has not ended."""

    __slots__ = (
        "arguments",
        "bytes_out",
        "cancel",
        "encoded",
        "name",
        "needs",
        "number",
        "started_at",
        "status",
    )

    def __init__(
        self, number: int, name: str, arguments: dict[str, Any], bytes_out: int, encoded: bytes
    ) -> None:
        self.number = number
        self.name = name
        self.arguments = arguments
        self.bytes_out = bytes_out
        self.encoded = encoded
        self.started_at = time.time()
        self.status: CallStatus = "running"
        self.needs: Needs | None = None
        self.cancel: Callable[[], None] | None = None

    @property
    def id(self) -> str:
        return f"{CALL_PREFIX}{self.number}"


class Calls:
    """Made for an execution that has tools; `close` when it ends.

    Args:
        on_suspended: called each time that the client has to do something.
        on_recorded: gets each call that has ended.
        held_until: number of the last event that an earlier gateway may have seen; 0: there was none.

    Attributes:
        suspended: nothing but results or approvals of the client can make the code go on.
        ended: those that have, in the order of their ends.
        made: how many there were.
    """

    def __init__(
        self,
        toolset: ToolSet,
        dispatcher: Dispatcher,
        supervisor: Supervisor,
        *,
        execution: str,
        owner: str,
        on_suspended: Callable[[], None],
        on_recorded: Callable[[ToolCallRow], None],
        held_until: int = 0,
    ) -> None:
        self.toolset = toolset
        self.suspended = False
        self.ended: list[ToolCallInfo] = []
        self.made = 0
        self._dispatcher = dispatcher
        self._supervisor = supervisor
        self._execution = execution
        self._owner = owner
        self._on_suspended = on_suspended
        self._on_recorded = on_recorded
        self.held_until = held_until
        self._held = held_until > 0
        self._client = {tool.name for tool in toolset.client}
        self._pending: dict[int, _Pending] = {}
        self._queue: deque[_Pending] = deque()
        self._running = 0
        self._starting = False
        self._catalogue_asked: list[int] = []
        self._catalogue_calls: set[int] = set()
        self._bytes_in = 0
        self._bytes_out = 0
        self._over = False

    # --- what the supervisor tells ------------------------------------------------------------------

    def called(self, payload: bytes) -> PublicCallEvent:
        """The code calls a tool. Raises ValueError for what is no call."""
        number = protocol.call_number(payload)
        encoded = payload[protocol.CALL_NUMBER.size :]
        call = protocol.decode_call(encoded)
        if call.name == protocol.CATALOGUE_TOOL:
            self._catalogue_asked.append(number)
            if not self._held:
                self._tell_catalogue()
            self._catalogue_calls.add(number)
            return "tools_asked", ToolsLoadedEvent(self.toolset.catalogue)
        self.made += 1
        size = len(payload)
        pending = self._pending[number] = _Pending(number, call.name, call.arguments, size, encoded)
        self._bytes_out += size
        if call.name in self._client:
            pending.needs = "result"
        elif self._dispatcher.approval(self.toolset, call.name):
            pending.needs = "approval"
        needs = pending.needs
        if not self._held:
            self._take(pending)  # first of all: the code waits, the bookkeeping does not
        shown = call.arguments if needs or size <= SHOWN_BYTES else None
        return "tool_call", ToolCallEvent(pending.id, call.name, shown, needs)

    def returned(self, payload: bytes) -> PublicCallEvent:
        """A call has its answer; ours, or that of a gateway before us."""
        end = decode_call_end(payload)
        self.suspended = False
        if end.call in self._catalogue_calls:
            self._catalogue_asked = [number for number in self._catalogue_asked if number != end.call]
            return "tools_loaded", ToolsLoadedEvent(self.toolset.catalogue)
        pending = self._pending.pop(end.call, None)
        if pending is not None:  # else it has ended by our own doing
            # A gateway before us may have had no time to write it down; what it has written stays as it is.
            self._record(pending, cast(CallStatus, end.status), end.error, 0, end.ms)
        return "tool_result", ToolResultEvent(
            f"{CALL_PREFIX}{end.call}", cast(CallStatus, end.status), end.error, end.ms
        )

    def blocked(self) -> PublicCallEvent:
        """Nothing but pending calls can make the code go on."""
        if self._pending and all(one.needs for one in self._pending.values()):
            self.suspended = True
            if not self._held:
                self._suspend()
        return "tool_call_required", ToolCallRequiredEvent(self.pending())

    def go_on(self) -> None:
        """All that was told before has been told again."""
        self._held = False
        self._tell_catalogue()
        for pending in list(self._pending.values()):
            if pending.needs or self._dispatcher.repeatable(self.toolset, pending.name):
                self._take(pending)
            else:
                self._end(
                    pending,
                    "outcome_unknown",
                    _failed(
                        "outcome_unknown",
                        "the server was started again during the call; whether it was carried out is not known",
                    ),
                )
        if self.suspended:
            self._suspend()

    def close(self) -> None:
        """The execution has ended: nobody waits for what is pending any more."""
        self._over = True
        for pending in list(self._pending.values()):
            cancel, pending.cancel = pending.cancel, None
            ms = round((time.time() - pending.started_at) * 1000, 3)
            self._record(pending, "abandoned", "its execution ended first", 0, ms)
            if cancel is not None:
                cancel()
        self._pending.clear()
        self._queue.clear()
        self.suspended = False

    # --- what the client sends ----------------------------------------------------------------------

    def pending(self) -> list[ToolCallInfo]:
        """What the client has to do something about."""
        return [
            ToolCallInfo(id=one.id, name=one.name, status="pending", arguments=one.arguments, needs=one.needs)
            for one in self._pending.values()
            if one.needs
        ]

    def submit(self, answers: list[ToolAnswer]) -> None:
        """Results and approvals: all of them, or none.

        Raises:
            InvalidRequestError: one of them is no answer, or there are two for one call.
            CallNotPendingError: a call is not there, or does not wait for this.
        """
        checked: list[tuple[_Pending, Outcome | None]] = []
        seen: set[str] = set()
        for place, answer in enumerate(answers):
            if answer.id in seen:
                raise InvalidRequestError(
                    f"results[{place}]: there are two results for {answer.id[:40]!r}", field="results"
                )
            seen.add(answer.id)
            pending = self._waiting(answer.id)
            checked.append((pending, _outcome(place, answer, pending)))
        reached("results-claimed")
        for pending, outcome in checked:
            if outcome is not None:
                denied = outcome.error is not None and outcome.error.kind == "denied"
                self._done(pending, outcome, "denied" if denied else None)
            else:
                pending.needs = None
                self._begin(pending)
        self.suspended = False

    def _waiting(self, name: str) -> _Pending:
        number = name.removeprefix(CALL_PREFIX)
        pending = (
            self._pending.get(int(number))
            if number.isascii() and number.isdigit() and len(number) < 10
            else None
        )
        if pending is None or not pending.needs or pending.id != name:
            raise CallNotPendingError(
                f"the call {name[:40]!r} waits for nothing: it was answered, has ended, or never was",
                call=name[:40],
            )
        return pending

    # --- one call -----------------------------------------------------------------------------------

    def _take(self, pending: _Pending) -> None:
        toolset = self.toolset
        if self.made > toolset.max_calls:
            error: CallError | None = CallError(
                "budget", f"this execution may make {toolset.max_calls} calls of tools, and has made them"
            )
        elif self._bytes_out > toolset.max_bytes_out:
            error = CallError(
                "budget",
                f"the arguments of this execution's calls have more than {toolset.max_bytes_out} bytes together",
            )
        else:
            error = self._dispatcher.check(toolset, pending.name, pending.arguments)
        if error is not None:
            self._end(pending, "error", Outcome(error=error))
        elif not pending.needs:
            self._begin(pending)

    def _begin(self, pending: _Pending) -> None:
        self._queue.append(pending)
        self._start_queued()

    def _start_queued(self) -> None:
        if self._starting:
            return  # a call that ended at once makes room for the next one without going deeper
        self._starting = True
        try:
            while self._queue and self._running < self.toolset.max_parallel:
                self._start(self._queue.popleft())
        finally:
            self._starting = False

    def _start(self, pending: _Pending) -> None:
        self._running += 1
        call = Call(
            self._execution, pending.number, pending.name, pending.arguments, self._owner, self.toolset.key
        )

        def done(outcome: Outcome) -> None:
            self._running -= 1
            self._done(pending, outcome)
            if self._queue:
                self._start_queued()

        reached("call-dispatched")
        cancel = self._dispatcher.start(self.toolset, call, done)
        if pending.number in self._pending:
            pending.cancel = cancel

    def _done(self, pending: _Pending, outcome: Outcome, status: CallStatus | None = None) -> None:
        if status is None:
            status = "ok" if outcome.error is None else "error"
        self._end(pending, status, outcome)

    def _end(self, pending: _Pending, status: CallStatus, outcome: Outcome) -> None:
        if self._over or self._pending.pop(pending.number, None) is None:
            return
        reached("call-answered")
        error = outcome.error
        payload, problem = self._payload(outcome)
        if problem is not None:
            status, error = "error", problem
        message = "" if error is None else error.message[:ERROR_CHARACTERS]
        ms = round((time.time() - pending.started_at) * 1000, 3)
        self._supervisor.return_call(
            self._execution, pending.number, payload, _encode(CallEnd(pending.number, status, ms, message))
        )
        self._record(pending, status, message, len(payload), ms)

    def _payload(self, outcome: Outcome) -> tuple[bytes, CallError | None]:
        """What goes to the kernel, and the error that took its place."""
        problem: CallError | None = None
        try:
            payload = _encode(protocol.Return(outcome.value, outcome.error, outcome.files))
        except (OverflowError, TypeError, ValueError, RecursionError) as error:
            problem = CallError("bad_result", f"the result is no plain JSON data: {error}")
            payload = b""
        most = protocol.MAX_RETURN_BYTES
        if len(payload) > most:
            problem = CallError(
                "bad_result",
                f"the result has {len(payload)} bytes, the most is {most}; have the tool give a page at a time",
            )
        elif self._bytes_in + len(payload) > self.toolset.max_bytes_in:
            problem = CallError(
                "budget",
                f"the results of this execution's calls have more than {self.toolset.max_bytes_in} bytes together",
            )
        if problem is not None:
            payload = _encode(protocol.Return(None, problem))
        self._bytes_in += len(payload)
        return payload, problem

    def _tell_catalogue(self) -> None:
        for number in self._catalogue_asked:
            entries = self._dispatcher.catalogue(self.toolset)
            self._supervisor.return_call(
                self._execution,
                number,
                _encode(protocol.Return(entries)),
                _encode(CallEnd(number, "ok", 0.0)),
            )
        self._catalogue_asked.clear()

    def _suspend(self) -> None:
        self._supervisor.suspend(self._execution, self.toolset.results_timeout_s)
        self._on_suspended()

    # --- the record ---------------------------------------------------------------------------------

    def _record(self, pending: _Pending, status: CallStatus, error: str, bytes_in: int, ms: float) -> None:
        self._list(pending.id, pending.name, status, error, ms)
        self._on_recorded(
            ToolCallRow(
                execution=self._execution,
                number=pending.number,
                owner=self._owner,
                key=self.toolset.key,
                name=pending.name,
                arguments_sha256=sha256(pending.encoded).hexdigest(),
                bytes_out=pending.bytes_out,
                bytes_in=bytes_in,
                started_at=pending.started_at,
                ms=ms,
                status=status,
                error=error,
            )
        )

    def _list(self, name: str, tool: str, status: CallStatus, error: str, ms: float) -> None:
        self.ended.append(ToolCallInfo(id=name, name=tool, status=status, error=error, ms=ms))


def _outcome(place: int, answer: ToolAnswer, pending: _Pending) -> Outcome | None:
    """None: the call was approved and is to be started. Raises InvalidRequestError."""
    given = [name for name in ("result", "error", "approve") if getattr(answer, name) is not msgspec.UNSET]
    wanted = ("approve",) if pending.needs == "approval" else ("result", "error")
    if len(given) != 1 or given[0] not in wanted:
        raise InvalidRequestError(
            f"results[{place}]: {pending.id} needs exactly one of {', '.join(wanted)}", field="results"
        )
    if answer.approve is not msgspec.UNSET:
        if answer.approve:
            return None
        return _failed("denied", answer.reason or f"the call of {pending.name} was not approved")
    if answer.error is not msgspec.UNSET:
        return _failed("failed", answer.error)
    assert answer.result is not msgspec.UNSET
    return Outcome(answer.result)


def _failed(kind: str, message: str) -> Outcome:
    return Outcome(error=CallError(kind, message))
