"""The supervisor's end of one kernel: its channel, its two pipes, the frames and their order.

Everything read here was written by hostile code. The header of a frame is checked before its payload
is waited for, payloads are passed on undecoded, and descriptors that a kernel sends are dropped by
the operating system because we never ask for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Protocol

from onehop.protocol import FROM_KERNEL, HEADER, HEADER_BYTES, MAX_KERNEL_FRAME_BYTES, Kind, pack

READ_BYTES = 262_144
PIPE_READS_PER_TURN = 16
"""A flood on one pipe must leave turns for the other sandboxes: 16 x 64 KiB, then the loop goes on."""
FRAMES_PER_TURN = 64
"""Likewise for frames. Our kernel waits for an answer after every few."""
MAX_UNREAD_BYTES = 65_536
"""A kernel that asks and never reads the answers would make us keep them."""
SO_PASSRIGHTS = 83
"""asm-generic/socket.h, Linux 6.16."""


class Owner(Protocol):
    """What a link tells its sandbox."""

    def on_frame(self, link: Link, kind: int, execution: int, payload: bytes) -> None: ...
    def on_output(self, link: Link, stream: str, data: bytes) -> None: ...
    def on_violation(self, link: Link, what: str) -> None: ...
    def on_channel_closed(self, link: Link) -> None: ...


class Link:
    """Owns three descriptors and a pidfd; `close` frees them."""

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.name = name
        self.ready = False
        self.alive = True
        self.pidfd = -1
        self.inner_pid = -1
        self.exit_code: int | None = None
        self._owner = owner
        self._loop = loop
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._paused = False
        self._more = False
        self._scheduled = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        for fd in (out_write, err_write):
            os.fchmod(fd, 0o622)  # opening /dev/stdout checks the pipe's owner, who is not the sandbox's user
        self._channel = ours
        ours.setblocking(False)
        with contextlib.suppress(OSError):
            # Descriptors are refused when they are sent. Older kernels take them and drop them when we read,
            # in our time: closing may be slow (see setsockopt in jail/policy/seccomp.toml).
            ours.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        self._pipes = {out_read: "stdout", err_read: "stderr"}
        for fd in self._pipes:
            os.set_blocking(fd, False)
        self.kernel_fds = [theirs.detach(), out_write, err_write]
        """The kernel's ends; closed by `given` once init has them."""

    def given(self) -> None:
        """The kernel's ends are on their way: forget ours, and start to listen."""
        for fd in self.kernel_fds:
            os.close(fd)
        self.kernel_fds = []
        self._loop.add_reader(self._channel, self._on_channel)
        for fd in self._pipes:
            self._loop.add_reader(fd, self._on_pipe, fd)

    def close(self) -> None:
        """Safe to call twice."""
        self.alive = False
        # Half a frame may be 16 MiB; others may hold on to a closed link for a while.
        self._buffer.clear()
        self._unsent.clear()
        for fd in self.kernel_fds:
            os.close(fd)
        self.kernel_fds = []
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()
        for fd in self._pipes:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._pipes = {}
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    # --- to the kernel ------------------------------------------------------------------------------

    def send(self, kind: Kind, execution: int, payload: bytes = b"") -> None:
        data = pack(kind, execution, payload)
        if not self._unsent:
            try:
                sent = self._channel.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # its end is reported by the reader
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._channel, self._on_writable)
        self._unsent += data

    def _on_writable(self) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._channel)

    def signal(self, number: int) -> bool:
        """For the kernel and its process group; False when it is gone already.

        The group is found through the pidfd, so a pid that was given to somebody else is never hit.
        """
        if self.pidfd < 0:
            return False
        try:
            pid = _pid_of(self.pidfd)
            if pid > 0:
                signal.pidfd_send_signal(self.pidfd, 0)
                os.killpg(pid, number)
            else:
                signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    # --- from the kernel ----------------------------------------------------------------------------

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

    def drain_all(self) -> None:
        """Frames that are complete, then text: before the end of the kernel is reported."""
        if self.alive:
            self._on_channel()
        if self.alive:
            self.drain()

    def _on_pipe(self, fd: int) -> None:
        # Frames first: text that a cell wrote before a frame has been taken already, on SYNC.
        self._on_channel()
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
                return False
            self._owner.on_output(self, stream, data)
            if len(data) < 65536:
                return False
        return True

    def _on_channel(self) -> None:
        if not self.alive:
            return
        if not self._more:
            try:
                data = self._channel.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._channel)
                self._owner.on_channel_closed(self)
                return
            self._buffer += data
        self._more = False
        self._take_frames()
        if self._more and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        if self._more:
            self._on_channel()

    def _take_frames(self) -> None:
        buffer = self._buffer
        start = frames = 0
        while self.alive and len(buffer) - start >= HEADER_BYTES:
            if frames == FRAMES_PER_TURN:
                self._more = True
                break
            frames += 1
            length, kind, execution = HEADER.unpack_from(buffer, start)
            if length > MAX_KERNEL_FRAME_BYTES:
                self._owner.on_violation(self, f"a frame of {length} bytes")
                return
            if kind not in FROM_KERNEL:
                self._owner.on_violation(self, f"a frame of kind {kind}")
                return
            if len(buffer) - start - HEADER_BYTES < length:
                break
            if kind == Kind.SYNC and len(self._unsent) > MAX_UNREAD_BYTES:
                self._owner.on_violation(self, "questions without reading the answers")
                return
            payload = bytes(memoryview(buffer)[start + HEADER_BYTES : start + HEADER_BYTES + length])
            start += HEADER_BYTES + length
            if kind != Kind.RESULT or not payload or self._is_final(payload):
                self.drain()
            self._owner.on_frame(self, kind, execution, payload)
        if start:
            del buffer[:start]

    @staticmethod
    def _is_final(payload: bytes) -> bool:
        # Our kernel encodes Result as a map whose last member is `final: true`, or leaves it out.
        return payload.endswith(b"\xa5final\xc3")


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1
