"""The Connect protocol with JSON, as much of it as a server of E2B's calls needs.

Source: https://connectrpc.com/docs/protocol. A call with one answer is a POST of JSON. In a streaming call every
message has five bytes in front: flags and its length; the last one (flag 2) says how the stream ended.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from onehop import errors
from onehop.api.asgi import Call, Header, encode_json
from onehop.sessions.requests import decode
from onehop.wires.e2b.errors import call_error

HEAD = struct.Struct(">BI")
COMPRESSED, END = 1, 2
STREAM: Header = (b"content-type", b"application/connect+json")
MESSAGE_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


class CallError(errors.ProblemError):
    """How a stream ended otherwise than well. Args: code: Connect's."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def timeout_s(call: Call) -> float | None:
    """How long the client waits for the whole call; None for ever. Raises InvalidRequestError."""
    value = call.header(b"connect-timeout-ms")
    if not value or value == b"0":
        return None
    if not (value.isdigit() and len(value) <= 10):
        raise errors.InvalidRequestError("Connect-Timeout-Ms: expected at most ten digits")
    return int(value) / 1000


async def unary(call: Call, decoder: msgspec.json.Decoder[T]) -> T:
    """The message of a call with one answer."""
    call.require_type(b"application/json")
    return decode(decoder, await call.body(MESSAGE_BYTES) or b"{}")


async def messages(call: Call, decoder: msgspec.json.Decoder[T], total_bytes: int) -> AsyncGenerator[T]:
    """The client's messages of a streaming call, as they come, of at most `total_bytes` in all."""
    call.require_type(STREAM[1])
    buffer = bytearray()
    async for chunk in call.chunks(total_bytes):
        buffer += chunk
        while len(buffer) >= HEAD.size:
            flags, length = HEAD.unpack_from(buffer)
            if length > MESSAGE_BYTES:
                raise errors.TooLargeError(
                    f"a message is longer than {MESSAGE_BYTES} bytes", limit_bytes=MESSAGE_BYTES
                )
            if len(buffer) < HEAD.size + length:
                break
            message = bytes(buffer[HEAD.size : HEAD.size + length])
            del buffer[: HEAD.size + length]
            if flags & END:
                return
            if flags & COMPRESSED:
                raise errors.InvalidRequestError("compressed messages are not read here; send identity")
            yield decode(decoder, message)
    if buffer:
        raise errors.InvalidRequestError("the last message has no end")


async def only(call: Call, decoder: msgspec.json.Decoder[T]) -> T:
    """The one message of a call that is answered by a stream."""
    async with aclosing(messages(call, decoder, MESSAGE_BYTES + HEAD.size)) as found:
        async for message in found:
            return message
    raise errors.InvalidRequestError("the call has no message")


async def stream(call: Call, answers: AsyncGenerator[Any]) -> None:
    """Sends messages until they end or the client hangs up; what goes wrong is told at the end of the stream.

    Raises:
        SessionNotFoundError, SessionEndedError: before anything was sent.
    """
    try:
        async with aclosing(answers) as source:
            first = await anext(source, None)
            await call.send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
            if first is not None:
                await _send(call, frame(first))
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(_hang_up(call))
                sender = group.create_task(_forward(call, source))
                watcher.add_done_callback(lambda _: sender.cancel())
                sender.add_done_callback(lambda _: watcher.cancel())
    except (errors.SessionNotFoundError, errors.SessionEndedError):
        raise
    except errors.ProblemError as error:
        await call.send({"type": "http.response.start", "status": 200, "headers": [STREAM]})
        await call.send({"type": "http.response.body", "body": _end(error)})


async def _forward(call: Call, source: AsyncIterator[Any]) -> None:
    end = HEAD.pack(END, 2) + b"{}"
    try:
        async for message in source:
            await _send(call, frame(message))
    except errors.ProblemError as error:
        end = _end(error)
    await call.send({"type": "http.response.body", "body": end})


async def answer(call: Call, message: Any) -> None:
    """The one message that answers a stream of the client's."""
    body = frame(message) + HEAD.pack(END, 2) + b"{}"
    await call.answer(body, headers=[STREAM])


def frame(message: Any) -> bytes:
    body = encode_json(message)
    return HEAD.pack(0, len(body)) + body


def _end(error: errors.ProblemError) -> bytes:
    told = (
        {"code": error.code, "message": error.detail} if isinstance(error, CallError) else call_error(error)
    )
    body = encode_json({"error": told})
    return HEAD.pack(END, len(body)) + body


async def _send(call: Call, chunk: bytes) -> None:
    await call.send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _hang_up(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass
