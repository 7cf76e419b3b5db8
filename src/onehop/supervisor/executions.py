"""What runs in one sandbox: one execution at most in each place, which is a context or a command.

It begins here, is interrupted and stopped here, and every way to its one end leads through `finish`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from onehop import protocol
from onehop.errors import ContextNotFoundError, SessionBusyError
from onehop.protocol import Kind
from onehop.supervisor.command import Command
from onehop.supervisor.execution import MAX_RESULTS, SPILL_ASKED, Execution
from onehop.supervisor.link import Link
from onehop.supervisor.messages import End, ExecutionSpec, Usage
from onehop.supervisor.pipes import Pipes

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox


class Executions:
    """Of one sandbox.

    Attributes:
        running: by place, the name of the context, or `!` with the id of the command.
        known: by id, also those that have ended, until the supervisor lets go of them.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._loop = asyncio.get_running_loop()
        self.running: dict[str, Execution] = {}
        self.known: dict[str, Execution] = {}
        self._numbers = 0
        self._died_between: set[str] = set()
        """Contexts whose kernel died while nothing ran in it; the next execution there is told."""
        self._waiting: list[tuple[str, Callable[[], None]]] = []
        """By context, what is done once its kernel is ready."""

    # --- begin ----------------------------------------------------------------------------------------

    def execute(self, kernel: str, spec: ExecutionSpec) -> Execution:
        """Starts an execution in a context.

        Raises:
            SessionBusyError: the context is at work.
            UnavailableError: the sandbox is dying.
            InvalidRequestError: there is no such context.
        """
        sandbox = self._sandbox
        sandbox.check_assigned()
        link = sandbox.link(kernel)
        if kernel in self.running:
            raise SessionBusyError("another execution is running here; wait for it or interrupt it")
        if kernel in self._died_between:
            return self._not_run(kernel, spec)
        execution = self.begin(kernel, link, spec)
        if late := sandbox.outputs.take_late(kernel):
            execution.add("stdout", late)
        payload = protocol.encode(
            protocol.Execute(
                code=spec.code,
                stdin=spec.stdin,
                env=spec.env,
                catalogue=spec.catalogue,
                imports=spec.imports,
            )
        )
        if link.ready:
            link.send(Kind.EXECUTE, execution.number, payload)
        else:
            self._waiting.append(
                (kernel, lambda: sandbox.link(kernel).send(Kind.EXECUTE, execution.number, payload))
            )
        return execution

    def _not_run(self, kernel: str, spec: ExecutionSpec) -> Execution:
        execution = self._new(kernel, spec)
        self._died_between.discard(kernel)
        reason = "the kernel died after the previous execution: variables are lost, this code was not run"
        execution.finish(End("kernel_died", Usage(0.0, 0.0, -1), variables="lost", reason=reason))
        return execution

    def _new(self, place: str, spec: ExecutionSpec) -> Execution:
        self._numbers += 1
        execution = self.known[spec.id] = Execution(spec, self._numbers, self._loop)
        execution.place = place
        return execution

    def begin(self, place: str, link: Link | Command, spec: ExecutionSpec) -> Execution:
        """An execution that runs from now on, in a context or as a command; 0 for `timeout_s` is no deadline."""
        sandbox = self._sandbox
        execution = self.running[place] = self._new(place, spec)
        sandbox.links[place] = link
        if sandbox.group is not None and len(self.running) == 1:
            sandbox.group.reset_peak()  # others that run would be told of less than they needed
        execution.cpu_start_ns = self._cpu_ns(link)
        if spec.timeout_s > 0:
            reason = f"it ran longer than {spec.timeout_s:g} s"
            execution.limit(spec.timeout_s, lambda: self.stop(place, execution, "timeout", reason))
        sandbox.around.watch(sandbox)
        return execution

    # --- what its kernel tells ------------------------------------------------------------------------

    def kernel_ready(self, kernel: str) -> None:
        """What waited for the kernel begins."""
        waiting, self._waiting = self._waiting, []
        for name, action in waiting:
            if name == kernel:
                action()
            else:
                self._waiting.append((name, action))

    def take(self, link: Link, kind: int, number: int, payload: bytes) -> str:
        """A frame of the execution that runs there; what was wrong with it, or empty."""
        execution = self.running.get(link.name)
        if execution is None or number != execution.number:
            if kind == Kind.SYNC and number == 0:
                link.send(Kind.PROCEED, 0)
                return ""
            return "a frame of no running execution"
        match kind:
            case Kind.SYNC:
                link.send(Kind.PROCEED, number)
            case Kind.RESULT:
                self._take_result(execution, payload)
            case Kind.FAILURE:
                if execution.failed:
                    return "a second failure"
                execution.failed = True
                execution.add("failure", payload[: 1 << 20])
            case Kind.DONE:
                return self.done(link, execution, payload)
            case Kind.CALL | Kind.BLOCKED:
                return self._sandbox.calls.take(execution, kind, payload)
        return ""

    def _take_result(self, execution: Execution, payload: bytes) -> None:
        execution.results += 1
        if len(payload) > execution.results_left or execution.results > MAX_RESULTS:
            execution.truncated = True
            return
        execution.results_left -= len(payload)
        execution.add("result", payload)

    def done(self, link: Link, execution: Execution, payload: bytes) -> str:
        """The kernel says that the code has ended; what was wrong with that, or empty."""
        try:
            status = protocol.decode_done(payload).status
        except ValueError as error:
            return f"an end that cannot be read: {error}"
        if status not in ("ok", "error", "interrupted"):
            return "an end with an unknown status"
        if self._sandbox.check_oom():
            return ""
        if execution.spill_name == SPILL_ASKED:
            execution.held_end = payload  # what is still in the pipes belongs to this execution's file
        elif execution.stopping:
            # The code may have ended by itself in the same moment; a deadline that passed stays one.
            if status == "ok" and execution.stopping == "interrupted":
                self.finish(link.name, execution, "ok")
            else:
                self.finish(link.name, execution, execution.stopping, execution.stop_reason)
        else:
            # When nobody interrupted it, the code raised KeyboardInterrupt by itself.
            self.finish(link.name, execution, "error" if status == "interrupted" else status)
        return ""

    def kernel_died(self, kernel: str, reason: str) -> None:
        """What ran there ends; when nothing did, the next one there is told."""
        execution = self.running.get(kernel)
        if execution is None:
            self._died_between.add(kernel)
        elif execution.stopping and execution.stopping != "interrupted":
            self.finish(kernel, execution, execution.stopping, execution.stop_reason, variables="lost")
        else:
            session = "ended" if self._sandbox.spec.one_shot else "alive"
            self.finish(kernel, execution, "kernel_died", reason, variables="lost", session=session)

    # --- stop -----------------------------------------------------------------------------------------

    def interrupt(self, place: str) -> bool:
        """SIGINT for what runs in the place; the variables stay. Raises ContextNotFoundError."""
        sandbox = self._sandbox
        if place not in sandbox.links:
            raise ContextNotFoundError(f"there is no context {place!r}")
        execution = self.running.get(place)
        if execution is None:
            return False
        if not execution.stopping:
            execution.stopping = "interrupted"
            execution.stop_reason = "it was interrupted"
            execution.resume()  # code that catches the interrupt goes on
            sandbox.around.watch(sandbox)
        if self._forget_waiting(place):
            self.finish(place, execution, execution.stopping, execution.stop_reason)
            return True
        return sandbox.links[place].interrupt()

    def stop(self, place: str, execution: Execution, status: str, reason: str) -> None:
        """SIGINT now, SIGKILL after the grace; the answer comes with whichever ends it."""
        if execution.end is not None or execution.stopping == status:
            return
        execution.stopping, execution.stop_reason = status, reason
        if self._forget_waiting(place):
            self.finish(place, execution, status, reason)
            return
        grace_s = execution.spec.grace_s
        if grace_s <= 0:
            self._kill(place, execution)
            return
        self._sandbox.links[place].interrupt()
        execution.after(grace_s, lambda: self._kill(place, execution))

    def _kill(self, place: str, execution: Execution) -> None:
        sandbox = self._sandbox
        link = sandbox.links[place]
        status, reason = execution.stopping, execution.stop_reason
        if isinstance(link, Command):
            link.drain()
            link.signal(signal.SIGKILL)
            self.finish(place, execution, status, reason)
            return
        link.drain_all()
        if execution.end is not None:
            return
        if sandbox.spec.one_shot:
            self.finish(place, execution, status, reason, variables="lost", session="ended")
            sandbox.die(reason)
            return
        link.signal(signal.SIGKILL)
        self.finish(place, execution, status, reason, variables="lost")
        sandbox.new_kernel(place)

    def stop_kernel(self, kernel: str, reason: str) -> None:
        """The kernel of a context is being killed: what runs or waits there ends as `killed`."""
        execution = self.running.get(kernel)
        if execution is not None:
            self.finish(kernel, execution, "killed", reason, variables="lost")
        self._died_between.discard(kernel)
        self._forget_waiting(kernel)

    def _forget_waiting(self, kernel: str) -> bool:
        """What was to run once the kernel is there will not. True when something was."""
        before = len(self._waiting)
        self._waiting = [one for one in self._waiting if one[0] != kernel]
        return len(self._waiting) < before

    def look(self) -> bool:
        """Stops what has used up its CPU time. False when nothing runs that could use any."""
        for place, execution in list(self.running.items()):
            limit_s = execution.spec.cpu_s
            used = self._cpu_ns(self._sandbox.links[place]) if limit_s > 0 else -1
            if used >= 0 and (used - execution.cpu_start_ns) / 1e9 > limit_s:
                self.stop(place, execution, "timeout", f"it used more than {limit_s:g} s of CPU time")
        return any(not execution.suspended for execution in self.running.values())

    # --- end ------------------------------------------------------------------------------------------

    def finish_all(self, status: str, reason: str) -> None:
        """The sandbox ends, and what runs in it."""
        for place, execution in list(self.running.items()):
            self.finish(place, execution, status, reason, variables="lost", session="ended")

    def finish(
        self,
        place: str,
        execution: Execution,
        status: str,
        reason: str = "",
        *,
        variables: str = "kept",
        session: str = "alive",
    ) -> None:
        """Its one end; nothing happens when it has ended already."""
        if execution.end is not None:
            return
        sandbox = self._sandbox
        self.running.pop(place, None)
        sandbox.calls.forget(execution)
        if execution.spill_fd >= 0:
            os.close(execution.spill_fd)
            execution.spill_fd = -1
        if execution.spill_name == SPILL_ASKED:
            execution.spill_name = ""
        execution.finish(
            End(
                status=status,
                usage=execution.usage(self._cpu_ns(sandbox.links[place]), self._peak_bytes(place)),
                reason=reason,
                variables=variables,
                session=session,
                truncated=execution.truncated,
                spill_file=execution.spill_name,
                spilled_bytes=execution.spilled_bytes,
                workspace_used=session == "alive" and sandbox.workspace_used(),
                exit_code=execution.exit_code,
            )
        )
        if isinstance(sandbox.links.get(place), Command):
            sandbox.commands.ended(place, execution)

    def _peak_bytes(self, place: str) -> int:
        sandbox = self._sandbox
        try:
            if sandbox.group is not None:
                return sandbox.group.peak_bytes()
            link = sandbox.links[place]
            return link.peak_bytes if isinstance(link, Command) else sandbox.around.peak_bytes(link.pidfd)
        except (OSError, ValueError):
            return -1  # the group went with the sandbox

    def _cpu_ns(self, link: Pipes) -> int:
        group = self._sandbox.group
        try:
            if group is not None:
                value = group.cpu_ns()
                if value >= 0:
                    return value
            if isinstance(link, Command) and link.cpu_ns >= 0:
                return link.cpu_ns
            return self._sandbox.around.cpu_ns(link.pidfd)
        except (OSError, ValueError):
            return -1
