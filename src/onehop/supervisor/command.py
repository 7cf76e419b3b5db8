"""The supervisor's end of one shell command: its stdin, its two output pipes, its process."""

from __future__ import annotations

import asyncio
import json
import os
import signal

from onehop.errors import ConflictError, TooManyError
from onehop.supervisor.pipes import PIPE_READS_PER_TURN, OutputOwner, Pipes

MAX_UNREAD_BYTES = 1 << 20
"""So much that was fed is kept for a command that does not read it."""
LEFT_BYTES_PER_S = 16 << 20
"""So much is read of what a command left in the background: reading for nothing takes time from others."""


class Command(Pipes):
    """Its place among what runs in a sandbox has a name that no context can have.

    Attributes:
        ended: its process is gone; what its children still write is read and thrown away, so that a server
            that was left in the background is not stopped by its first line of log.
        cpu_ns, peak_bytes: what it has used, known at its end; for machines without control groups.
    """

    def __init__(self, owner: OutputOwner, loop: asyncio.AbstractEventLoop, name: str) -> None:
        super().__init__(owner, loop, name)
        self.ended = False
        self.cpu_ns = self.peak_bytes = -1
        self._stdin = -1
        self._unread = bytearray()
        self._closing = False
        try:
            stdin_read, self._stdin = os.pipe2(os.O_CLOEXEC)
        except OSError:
            self.close()
            raise
        os.set_blocking(self._stdin, False)
        self.theirs.insert(0, stdin_read)

    def given(self) -> None:
        """Init has its ends. What it writes is nobody's until `begun`."""
        self._forget_theirs()

    def begun(self) -> None:
        """Its execution takes the output from now on."""
        self._listen()

    def interrupt(self) -> bool:
        """SIGTERM, which is what shells pass on and servers end at."""
        return self.signal(signal.SIGTERM)

    def close(self) -> None:
        super().close()
        self._close_stdin()

    # --- stdin --------------------------------------------------------------------------------------

    def feed(self, data: bytes, *, close: bool) -> None:
        """More for stdin; with `close` there is no more after it.

        Raises:
            ConflictError: stdin is closed.
            TooManyError: the command does not read what it has got.
        """
        if self._stdin < 0 or self._closing:
            raise ConflictError("the command's stdin is closed")
        if self._unread and len(self._unread) + len(data) > MAX_UNREAD_BYTES:
            raise TooManyError(
                f"the command has {len(self._unread)} bytes of stdin to read yet; send more when it has"
            )
        self.give(data, close=close)

    def give(self, data: bytes, *, close: bool) -> None:
        """Like `feed`, for what came with the request and was bounded there."""
        waiting = bool(self._unread)
        self._unread += data
        self._closing = close
        if not waiting:
            self._write()
        if self._unread and not waiting:
            self._loop.add_writer(self._stdin, self._write)

    def _write(self) -> None:
        try:
            while self._unread:
                del self._unread[: os.write(self._stdin, self._unread[:65536])]
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more
            self._close_stdin()
            return
        self._loop.remove_writer(self._stdin)
        if self._closing:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        self._unread.clear()

    # --- its end ------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Its process is gone. What is left of it is closed when nobody writes to it any more."""
        self.ended = True
        self._close_stdin()
        self.resume_output()
        if not self._pipes:
            self.close()

    def _on_pipe(self, fd: int) -> None:
        super()._on_pipe(fd)
        if self.ended and fd in self._pipes and not self._paused:
            self.pause_output()
            pause_s = PIPE_READS_PER_TURN * 65536 / LEFT_BYTES_PER_S
            self._loop.call_later(pause_s, self.resume_output)

    def _ended(self, fd: int) -> None:
        del self._pipes[fd]
        os.close(fd)
        if self.ended and not self._pipes:
            self.close()


def payload(command: str, env: dict[str, str]) -> int:
    """A file for init with what the command is to do. The caller closes it."""
    fd = os.memfd_create("command", os.MFD_CLOEXEC)
    raw = json.dumps({"command": command, "env": env}).encode()
    while raw:
        raw = raw[os.write(fd, raw) :]
    return fd
