"""Calls of tools that code waits for, as the supervisor sees them: numbers, sizes, and whether they are answered.

It passes on what it does not understand. What a call says is between the kernel and the gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onehop import protocol
from onehop.protocol import (
    CALL_NUMBER,
    MAX_CALL_BYTES,
    MAX_CALLS,
    MAX_PENDING_CALL_BYTES,
    MAX_PENDING_CALLS,
    Kind,
)
from onehop.supervisor.execution import Execution
from onehop.supervisor.link import Link

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox

SUSPENDED_LOOK_S = 2.0
SUSPENDED_CPU_NS = 300_000_000
"""CPU time of a kernel that waits for nothing but results: more than it could need."""
SMALL_BYTES = 512
"""A call that is not longer stays in the log as it is: making it shorter costs more than it gains."""


class PendingCalls:
    """The calls of one execution. Methods return what a kernel of ours would not have done, or ""."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._pending: dict[int, tuple[int, bytes]] = {}
        """By number: that of the event, and its payload."""
        self._bytes = 0
        self._made = 0
        self._returned = 0
        self._blocked_at = (-1, -1)

    def called(self, payload: bytes) -> str:
        """A CALL came."""
        if not self._execution.spec.catalogue:
            return "a call of a tool where there are none"
        if len(payload) > CALL_NUMBER.size + MAX_CALL_BYTES:
            return f"a call of {len(payload)} bytes"
        try:
            number = protocol.call_number(payload)
        except ValueError:
            return "a call without a number"
        if number != self._made + 1:
            return "a call out of order"
        self._bytes += len(payload)
        if (
            number > MAX_CALLS
            or len(self._pending) >= MAX_PENDING_CALLS
            or self._bytes > MAX_PENDING_CALL_BYTES
        ):
            return "more calls than may be pending"
        self._made = number
        self._execution.add("call", payload)
        self._pending[number] = (self._execution.last, payload)
        return ""

    def blocked(self, payload: bytes) -> str:
        """A BLOCKED came. It is out of date when an answer is on its way; the kernel will say it again."""
        if len(payload) != CALL_NUMBER.size:
            return "a BLOCKED without a number"
        count = protocol.call_number(payload)
        if count < self._returned:
            return ""
        now = (self._made, self._returned)
        if count > self._returned or not self._pending or now == self._blocked_at:
            return "a BLOCKED that cannot be"
        self._blocked_at = now
        self._execution.add("blocked", b"")
        return ""

    @property
    def are_blocking(self) -> bool:
        """The code's last word is that nothing but an answer can make it go on."""
        return bool(self._pending) and self._blocked_at == (self._made, self._returned)

    def answer(self, link: Link, number: int, payload: bytes, end: bytes) -> bool:
        """Sends the kernel its RETURN. False when that call is not pending."""
        found = self._pending.pop(number, None)
        if found is None:
            return False
        event, call = found
        self._bytes -= len(call)
        if len(call) > SMALL_BYTES:
            self._execution.replace(event, "call", protocol.brief_call(call))
        self._returned += 1
        link.send(Kind.RETURN, self._execution.number, CALL_NUMBER.pack(number) + payload)
        if self._execution.end is None:
            self._execution.add("return", end, soon=True)
        return True


class Calls:
    """Of all executions of one sandbox, and the suspension of those that wait for nothing else."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._by_execution: dict[Execution, PendingCalls] = {}

    def take(self, execution: Execution, kind: int, payload: bytes) -> str:
        """A CALL or a BLOCKED came; what a kernel of ours would not have done, or ""."""
        calls = self._by_execution.get(execution)
        if calls is None:
            calls = self._by_execution[execution] = PendingCalls(execution)
        return calls.called(payload) if kind == Kind.CALL else calls.blocked(payload)

    def forget(self, execution: Execution) -> None:
        """It has ended."""
        self._by_execution.pop(execution, None)

    def answer(self, execution: Execution, number: int, payload: bytes, end: bytes) -> None:
        """Answers a call; nothing happens when it is not pending."""
        calls = self._by_execution.get(execution)
        link = self._sandbox.links.get(execution.place)
        if calls is not None and isinstance(link, Link) and calls.answer(link, number, payload, end):
            execution.resume()
            self._sandbox.around.watch(self._sandbox)

    def suspend(self, execution: Execution, timeout_s: float) -> None:
        """The execution's time stands still until a call of it is answered, for so long at most.

        Nothing happens unless it has just said that nothing else can make it go on.
        """
        sandbox = self._sandbox
        calls = self._by_execution.get(execution)
        link = sandbox.links.get(execution.place)
        if calls is None or not calls.are_blocking or not isinstance(link, Link):
            return
        reason = f"no results of its tool calls came within {timeout_s:g} s"
        if execution.suspend(
            timeout_s, lambda: sandbox.executions.stop(execution.place, execution, "timeout", reason)
        ):
            cpu_ns = sandbox.around.cpu_ns(link.pidfd)
            self._look_later(execution, link, execution.suspensions, cpu_ns)

    def _look_later(self, execution: Execution, link: Link, suspension: int, before_ns: int) -> None:
        """A kernel that said it could not go on, and works, has lied: its time goes on, too."""

        def look() -> None:
            if not execution.suspended or execution.suspensions != suspension:
                return
            if self._sandbox.around.cpu_ns(link.pidfd) - before_ns > SUSPENDED_CPU_NS:
                execution.resume()
                self._sandbox.around.watch(self._sandbox)
            else:
                self._look_later(execution, link, suspension, before_ns)

        execution.after(SUSPENDED_LOOK_S, look)
