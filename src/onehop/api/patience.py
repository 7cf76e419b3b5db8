"""Connections whose client is slow, silent or gone: each holds a descriptor and some memory, and nobody else's time.

uvicorn waits for ever for the rest of a request, and for a client to take its answer. Here a periodic look
ends what does not move, so that no request pays for a timer of its own; the size of a head is bounded as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Collection

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from onehop.api.cork import CorkedProtocol

MAX_HEAD_BYTES = 65_536
"""Of a request's line and headers."""
TAKING_FACTOR = 10
"""An answer may wait for its reader this many times longer than we wait for a request."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 60, 15, 4
"""A client that vanished without a word is found after two minutes (tcp(7))."""

log = logging.getLogger("onehop.api")


class PatientProtocol(CorkedProtocol):
    _head_since_s = 0.0
    """When we began to wait for the rest of a head, on the loop's clock; 0 while we do not."""
    _head_bytes = 0
    _body_bytes = 0
    _position: tuple[str, int] | None = None
    """How far the body or the answer was when we last looked."""
    _moved_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since_s = self.loop.time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_since_s:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since_s = self.loop.time()

    def on_headers_complete(self) -> None:
        self._head_since_s, self._head_bytes = 0.0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def look(self, now_s: float, patience_s: float) -> None:
        """Ends the connection if nothing has moved on it for too long."""
        if self._head_since_s:
            if now_s - self._head_since_s > patience_s:
                self._refuse(408)
            return
        waiting = self.transport.get_write_buffer_size()
        position: tuple[str, int] | None = None
        if waiting:
            position, patience_s = ("answer", waiting), patience_s * TAKING_FACTOR
        elif self._waits_for_body():
            position = ("body", self._body_bytes)
        if position is None or position != self._position:
            self._position, self._moved_s = position, now_s
        elif now_s - self._moved_s > patience_s:
            log.info("a connection is ended: its %s has not moved for %g s", position[0], patience_s)
            self.transport.abort()

    def _waits_for_body(self) -> bool:
        cycle: RequestResponseCycle | None = (
            self.cycle
        )  # None before the first request, whatever its type says
        if cycle is None or cycle.response_complete:
            return False
        return cycle.more_body and not self.flow.read_paused

    def _refuse(self, status: int) -> None:
        self._head_since_s = 0.0
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            head = STATUS_LINE[status] + b"connection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head)
        self.transport.close()


async def watch(connections: Collection[object], patience_s: float) -> None:
    """Looks after all connections, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(5.0, patience_s / 4))
        now_s = loop.time()
        for connection in list(connections):
            if isinstance(connection, PatientProtocol):
                connection.look(now_s, patience_s)


def keep_alive(listener: socket.socket) -> None:
    """Has the operating system ask after silent clients; accepted sockets inherit it."""
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
