"""The supervisor's end of one kernel: its channel, its two pipes, the frames and their order.

Everything read here was written by hostile code. The header of a frame is checked before its payload
is waited for, payloads are passed on undecoded, and descriptors that a kernel sends are dropped by
the operating system because we never ask for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import Protocol

from onehop.protocol import FROM_KERNEL, HEADER, HEADER_BYTES, MAX_KERNEL_FRAME_BYTES, Kind, pack
from onehop.supervisor.pipes import PIPE_READS_PER_TURN, OutputOwner, Pipes

READ_BYTES = 262_144
FRAMES_PER_TURN = 64
"""A flood of frames must leave turns for the other sandboxes. Our kernel waits for an answer after every few."""
MAX_UNREAD_BYTES = 65_536
"""A kernel that asks and never reads the answers would make us keep them."""
MAX_UNSENT_BYTES = 128 * 1024 * 1024
"""The same for results of calls: more than the gateway gives one execution (see `tool_bytes_mb`)."""
SO_PASSRIGHTS = 83
"""asm-generic/socket.h, Linux 6.16."""


class Owner(OutputOwner, Protocol):
    """What a link tells its sandbox."""

    def on_frame(self, link: Link, kind: int, execution: int, payload: bytes) -> None: ...
    def on_violation(self, link: Link, what: str) -> None: ...
    def on_channel_closed(self, link: Link) -> None: ...


class Link(Pipes):
    """A kernel: pipes and pidfd, and its channel.

    Attributes:
        ready: it has said that it takes cells.
    """

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, name: str) -> None:
        super().__init__(owner, loop, name)
        self.ready = False
        self.exit_code: int | None = None
        self._owner = owner
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._unsent_answers = 0
        """Bytes of PROCEED in it."""
        self._more = False
        self._scheduled = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel = ours
        ours.setblocking(False)
        with contextlib.suppress(OSError):
            # Descriptors are refused when they are sent. Older kernels take them and drop them when we read,
            # in our time: closing may be slow (see setsockopt in jail/policy/seccomp.toml).
            ours.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        self.theirs.insert(0, theirs.detach())

    @property
    def kernel_fds(self) -> list[int]:
        """The kernel's ends: channel, stdout, stderr."""
        return self.theirs

    def given(self) -> None:
        super().given()
        self._loop.add_reader(self._channel, self._on_channel)

    def close(self) -> None:
        super().close()
        # Half a frame may be 16 MiB; others may hold on to a closed link for a while.
        self._buffer.clear()
        self._unsent.clear()
        if self._channel.fileno() >= 0:
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()

    def interrupt(self) -> bool:
        """Asks what runs to stop; False when the kernel is gone."""
        return self.signal(signal.SIGINT)

    # --- to the kernel ------------------------------------------------------------------------------

    def send(self, kind: Kind, execution: int, payload: bytes = b"") -> None:
        data = pack(kind, execution, payload)
        sent = 0
        if not self._unsent:
            try:
                sent = self._channel.send(data)
            except BlockingIOError:
                pass
            except OSError:
                return  # its end is reported by the reader
            if sent == len(data):
                return
            self._loop.add_writer(self._channel, self._on_writable)
        self._unsent += memoryview(data)[sent:]
        if kind == Kind.PROCEED:
            self._unsent_answers += len(data) - sent
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self._owner.on_violation(self, "calls without reading their results")

    def _on_writable(self) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._unsent_answers = 0
            self._loop.remove_writer(self._channel)

    # --- from the kernel ----------------------------------------------------------------------------

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
            if kind == Kind.SYNC and self._unsent_answers > MAX_UNREAD_BYTES:
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
