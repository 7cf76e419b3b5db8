"""All shell commands of one sandbox: those that run, and the last of those that have ended.

A command is an execution whose place is not a context. Its process is a child of init, which tells of
its end; everything else about it is known here.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from onehop.errors import (
    CommandNotFoundError,
    ConflictError,
    InvalidRequestError,
    TooManyError,
    UnavailableError,
)
from onehop.supervisor.command import Command, payload
from onehop.supervisor.execution import Execution
from onehop.supervisor.messages import CommandInfo, ExecutionSpec

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox

MAX_ENDED = 100
"""Ended commands that are remembered for a list."""
MAX_SHOWN = 1000
"""Characters of a command that a list shows; all of it, a hundred times, would be megabytes per sandbox."""
MAX_LEFT = 32
"""Ended commands with children that still write; those of the oldest find their pipes closed."""
START_TIMEOUT_S = 10.0
MAX_PATH_BYTES = 4095
"""PATH_MAX of linux/limits.h without its NUL. A message to init has a bounded size, too."""
_NO_FOLDER = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG, errno.EACCES}
)
_NO_PROCESS = frozenset({errno.EAGAIN, errno.ENOMEM})
PREFIX = "!"
"""No context has a name that begins with it."""


class Commands:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._known: dict[str, CommandInfo] = {}
        self._starting: set[str] = set()
        self._left: list[Command] = []

    async def start(self, spec: ExecutionSpec, *, cwd: str, stdin_open: bool, background: bool) -> Execution:
        """Starts bash with `spec.code`.

        Args:
            cwd: folder of the workspace, empty for itself.
            stdin_open: more stdin may follow `spec.stdin`.
            background: nobody waits for its end; it has no deadline unless `spec.timeout_s` is above 0.

        Raises:
            InvalidRequestError: there is no such folder, or a command of this id.
            TooManyError: the sandbox has no process left.
            UnavailableError: the sandbox is dying.
        """
        sandbox = self._sandbox
        sandbox.check_assigned()
        check_folder(cwd)
        if spec.id in self._known or spec.id in self._starting:
            raise InvalidRequestError("a command has this id already")
        name = PREFIX + spec.id
        command = Command(sandbox, sandbox.loop, name)
        self._starting.add(spec.id)
        try:
            file = payload(spec.code, spec.env)
            try:
                answer, fds = await sandbox.init.request(
                    {"do": "command", "command": name, "cwd": cwd},
                    [*command.theirs, file],
                    timeout_s=START_TIMEOUT_S,
                    sent=command.given,
                )
            finally:
                os.close(file)
        except BaseException:
            command.close()
            raise
        finally:
            self._starting.discard(spec.id)
        if answer["event"] != "command":
            command.close()
            raise refusal(answer, f"cwd: there is no folder {cwd!r} in the workspace", "cwd")
        command.pidfd, command.inner_pid = fds[0], answer["pid"]
        if sandbox.state != "assigned":
            command.close()
            sandbox.check_assigned()
        execution = sandbox.executions.begin(name, command, spec)
        command.begun()
        self._known[spec.id] = CommandInfo(
            id=spec.id,
            command=spec.code[:MAX_SHOWN],
            pid=command.inner_pid,
            background=background,
            stdin_open=stdin_open,
            started_at=time.time(),
        )
        if spec.stdin or not stdin_open:
            command.give(spec.stdin.encode("utf-8", "surrogateescape"), close=not stdin_open)
        return execution

    def exited(self, name: str, code: int, cpu_ns: int, peak_bytes: int) -> None:
        """Init has reaped the process, and tells what it and the children it waited for have used."""
        command = self._sandbox.links.get(name)
        execution = self._sandbox.executions.running.get(name)
        if not isinstance(command, Command):
            return
        command.cpu_ns, command.peak_bytes = cpu_ns, peak_bytes
        command.drain()
        if self._sandbox.check_oom():
            return  # what init reports is how the killed process ended
        if execution is not None and execution.end is None:
            if execution.spill_asked:
                execution.held_exit = code  # what is still in the pipes belongs to its file
                return
            self.finish(name, execution, code)
        else:
            self._leave(name)

    def finish(self, name: str, execution: Execution, code: int) -> None:
        """The end of an execution whose process has ended with `code`, below 0 for a signal."""
        status = "ok" if code == 0 else "error"
        reason = ""
        if code < 0:
            reason = f"the command was ended by {_signal_name(-code)}"
        if execution.stopping and not (execution.stopping == "interrupted" and code == 0):
            status, reason = execution.stopping, execution.stop_reason
        execution.exit_code = code if code >= 0 else None
        self._sandbox.executions.finish(name, execution, status, reason)

    def ended(self, name: str, execution: Execution) -> None:
        """Its terminal event is out, for whatever reason."""
        assert execution.end is not None
        known = self._known.get(execution.spec.id)
        if known is not None:
            known.status = execution.end.status
            known.exit_code = execution.end.exit_code
            known.ended_at = time.time()
        over = [one.id for one in self._known.values() if one.ended_at][:-MAX_ENDED]
        for old in over:
            del self._known[old]
        self._leave(name)

    def _leave(self, name: str) -> None:
        command = self._sandbox.links.pop(name, None)
        if isinstance(command, Command):
            command.leave()
            self._left = [one for one in self._left if one.alive]
            if command.alive:
                self._left.append(command)
            for old in self._left[:-MAX_LEFT]:
                old.close()

    def close(self) -> None:
        for command in self._left:
            command.close()
        self._left.clear()

    # --- asked for ------------------------------------------------------------------------------------

    def list(self) -> list[CommandInfo]:
        return list(self._known.values())

    def feed(self, execution: str, data: bytes, *, close: bool) -> None:
        """Raises CommandNotFoundError, ConflictError, TooManyError."""
        command = self._running(execution)
        if not self._known[execution].stdin_open:
            raise ConflictError("the command's stdin is closed; start it with stdin_open to feed it")
        command.feed(data, close=close)

    def signal(self, execution: str, number: int) -> None:
        """To its process group. Raises CommandNotFoundError, ConflictError, InvalidRequestError."""
        if not 1 <= number < signal.NSIG:
            raise InvalidRequestError(f"signal: {number} is no signal", field="signal")
        command = self._running(execution)
        running = self._sandbox.executions.running.get(command.name)
        if number == signal.SIGKILL and running is not None and not running.stopping:
            running.stopping, running.stop_reason = "killed", "it was killed"
        if not command.signal(number):
            raise ConflictError("the command has ended")

    def _running(self, execution: str) -> Command:
        if execution not in self._known:
            raise CommandNotFoundError("there is no such command")
        command = self._sandbox.links.get(PREFIX + execution)
        if not isinstance(command, Command) or PREFIX + execution not in self._sandbox.executions.running:
            raise ConflictError("the command has ended")
        return command


def check_folder(path: str) -> None:
    """Raises InvalidRequestError for what no folder of the workspace is called."""
    if "\0" in path or len(path.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES:
        raise InvalidRequestError("cwd: there is no such folder in the workspace", field="cwd")


def refusal(answer: dict[str, Any], no_folder: str, field: str) -> Exception:
    """What init's refusal means to the user."""
    number = answer.get("errno")
    if answer["event"] == "gone":
        return UnavailableError("the sandbox has ended")
    if number in _NO_FOLDER:
        return InvalidRequestError(no_folder, field=field)
    if number in _NO_PROCESS:
        return TooManyError("the sandbox has no process left; end some, or make it with more")
    return UnavailableError(f"the sandbox cannot do that: {answer.get('detail', '')}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
