"""Clients that behave badly, as bare sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.faults.server import FaultServer

TCP_REPAIR = 19
"""linux/tcp.h: a socket that is closed with it tells its peer nothing."""


@contextlib.contextmanager
def connected(server: FaultServer, *, buffer_bytes: int = 0) -> Iterator[socket.socket]:
    """A connection; `buffer_bytes` is how much the system takes for a client that does not read."""
    address = urlsplit(server.url)
    assert address.hostname is not None
    assert address.port is not None
    with socket.socket() as connection:
        if buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.settimeout(30)
        connection.connect((address.hostname, address.port))
        yield connection


def request(
    server: FaultServer, method: str, path: str, body: bytes = b"", *, length: int = -1, accept: str = "*/*"
) -> bytes:
    """A whole request, or one that promises a longer body than it has."""
    host = urlsplit(server.url).netloc
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n"
    if body or length >= 0:
        head += f"Content-Type: application/json\r\nContent-Length: {max(length, len(body))}\r\n"
    return head.encode() + b"\r\n" + body


def vanish(connection: socket.socket) -> None:
    """Closes without FIN or RST, as a machine that lost its power does (needs root)."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connection.close()


def reset(connection: socket.socket) -> None:
    """Closes with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def seconds_until_closed(
    connection: socket.socket, *, sending: bytes = b"", every_s: float = 0.1, within_s: float = 30.0
) -> float:
    """How long the server keeps a client that reads nothing new and drips `sending` byte by byte."""
    started_s = time.monotonic()
    connection.settimeout(every_s)
    drip = iter(sending)
    while time.monotonic() - started_s < within_s:
        try:
            if sending:
                connection.send(bytes([next(drip)]))
            if connection.recv(65536) == b"":
                break
        except TimeoutError:
            continue
        except (OSError, StopIteration):
            break
    return time.monotonic() - started_s
