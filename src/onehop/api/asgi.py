"""The small pieces between ASGI and the handlers: a body that is never too large, answers with a length.

Handlers get a `Call`; they answer through it or raise a ProblemError. Nothing here knows the engine.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from onehop.errors import InvalidRequestError, ProblemError, TooLargeError, UnsupportedMediaTypeError
from onehop.sessions.caller import LOCAL, Caller

Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
PROBLEM: Header = (b"content-type", b"application/problem+json")
CHALLENGE: Header = (b"www-authenticate", b'Bearer realm="onehop"')
"""RFC 6750, section 3."""

encode_json = msgspec.json.Encoder().encode


class Call:
    """One request and its answer."""

    __slots__ = ("path", "receive", "scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.path: dict[str, str] = scope.get("path_params", {})

    @property
    def caller(self) -> Caller:
        """Who asks; the guard has found it out."""
        caller: Caller = self.scope.get("caller", LOCAL)
        return caller

    def header(self, name: bytes) -> bytes:
        """The first header of that (lower-case) name, or nothing."""
        for key, value in self.scope["headers"]:
            if key == name:
                return bytes(value)
        return b""

    def query(self, name: str) -> str:
        """The last value of that name in the query string, or nothing; bytes that are no UTF-8 are surrogates."""
        from urllib.parse import parse_qs

        found = parse_qs(
            self.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="surrogateescape"
        ).get(name)
        return found[-1] if found else ""

    def query_flag(self, name: str) -> bool:
        """Raises InvalidRequestError for something else than `true` or `false`."""
        value = self.query(name)
        if value not in ("", "true", "false"):
            raise InvalidRequestError(f"{name}: expected true or false, got {value[:40]!r}", field=name)
        return value == "true"

    def query_int(self, name: str) -> int | None:
        """A whole number from the query string. Raises InvalidRequestError for something else."""
        from urllib.parse import parse_qs

        values = parse_qs(self.scope["query_string"].decode("ascii", "replace"), keep_blank_values=True).get(
            name
        )
        if not values:
            return None
        return whole_number(values[-1], name)

    def require_type(self, wanted: bytes) -> None:
        """Raises UnsupportedMediaTypeError unless the body's Content-Type is `wanted`."""
        value = self.header(b"content-type")
        if value == wanted:
            return
        kind, _, parameters = value.partition(b";")
        if kind.strip().lower() != wanted or parameters.strip().lower() not in (
            b"",
            b"charset=utf-8",
            b'charset="utf-8"',
        ):
            raise UnsupportedMediaTypeError(f"send the body as Content-Type: {wanted.decode()}")

    def declared_length(self, limit_bytes: int) -> int:
        """Content-Length, or -1. Raises TooLargeError when it says more than `limit_bytes`."""
        value = self.header(b"content-length")
        if not value.isdigit():
            return -1
        length = int(value[:20])
        if length > limit_bytes:
            raise _too_large(limit_bytes)
        return length

    async def body(self, limit_bytes: int) -> bytes | bytearray:
        """The whole body. Raises TooLargeError as soon as it is longer than `limit_bytes`."""
        self.declared_length(limit_bytes)
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        first: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(first) > limit_bytes:
                raise _too_large(limit_bytes)
            return first
        whole = bytearray(first)
        while message.get("more_body", False):
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            whole += message.get("body", b"")
            if len(whole) > limit_bytes:
                raise _too_large(limit_bytes)
        return whole

    async def chunks(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body as it comes, at most `limit_bytes` of it, then TooLargeError."""
        more, total = True, 0
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            total += len(chunk)
            if total > limit_bytes:
                raise _too_large(limit_bytes)
            if chunk:
                yield chunk
            more = message.get("more_body", False)

    async def gone_before(self, done: asyncio.Future[Any]) -> bool:
        """Whether the client hangs up before `done`; the body has been read already."""
        disconnected = asyncio.ensure_future(self.receive())
        try:
            await asyncio.wait({done, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            return not done.done()
        finally:
            disconnected.cancel()

    async def answer(self, body: bytes, *, status: int = 200, headers: Iterable[Header] = (JSON,)) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await self.send({"type": "http.response.body", "body": body})

    async def empty(self, status: int = 204, *, headers: Iterable[Header] = ()) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers]})
        await self.send({"type": "http.response.body", "body": b""})

    async def problem(self, error: ProblemError, request_id: str, *, headers: Iterable[Header] = ()) -> None:
        """The problem document of RFC 9457."""
        more: list[Header] = []
        if error.retry_after_s is not None:
            more.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
        if error.status == 405:
            more.append((b"allow", ", ".join(error.extra["allow"]).encode()))
        elif error.status == 401:
            more.append(CHALLENGE)
        elif error.status == 416:
            more.append((b"content-range", b"bytes */%d" % error.extra["bytes"]))
        await self.answer(
            problem_body(error, request_id), status=error.status, headers=[PROBLEM, *more, *headers]
        )


def problem_body(error: ProblemError, request_id: str) -> bytes:
    """The document, with the name under which the log has more."""
    return encode_json({**error.document(), "request_id": request_id})


def whole_number(text: str, field: str) -> int:
    """Raises InvalidRequestError for what is not a number of 0 or more (up to 2^53)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidRequestError(
            f"{field}: expected a whole number from 0 on, got {text[:40]!r}", field=field
        )
    return int(text)


def _too_large(limit_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is longer than {limit_bytes} bytes", limit_bytes=limit_bytes)
