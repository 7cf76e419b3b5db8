"""A blocking HTTP/1.1 client with little cost of its own: one socket, one request at a time.

Its cost is part of every figure over HTTP; the row `noop` shows it. It must never retry by itself: a
request that fails is an error of the peer.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import msgspec

from bench.cells import Cell, WrongAnswerError

IDLE_LIMIT_S = 2.0
"""uvicorn hangs up on connections that were idle for 5 s."""


class HttpError(Exception):
    """A status other than 2xx, or something that is not HTTP (status 0)."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """One connection, kept alive. Not for several threads."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = 60.0) -> None:
        self._address = (host, port)
        self._timeout_s = timeout_s
        self._host = f"{host}:{port}".encode()
        self._socket: socket.socket | None = None
        self._used_s = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def connect(self) -> socket.socket:
        """Makes the connection anew unless it was used just now; call it before the clock runs."""
        if self._socket is None or time.monotonic() - self._used_s > IDLE_LIMIT_S:
            self.close()
            self._socket = socket.create_connection(self._address, self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._used_s = time.monotonic()
        return self._socket

    def request(self, method: str, path: str, body: bytes = b"") -> Any:
        """The decoded JSON answer, None for an empty one.

        Raises:
            HttpError: the status is not 2xx.
            OSError: the connection failed.
        """
        connection = self.connect()
        head = b"%s %s HTTP/1.1\r\nHost: %s\r\n" % (method.encode(), path.encode(), self._host)
        if body:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        try:
            connection.sendall(head + b"\r\n" + body)
            status, payload = self._receive(connection)
        except BaseException:
            self.close()
            raise
        self._used_s = time.monotonic()
        if not 200 <= status < 300:
            text = payload[:500].decode(errors="replace")
            raise HttpError(f"{method} {path}: {status} {text}", status)
        return msgspec.json.decode(payload) if payload else None

    def post(self, path: str, body: bytes) -> Any:
        return self.request("POST", path, body)

    def _receive(self, connection: socket.socket) -> tuple[int, bytes]:
        data = bytearray()
        while (end := data.find(b"\r\n\r\n")) < 0:
            self._more(connection, data)
        head = bytes(data[:end]).lower()
        status = int(head[9:12])
        start = end + 4
        if status == 204:
            return status, b""
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            raise HttpError("an answer without Content-Length")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        while len(data) < start + length:
            self._more(connection, data)
        if b"\r\nconnection: close" in head:
            self.close()
        return status, bytes(data[start : start + length])

    def _more(self, connection: socket.socket, data: bytearray) -> None:
        chunk = connection.recv(65536)
        if not chunk:
            raise HttpError("the server hung up in mid-answer")
        data += chunk


def body(**fields: Any) -> bytes:
    """A request's JSON body, made before the clock runs."""
    return msgspec.json.encode(fields)


def text_of(answer: dict[str, Any]) -> str:
    """What an execution printed and its last value. Raises WrongAnswerError unless its status is ok."""
    if answer["status"] != "ok":
        raise WrongAnswerError(f"status {answer['status']}: {answer.get('error')} {answer.get('stderr')}")
    return "".join([answer["stdout"], *(result.get("text/plain", "") for result in answer["results"])])


def run(client: Client, path: str, request: bytes, cell: Cell) -> None:
    """One execution over HTTP, checked."""
    cell.check(text_of(client.post(path, request)))
