"""What kernels and commands have in common: two output pipes, a pidfd, and how both are read and signalled.

What comes through the pipes was written by hostile code: it is passed on undecoded, a bounded amount per
turn, and never waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Protocol

PIPE_READS_PER_TURN = 16
"""A flood on one pipe must leave turns for the other sandboxes: 16 x 64 KiB, then the loop goes on."""


class OutputOwner(Protocol):
    """Who takes the text."""

    def on_output(self, link: Pipes, stream: str, data: bytes) -> None: ...


class Pipes:
    """Owns the reading ends of stdout and stderr, and a pidfd; `close` frees them.

    Attributes:
        pidfd: of the process, once it has been told; -1 before and afterwards.
        inner_pid: its pid inside the sandbox.
        theirs: the process's ends; closed by `given` once init has them.
    """

    def __init__(self, owner: OutputOwner, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.pidfd = -1
        self.inner_pid = -1
        self._output_owner = owner
        self._loop = loop
        self._paused = False
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        try:
            err_read, err_write = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(out_read)
            os.close(out_write)
            raise
        for fd in (out_write, err_write):
            os.fchmod(fd, 0o622)  # opening /dev/stdout checks the pipe's owner, who is not the sandbox's user
        self._pipes = {out_read: "stdout", err_read: "stderr"}
        for fd in self._pipes:
            os.set_blocking(fd, False)
        self.theirs = [out_write, err_write]

    def given(self) -> None:
        """The process's ends are on their way: forget ours, and start to listen."""
        self._forget_theirs()
        self._listen()

    def _forget_theirs(self) -> None:
        for fd in self.theirs:
            os.close(fd)
        self.theirs = []

    def _listen(self) -> None:
        for fd in self._pipes:
            self._loop.add_reader(fd, self._on_pipe, fd)

    def close(self) -> None:
        """Safe to call twice."""
        self.alive = False
        self._forget_theirs()
        for fd in self._pipes:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._pipes = {}
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def signal(self, number: int) -> bool:
        """For the process and its group; False when it is gone already.

        The group is found through the pidfd, so a pid that was given to somebody else is never hit.
        """
        if self.pidfd < 0:
            return False
        try:
            pid = pid_of(self.pidfd)
            if pid > 0:
                signal.pidfd_send_signal(self.pidfd, 0)
                try:
                    os.killpg(pid, number)
                except ProcessLookupError:  # it was forked just now and leads no group yet
                    signal.pidfd_send_signal(self.pidfd, number)
            else:
                signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def pause_output(self) -> None:
        """Stops reading the pipes while a spill file is being opened; the kernel blocks when they are full."""
        if not self._paused:
            self._paused = True
            for fd in self._pipes:
                self._loop.remove_reader(fd)

    def resume_output(self) -> None:
        if self._paused:
            self._paused = False
            for fd in self._pipes:
                self._loop.add_reader(fd, self._on_pipe, fd)

    def discard_output(self) -> None:
        """Empties the pipes of what an execution that has ended left there: it is nobody else's output."""
        for fd in self._pipes:
            for _ in range(PIPE_READS_PER_TURN):
                try:
                    if len(os.read(fd, 65536)) < 65536:
                        break
                except BlockingIOError:
                    break

    def drain(self) -> None:
        """Takes everything that is in the pipes now."""
        for fd, stream in list(self._pipes.items()):
            if self._read_pipe(fd, stream, PIPE_READS_PER_TURN):
                # Still more: bounded, since a process may write as fast as we read.
                self._read_pipe(fd, stream, 4 * PIPE_READS_PER_TURN)

    def _on_pipe(self, fd: int) -> None:
        if self.alive and fd in self._pipes:
            self._read_pipe(fd, self._pipes[fd], PIPE_READS_PER_TURN)

    def _read_pipe(self, fd: int, stream: str, turns: int) -> bool:
        """True when it stopped because of `turns` and not because the pipe was empty."""
        for _ in range(turns):
            if self._paused or fd not in self._pipes:
                return False
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return False
            if not data:
                self._loop.remove_reader(fd)
                self._ended(fd)
                return False
            self._output_owner.on_output(self, stream, data)
            if len(data) < 65536:
                return False
        return True

    def _ended(self, fd: int) -> None:
        """Nobody holds the other end of a pipe any more."""


def pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1
