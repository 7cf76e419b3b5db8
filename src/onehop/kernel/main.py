"""The kernel: takes one cell after the other from its channel, runs it, reports what it displayed.

`prepare` runs once in the zygote, `run` in every fork. Everything sent from here is a claim that the
server checks; text output does not pass here at all, it goes through the pipes on descriptors 1 and 2.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import contextlib
import gc
import io
import os
import socket
import sys
from typing import Any

from onehop import protocol
from onehop.kernel import interrupts
from onehop.kernel import shell as shell_module
from onehop.protocol import Done, Execute, Failure, Kind, Result

_HIDDEN_VARIABLES = ("GLIBC_TUNABLES", "PYTHONMALLOC", "LD_PRELOAD")
_shell: shell_module.Shell | None = None


def prepare() -> None:
    """Builds the shell in the zygote, so that a fork only has to use it."""
    global _shell
    _shell = shell_module.create()


class Channel:
    """The kernel's end of the socket to the supervisor."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.execution = 0

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        self.socket.sendall(protocol.pack(kind, self.execution, payload))

    def receive(self) -> tuple[int, int, bytes]:
        """The next frame. Raises EOFError when the supervisor has closed the channel."""
        length, kind, execution = protocol.HEADER.unpack(self._exactly(protocol.HEADER_BYTES))
        return kind, execution, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = self.socket.recv(count) if count else b""
        if len(data) == count:
            return data
        parts = bytearray(data)
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def display(self, data: dict[str, str | bytes], *, final: bool = False) -> None:
        """Sends something displayed, in order with the text: what was printed before comes before it."""
        if not self.execution:
            return  # displayed by a thread after its cell had ended
        sys.stdout.flush()
        sys.stderr.flush()
        if not final:
            self.synchronize()
        result = Result(text={mime: value for mime, value in data.items() if isinstance(value, str)},
                        binary={mime: value for mime, value in data.items() if isinstance(value, bytes)}, final=final)
        payload = protocol.encode(result)
        if len(payload) > protocol.MAX_KERNEL_FRAME_BYTES:
            text = f"<output of {len(payload)} bytes is too large to show; save it to a file>"
            payload = protocol.encode(Result(text={"text/plain": text}, final=final))
        self.send(Kind.RESULT, payload)

    def synchronize(self) -> None:
        """Waits until the supervisor has taken everything that was written to the pipes so far."""
        self.send(Kind.SYNC)
        while self.receive()[0] != Kind.PROCEED:
            pass


class Output(io.TextIOWrapper):
    """sys.stdout or sys.stderr: a pipe, flushed by line; switching from one to the other keeps their order."""

    channel: Channel | None = None
    last: Output | None = None
    owner = 0

    def write(self, text: str, /) -> int:
        if Output.last is not self:
            previous, Output.last = Output.last, self
            if previous is not None and previous.channel is not None and previous.channel.execution \
                    and os.getpid() == previous.owner:
                previous.flush()
                previous.channel.synchronize()
        return super().write(text)


def run(channel_fd: int, home: str, environ: dict[str, str], *, warm: bool) -> None:
    """Serves cells until the supervisor hangs up. Never returns to the caller's code."""
    assert _shell is not None
    shell = _shell
    interrupts.install()
    for name in _HIDDEN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update({"HOME": home, "PWD": home, **environ})
    channel = Channel(channel_fd)
    _open_streams(channel)
    _reseed()
    shell.start(channel, home)
    if warm:
        shell.warm_up()
    channel.send(Kind.READY)
    gc.enable()
    while True:
        try:
            kind, execution, payload = channel.receive()
        except EOFError:
            os._exit(0)
        if kind == Kind.EXECUTE:
            _execute(shell, channel, execution, protocol.decode_execute(payload))


def _open_streams(channel: Channel) -> None:
    Output.channel = channel
    Output.owner = os.getpid()
    sys.stdin = io.StringIO()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(fd, "w", closefd=False)
        stream = Output(io.BufferedWriter(raw, 8192), encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _reseed() -> None:
    """Forks of one zygote must not draw the same random numbers (random reseeds itself after a fork)."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(None)


def _execute(shell: shell_module.Shell, channel: Channel, execution: int, request: Execute) -> None:
    channel.execution = execution
    Output.last = None
    sys.stdin = io.StringIO(request.stdin)
    before = _set_environ(request.env)
    status, failure = "ok", None
    try:
        try:
            failure = shell.run(request.code)
        except KeyboardInterrupt:
            interrupts.disarm()
            failure = Failure(name="KeyboardInterrupt", value="", traceback="KeyboardInterrupt")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        if failure is not None:
            status = "interrupted" if failure.name == "KeyboardInterrupt" else "error"
            channel.send(Kind.FAILURE, protocol.encode(failure))
    finally:
        _restore_environ(before)
    channel.send(Kind.DONE, protocol.encode(Done(status=status, count=shell.count)))
    channel.execution = 0


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
