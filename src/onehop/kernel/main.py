"""The kernel: takes one cell after the other from its channel, runs it, reports what it displayed.

`prepare` runs once in the zygote, `run` in every fork. Everything sent from here is a claim that the
server checks; text output does not pass here at all, it goes through the pipes on descriptors 1 and 2.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from onehop import protocol
from onehop.kernel import channel as channel_module
from onehop.kernel import failures, imports, interrupts, rehearsal
from onehop.kernel import shell as shell_module
from onehop.kernel.calls import Calls
from onehop.kernel.channel import Channel
from onehop.kernel.tools import Access
from onehop.protocol import Done, Execute, Kind, Result

_HIDDEN_VARIABLES = ("GLIBC_TUNABLES", "PYTHONMALLOC", "LD_PRELOAD")
_shell: shell_module.Shell | None = None
_stdin: io.TextIOWrapper | None = None
_access: Access | None = None
"""Made when the first execution with tools comes."""
_libc = ctypes.PyDLL(None)
_KEY_WORDS = 624
_generator = 0


def prepare(home: str) -> None:
    """Builds in the zygote what every fork would build alike: the shell, the streams, the environment."""
    global _shell, _generator
    _shell = shell_module.create()
    sys.argv = [""]
    for name in _HIDDEN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update({"HOME": home, "PWD": home})
    _open_streams()
    _open_input("")
    # What C code prints appears line by line, too (stdio.h: _IOLBF is 1).
    channel_module.use_flush(flush_streams)
    _libc.setvbuf(ctypes.c_void_p.in_dll(_libc, "stdout"), None, 1, 0)
    # A line that is not finished must not be overtaken by a child's output, nor be written by both.
    os.register_at_fork(before=flush_streams, after_in_child=_leave_channel)
    for module, name in (
        (subprocess, "_fork_exec"),
        (os, "posix_spawn"),
        (os, "posix_spawnp"),
    ):
        setattr(module, name, _flushed(getattr(module, name)))
    _system.__name__ = _system.__qualname__ = "system"
    setattr(os, _system.__name__, _system)
    _rehearse(_shell)
    _generator = _find_generator()


def _rehearse(shell: shell_module.Shell) -> None:
    """Runs the zygote's rehearsal with both streams to nowhere, and forgets it."""
    kept = {fd: os.dup(fd) for fd in (1, 2)}
    streams = sys.stdout, sys.stderr
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        for fd in kept:
            os.dup2(null, fd)
        sys.stdout, sys.stderr = _streams["stdout"], _streams["stderr"]
        for _ in range(rehearsal.ROUNDS):
            shell.rehearse(rehearsal.in_zygote())
        channel_module.rehearse(rehearsal.ROUNDS)
        flush_streams()
    finally:
        sys.stdout, sys.stderr = streams
        for fd, copy in kept.items():
            os.dup2(copy, fd)
            os.close(copy)
        os.close(null)


class Output(io.TextIOWrapper):
    """sys.stdout or sys.stderr: a pipe, flushed by line; switching from one to the other keeps their order."""

    channel: Channel | None = None
    last: Output | None = None

    def write(self, text: str, /) -> int:
        if Output.last is not self:
            previous, Output.last = Output.last, self
            if previous is not None and previous.channel is not None and previous.channel.execution:
                previous.flush()
                previous.channel.synchronize()
        return super().write(text)


_streams: dict[str, Output] = {}


def flush_streams() -> None:
    """Everything printed so far goes to the pipes; whatever user code has done to sys.stdout."""
    for name, stream in _streams.items():
        try:
            stream.flush()
            current = getattr(sys, name, None)
            if current is not stream and current is not None:
                current.flush()
        except Exception:  # noqa: BLE001 - closed, or user code's flush
            continue


def _system(command: str | bytes) -> int:
    """os.system that can be interrupted at any moment; system(3) is deaf to SIGINT as long as it runs."""
    arguments = ["sh", "-c", os.fsdecode(command)]
    pid = os.posix_spawn("/bin/sh", arguments, os.environ)
    try:
        status = os.waitpid(pid, 0)[1]
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # it was started after the signal came
        raise
    if status == signal.SIGINT:
        raise KeyboardInterrupt
    return status


def _flushed(call: Callable[..., Any]) -> Callable[..., Any]:
    def flush_and_call(*args: Any, **kwargs: Any) -> Any:
        flush_streams()
        return call(*args, **kwargs)

    flush_and_call.__name__ = flush_and_call.__qualname__ = call.__name__
    flush_and_call.__doc__ = call.__doc__
    return flush_and_call


def _leave_channel() -> None:
    """A process that user code forked may print, but not speak for the kernel."""
    channel = Output.channel
    if channel is not None and not channel.left:
        channel.leave()
        if _access is not None:
            _access.calls.fork()
        if _shell is not None:
            _shell.channel = None


def run(channel_fd: int, home: str, environ: dict[str, str]) -> None:
    """Serves cells until the supervisor hangs up. Never returns to the caller's code."""
    assert _shell is not None
    shell = _shell
    interrupts.install()
    if os.environ["HOME"] != home:
        os.environ.update({"HOME": home, "PWD": home})
    if environ:
        os.environ.update(environ)
        tempfile.tempdir = environ.get("TMPDIR", tempfile.tempdir)
    channel = Channel(channel_fd)
    _restore_streams(channel)
    _reseed()
    shell.start(channel, home)
    channel.send(Kind.READY)
    gc.enable()
    while True:
        kind, execution, payload = channel.receive()
        if kind == Kind.EXECUTE:
            _execute(shell, channel, execution, protocol.decode_execute(payload))
        elif kind == Kind.ENTER:
            with contextlib.suppress(OSError):  # it is gone again: then the workspace itself will do
                os.chdir(os.path.join(os.fsencode(home), payload))
                os.environ["PWD"] = os.getcwd()
        elif kind == Kind.WARM_UP:
            shell.rehearse(rehearsal.in_kernel())
            _rehearse_answer(channel)
            channel.send(Kind.WARM)


def _open_streams() -> None:
    """Makes the stream objects for descriptors 1 and 2 while these are pipes, as they will be in every fork."""
    read, write = os.pipe()
    try:
        for name, fd in (("stdout", 1), ("stderr", 2)):
            kept = os.dup(fd)
            os.dup2(write, fd)
            _streams[name] = _new_stream(fd)
            os.dup2(kept, fd)
            os.close(kept)
    finally:
        os.close(read)
        os.close(write)


def _new_stream(fd: int) -> Output:
    raw = io.FileIO(fd, "w", closefd=False)
    return Output(
        io.BufferedWriter(raw, 8192), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def _restore_streams(channel: Channel) -> None:
    """sys.stdout and sys.stderr are ours at the beginning of every cell, whatever the one before did to them."""
    Output.channel = channel
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = _streams[name]
        if _is_closed(stream):
            stream = _streams[name] = _new_stream(number)
        if getattr(sys, name, None) is not stream:
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _is_closed(stream: io.TextIOWrapper) -> bool:
    try:
        return stream.closed
    except ValueError:  # detached
        return True


def _open_input(text: str) -> None:
    """Descriptor 0 and sys.stdin: a file with `text`, so that programs started by the code can read it, too."""
    global _stdin
    raw = text.encode("utf-8", "surrogateescape")
    try:
        with tempfile.TemporaryFile() if raw else open("/dev/null", "r+b", buffering=0) as file:
            file.write(raw)
            file.seek(0)
            os.dup2(file.fileno(), 0)
        source: Any = io.BufferedReader(io.FileIO(0, closefd=False))
    except OSError:  # no room for it
        source = io.BytesIO(raw)
    sys.stdin = _stdin = io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape")


def _find_generator() -> int:
    """Where numpy keeps the key of its global generator (struct mt19937_state: u32 key[624], int pos); 0 without it."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return 0
    numpy.random.seed(0)
    generator = numpy.random.get_bit_generator()
    state = generator.state
    if state["bit_generator"] != "MT19937":
        return 0
    address = int(generator.ctypes.state_address)
    key = bytes(state["state"]["key"].tobytes())
    return address if len(key) == 4 * _KEY_WORDS and ctypes.string_at(address, len(key)) == key else 0


def _reseed() -> None:
    """Forks of one zygote must not draw the same random numbers (random reseeds itself after a fork).

    Straight into numpy's memory: its own `seed` copies 130 pages in a fresh fork, this one.
    """
    if _generator:
        ctypes.memmove(_generator, os.urandom(4 * _KEY_WORDS), 4 * _KEY_WORDS)
    elif (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(numpy.frombuffer(os.urandom(64), numpy.uint32))


def _execute(shell: shell_module.Shell, channel: Channel, execution: int, request: Execute) -> None:
    channel.execution = execution
    Output.last = None
    _restore_streams(channel)
    interrupts.restore()
    if request.stdin:
        _open_input(request.stdin)
    if request.catalogue or (_access is not None and _access.active):
        _give_tools(shell, channel, request.catalogue)
    before: dict[str, Any] = {}
    error: BaseException | None
    try:
        before = _set_environ(request.env)
        if request.imports is not None:
            imports.install(shell, request.imports)
        error = shell.run(request.code)
    except (Exception, KeyboardInterrupt) as problem:  # noqa: BLE001 - user code reached into ours; the kernel goes on
        interrupts.disarm()
        error = problem
    if request.imports is not None:
        imports.remove()
    if request.catalogue and _access is not None:
        _access.calls.end()
    flush_streams()
    _libc.fflush(None)
    if channel.left:
        _end_child(error)
    status = "ok"
    if error is not None:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "error"
        channel.send(Kind.FAILURE, protocol.encode(failures.describe(error)))
    if before:
        _restore_environ(before)
    if request.stdin or sys.stdin is not _stdin or _is_closed(_stdin):
        _open_input("")
    channel.send(Kind.DONE, protocol.encode(Done(status=status, count=shell.count)))
    channel.execution = 0


def _give_tools(shell: shell_module.Shell, channel: Channel, catalogue: str) -> None:
    """The module `tools` for an execution that has a catalogue; for others what they may call so themselves."""
    global _access
    if _access is None:
        _access = Access(Calls(channel, shell.home_dir), shell.user_ns, shell.user_ns_hidden)
    if catalogue:
        _access.begin(catalogue)
    else:
        _access.leave()


def _rehearse_answer(channel: Channel) -> None:
    """Our own way of a cell, from its request to its end, without a cell and without a word to anybody."""
    protocol.decode_execute(protocol.encode(Execute(code="None")))
    _restore_streams(channel)
    interrupts.restore()
    _restore_environ(_set_environ({}))
    flush_streams()
    _libc.fflush(None)
    result = protocol.encode(Result(text={"text/plain": "None"}, final=True))
    done = protocol.encode(Done(status="ok", count=0))
    bytes(protocol.pack(Kind.RESULT, 0, result) + protocol.pack(Kind.DONE, 0, done))


def _end_child(error: BaseException | None) -> None:
    """A process that user code forked has come to the end of the cell: it ends as a program would."""
    code = 0
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        code = error.code
    elif error is not None:
        code = 1
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(failures.describe(error).traceback + "\n")
            sys.stderr.flush()
    os._exit(code & 0xFF)


def _set_environ(env: dict[str, str]) -> dict[str, Any]:
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    return before


def _restore_environ(before: dict[str, Any]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
