"""Shell commands in a session's sandbox: run to their end, or started and then fed, followed and signalled."""

from __future__ import annotations

from collections.abc import Mapping

from onehop.client import executing, follow
from onehop.client.core import Holder, Part
from onehop.client.executing import OnText
from onehop.client.follow import Follower
from onehop.client.methods import (
    aiterating,
    awaiting,
    awaiting_as,
    blocking,
    blocking_as,
    iterating,
)
from onehop.client.records import CommandInfo, record
from onehop.client.requests import OCTETS, document, get, path_of, post, send
from onehop.client.results import Event, Result
from onehop.client.steps import Flow, Op, Request


def run(
    self: Part,
    command: str,
    *,
    cwd: str = "",
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout_s: float | None = None,
    output_bytes: int | None = None,
    on_stdout: OnText | None = None,
    on_stderr: OnText | None = None,
) -> Op[Result]:
    """Runs a shell command to its end; it runs beside code.

    Args:
        command: for `bash -c`.
        cwd: folder of the workspace.
        env: environment variables.
        stdin: all that it reads.
        timeout_s: seconds until it is stopped.
        output_bytes: bytes of output returned; the rest goes to a file of the workspace.
        on_stdout, on_stderr: called with each piece of text as it comes.

    Returns:
        A Result with `exit_code`; its status is `ok` for 0 and `error` for another one.
    """
    path = yield from self._path("commands")
    body = {
        "command": command,
        "cwd": cwd or None,
        "env": env or None,
        "stdin": stdin or None,
        "timeout_s": timeout_s,
        "output_bytes": output_bytes,
    }

    def give_up(execution: str) -> Op[object]:
        # Without its id (no event has come yet) the command cannot be named, and runs to its deadline.
        if execution:
            yield from send(Request("DELETE", f"{path}/{execution}"))
        return None

    return (yield from executing.run(path, body, on_stdout, on_stderr, None, give_up))


def start(
    self: Part,
    command: str,
    *,
    cwd: str = "",
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    stdin_open: bool = False,
    timeout_s: float | None = None,
    output_bytes: int | None = None,
) -> Op[CommandInfo]:
    """Starts a command in the background and returns at once.

    Args:
        command: for `bash -c`.
        cwd: folder of the workspace.
        env: environment variables.
        stdin: what it reads first.
        stdin_open: more can be written to it.
        timeout_s: seconds until it is stopped; none when left out.
        output_bytes: bytes of output returned; the rest goes to a file of the workspace.
    """
    path = yield from self._path("commands")
    body = {
        "command": command,
        "cwd": cwd or None,
        "env": env or None,
        "stdin": stdin or None,
        "stdin_open": stdin_open,
        "timeout_s": timeout_s,
        "output_bytes": output_bytes,
        "background": True,
    }
    reply = yield from send(executing.start_request(path, body, events=False))
    return record(CommandInfo, document(reply))


def list_commands(self: Part) -> Op[list[CommandInfo]]:
    """Commands that run, and those that ended lately."""
    path = yield from self._path("commands")
    found = yield from get(path)
    return [record(CommandInfo, one) for one in found["commands"]]


def find(self: Part, command_id: str) -> Op[CommandInfo]:
    """A command that was started before, to be followed, fed or signalled again. Raises NotFoundError."""
    for one in (yield from list_commands(self)):
        if one.id == command_id:
            return one
    # Ended long ago: its execution is still there, or the server says that there is none.
    execution = yield from get(path_of("executions", command_id))
    return CommandInfo(command_id, "", execution["status"], execution.get("exit_code"))


class CommandCore(Holder):
    """A started command."""

    def __init__(self, commands: Part, info: CommandInfo) -> None:
        self._carrier = commands._carrier
        self._commands = commands
        self.info = info
        """What was known about it when it was started or found."""

    @property
    def id(self) -> str:
        """Its id, which is that of its execution."""
        return self.info.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.info.command!r}>"


def wait(
    self: CommandCore, *, on_stdout: OnText | None = None, on_stderr: OnText | None = None
) -> Op[Result]:
    """Waits for its end; the callbacks get all of its output, from the beginning on."""
    if on_stdout is None and on_stderr is None:
        return (yield from follow.wait(self.id))
    return (yield from executing.report(Follower(None, self.id), on_stdout, on_stderr, None))


def stream(self: CommandCore, *, after: int = 0) -> Flow[Event]:
    """Its events as they come, those after the number `after`; the last one has the result."""
    return executing.emit(Follower(None, self.id, after))


def write(self: CommandCore, data: str | bytes) -> Op[None]:
    """Writes to its standard input. Raises ConflictError when that is closed."""
    path = yield from self._commands._path("commands", self.id, "stdin")
    body = data.encode() if isinstance(data, str) else data
    yield from send(Request("POST", path, headers=OCTETS, body=body))


def close_stdin(self: CommandCore) -> Op[None]:
    """Ends its standard input."""
    path = yield from self._commands._path("commands", self.id, "stdin")
    yield from send(Request("POST", path, {"close": "true"}, OCTETS))


def send_signal(self: CommandCore, signal: str | int = "SIGTERM") -> Op[None]:
    """Sends a signal to all its processes, by name or number. Raises ConflictError when it has ended."""
    path = yield from self._commands._path("commands", self.id, "signal")
    yield from send(post(path, {"signal": signal if isinstance(signal, str) else int(signal)}))


def kill(self: CommandCore) -> Op[None]:
    """Kills all its processes."""
    path = yield from self._commands._path("commands", self.id)
    yield from send(Request("DELETE", path))


class Command(CommandCore):
    """A started command."""

    wait = blocking(wait)
    stream = iterating(stream)
    write = blocking(write)
    close_stdin = blocking(close_stdin)
    signal = blocking(send_signal)
    kill = blocking(kill)


class AsyncCommand(CommandCore):
    """A started command."""

    wait = awaiting(wait)
    stream = aiterating(stream)
    write = awaiting(write)
    close_stdin = awaiting(close_stdin)
    signal = awaiting(send_signal)
    kill = awaiting(kill)


class Commands(Part):
    """The shell commands of a session."""

    run = blocking(run)
    start = blocking_as(start, Command)
    list = blocking(list_commands)
    get = blocking_as(find, Command)


class AsyncCommands(Part):
    """The shell commands of a session."""

    run = awaiting(run)
    start = awaiting_as(start, AsyncCommand)
    list = awaiting(list_commands)
    get = awaiting_as(find, AsyncCommand)
