"""A TCP proxy on loopback that breaks connections where a test wants it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType

ABRUPT = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 seconds: closing sends a reset."""


class Cutter:
    """Forwards to a port on loopback.

    Attributes:
        cuts: for each new connection the bytes that the server may answer before it breaks; taken from the
            front, whole connections when it is empty. 0: the request arrives, nothing of the answer comes back.
        connections: how many there were.
    """

    def __init__(self, port: int) -> None:
        self.cuts: list[int] = []
        self.connections = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Cutter:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            _close(one)
        for thread in self._threads:
            thread.join(10)

    def _begin(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            allowed = self.cuts.pop(0) if self.cuts else -1
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open += [client, server]
            self._begin(self._pump, client, server, -1)
            self._begin(self._pump, server, client, allowed)

    def _pump(self, source: socket.socket, target: socket.socket, allowed: int) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                if 0 <= allowed <= len(chunk):
                    target.sendall(chunk[:allowed])
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABRUPT)
                    break
                allowed -= len(chunk) if allowed > 0 else 0
                target.sendall(chunk)
        _close(source)
        _close(target)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Wakes the thread that reads it. For a reset only this side may be shut: the other would say FIN first.
        is_abrupt = one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == ABRUPT
        one.shutdown(socket.SHUT_RD if is_abrupt else socket.SHUT_RDWR)
    one.close()
