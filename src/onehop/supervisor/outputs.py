"""What becomes of the text that a sandbox's processes write: events up to a limit, then a file of the workspace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from onehop.supervisor.execution import MAX_EVENTS, SPILL_ASKED, Execution
from onehop.supervisor.link import Link
from onehop.supervisor.pipes import Pipes

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox

LATE_OUTPUT_BYTES = 65_536


class Outputs:
    """Of all executions of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._late: dict[str, bytearray] = {}
        """Text of a context that came while nothing ran in it; its next execution begins with it."""

    def take_late(self, context: str) -> bytes:
        """What came while nothing ran there; it is told once."""
        return bytes(self._late.pop(context, b""))

    def written(self, link: Pipes, stream: str, data: bytes) -> None:
        """A process has written to one of its pipes."""
        sandbox = self._sandbox
        execution = sandbox.executions.running.get(link.name)
        if execution is None:
            if isinstance(link, Link) and sandbox.state == "assigned":
                late = self._late.setdefault(link.name, bytearray())
                late += data[: LATE_OUTPUT_BYTES - len(late)]
            return
        if not execution.truncated or execution.output_left > 0:
            take = data[: execution.output_left] if execution.texts < MAX_EVENTS else b""
            if execution.texts >= MAX_EVENTS:
                execution.output_left = 0
            if take:
                execution.output_left -= len(take)
                execution.texts += 1
                execution.add(stream, take)
            data = data[len(take) :]
        if data:
            execution.truncated = True
            self._spill(link, execution, data)

    def _spill(self, link: Pipes, execution: Execution, data: bytes) -> None:
        if execution.spill_fd >= 0:
            try:
                view = memoryview(data)
                while view:
                    written = os.write(execution.spill_fd, view)
                    execution.spilled_bytes += written
                    view = view[written:]
            except OSError:
                self._over_quota(link, execution)
            return
        if execution.stopping == "output_limit" or execution.spill_name == SPILL_ASKED:
            return
        link.pause_output()
        name = f"output-{execution.spec.id[:24]}.txt"
        execution.spill_name = SPILL_ASKED

        def answer(message: dict[str, Any], fds: list[int]) -> None:
            if message["event"] != "spill" or execution.end is not None or not fds:
                for fd in fds:
                    os.close(fd)
                execution.spill_name = ""
                if execution.end is None:
                    self._over_quota(link, execution)
            else:
                execution.spill_fd, execution.spill_name = fds[0], name
                self._spill(link, execution, data)
            if execution.end is not None:
                link.discard_output()
            link.resume_output()
            if execution.end is not None:
                return
            held, execution.held_end = execution.held_end, b""
            if held and isinstance(link, Link):
                link.drain()
                if violation := self._sandbox.executions.done(link, execution, held):
                    self._sandbox.on_violation(link, violation)
            elif execution.held_exit is not None:
                link.drain()
                if execution.end is None:
                    self._sandbox.commands.finish(link.name, execution, execution.held_exit)

        self._sandbox.init.ask({"do": "spill", "name": name}, answer)

    def _over_quota(self, link: Pipes, execution: Execution) -> None:
        self._sandbox.executions.stop(
            link.name, execution, "output_limit", "its output filled the workspace's quota"
        )
