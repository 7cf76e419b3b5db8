"""The process of one source of tools: gives up what it does not need, then answers calls until its socket ends.

Started by launcher.py as `python -m onehop.tools.worker FD`. It must never import anything of a source, or of
the operator, before it has given up its privileges; and never outlive the gateway that it works for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from typing import Any, NoReturn

import msgspec

from onehop.errors import CallFailedError, OnehopError, ProtocolError
from onehop.tools import model
from onehop.tools.model import SourceSpec

SPEC_VARIABLE = "ONEHOP_WORKER_SPEC"
LINE_BYTES = 4096
"""Longer lines of output are cut here."""


def main(arguments: list[str]) -> int:
    (fd,) = map(int, arguments)
    about: dict[str, Any] = json.loads(os.environ.pop(SPEC_VARIABLE))
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as channel:
        wire = Wire(channel)
        spec = msgspec.convert(about["source"], SourceSpec)
        try:
            confine(about, spec)
            _redirect(wire)
            run(wire, spec)
        except OnehopError as error:
            wire.log("critical", str(error))
            return 1
        except Exception as error:  # noqa: BLE001 - stderr may not be there any more
            wire.log("error", traceback.format_exc())
            wire.log("critical", f"a defect in the worker: {error}")
            return 1
    return 0


def confine(about: dict[str, Any], spec: SourceSpec) -> None:
    """Becomes the source's own user where there is one, and gives up all privileges. Raises JailError."""
    from onehop.jail import service

    if about["uid"] is None:
        service.confine(parent=about["parent"])
        return
    service.enter(
        uid=about["uid"],
        readable=[*service.interpreter_paths(), *spec.readable],
        writable=[os.environ["HOME"]],
        parent=about["parent"],
        allow_no_namespaces=about["allow_no_namespaces"],
    )


def run(wire: Wire, spec: SourceSpec) -> None:
    """Answers calls until the gateway hangs up. Raises OnehopError when the source cannot be used."""
    import uvloop

    from onehop.tools import loops, threads
    from onehop.tools.source import make

    secrets = {name: os.environ[name] for name in spec.secrets if name in os.environ}
    source = make(spec, secrets)
    serve = threads.serve if source.threads else loops.serve
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(source, wire))


class Wire:
    """The worker's end of the socket. Frames may be sent from any thread.

    Attributes:
        channel: the socket; who reads it is the caller's business.
        hold: further frames come in a moment: what is sent waits for them, which saves the gateway wake-ups.
            Whoever sets it must see to it that `flush` or a frame without it follows soon.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.hold = False
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._forked = False
        os.register_at_fork(after_in_child=self._after_fork)

    def send(self, frame: Any) -> None:
        """Ends the process when nobody is there to take it: the gateway is gone, and so are we.

        Raises as onehop.tools.model.encode.
        """
        if self._forked:
            os._exit(0)
        data = model.encode(frame)
        with self._lock:
            if self.hold:
                self._held.append(data)
            else:
                self._send_held(data)

    def flush(self) -> None:
        """Sends what was held back."""
        self.hold = False
        with self._lock:
            if self._held:
                self._send_held(b"")

    def _send_held(self, data: bytes) -> None:
        if self._held:
            data = b"".join([*self._held, data])
            self._held.clear()
        try:
            self._send_all(memoryview(data))
        except OSError:
            leave()

    def _send_all(self, data: memoryview) -> None:
        """`socket.sendall` fails amid its data once an event loop has made the channel non-blocking."""
        while data:
            try:
                data = data[self.channel.send(data) :]
            except BlockingIOError:
                select.select([], [self.channel], [])

    def _after_fork(self) -> None:
        """A tool that forks and returns twice must not answer twice, nor read calls in the child."""
        self._forked = True
        self.channel.close()

    def result(self, ticket: int, value: Any) -> None:
        """What a tool returned, as it is; an error goes out instead when it has no plain form."""
        from onehop.tools.plain import plain

        try:
            content, files = plain(value)
            self.send(model.ResultFrame(ticket, content, files))
        except CallFailedError as error:
            self.error(ticket, error)
        except (ProtocolError, UnicodeEncodeError, OverflowError) as error:
            self.error(ticket, CallFailedError("bad_result", f"the result cannot be passed on: {error}"))

    def error(self, ticket: int, error: BaseException) -> None:
        """Why a call gave no value; what is none of ours is the tool's own failure."""
        if isinstance(error, CallFailedError):
            kind, message = error.kind, error.message
        else:
            kind, message = "failed", _told(error)
        message = message.encode("utf-8", "backslashreplace").decode()
        self.send(model.ErrorFrame(ticket, kind, message[:LINE_BYTES]))

    def log(self, level: str, text: str) -> None:
        text = text.encode("utf-8", "backslashreplace").decode()
        self.send(model.LogFrame(level, text[:LINE_BYTES]))


def _told(error: BaseException) -> str:
    text = ""
    with contextlib.suppress(Exception):  # its __str__ is somebody else's code
        text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def leave() -> NoReturn:
    """Ends at once, with all that this process started: threads of tools may be blocked for ever."""
    with contextlib.suppress(OSError):
        if os.getpgrp() == os.getpid():  # a child that a tool forked is in the group, too, and not its leader
            os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _redirect(wire: Wire) -> None:
    """What tools, their libraries and their processes print becomes log frames, line by line."""
    read, write = os.pipe()
    for number in (1, 2):
        os.dup2(write, number)
    os.close(write)
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - for good
        for number in (1, 2)
    )
    threading.Thread(target=_pass_on, args=(read, wire), daemon=True, name="output").start()


def _pass_on(read: int, wire: Wire) -> None:
    with open(read, "rb") as lines:
        while line := lines.readline(LINE_BYTES):
            text = line.decode("utf-8", "backslashreplace").rstrip()
            if text:
                wire.log("info", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
