"""Server-sent events of every wire: from the loop's events to chunks, with pings, until the client is gone.

What goes wrong before the first chunk is an HTTP error; later only the stream can tell it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from onehop.agent.events import ContainerOpened, LoopEvent, TurnStarted
from onehop.api.asgi import Call, Header
from onehop.api.sse import CONTENT_TYPE
from onehop.errors import InternalError, ProblemError

PING_S = 10.0
COMMENT = b": keep-alive\n\n"

LoopEvents = AsyncGenerator[LoopEvent, None]


async def stream(
    call: Call,
    events: LoopEvents,
    translate: Callable[[LoopEvent], bytes],
    failed: Callable[[ProblemError], bytes],
    *,
    head: bytes = b"",
    ping: bytes = COMMENT,
    headers: tuple[Header, ...] = (),
    content_type: Header = CONTENT_TYPE,
) -> None:
    """Sends what `translate` makes of each event; stops the loop when the client hangs up.

    Args:
        translate: an event as chunks, or nothing.
        failed: the end of a stream that goes wrong after its beginning.
        head: sent before the first chunk.
        ping: sent when nothing else was for PING_S seconds.
        content_type: of what `translate` makes, where that is no stream of events.

    Raises:
        ProblemError: it went wrong before anything was sent.
    """
    async with aclosing(events) as source:
        first: list[LoopEvent] = []
        gone = asyncio.ensure_future(_gone(call))
        try:
            async for event in _until(source, gone):
                first.append(event)
                if not isinstance(event, TurnStarted | ContainerOpened):
                    break
            if gone.done():
                return
            await call.send(
                {"type": "http.response.start", "status": 200, "headers": [content_type, *headers]}
            )
            sent_s = time.monotonic()
            begin = head + b"".join(translate(event) for event in first)
            if begin:
                await _send(call, begin)

            async def pings() -> None:
                while True:
                    await asyncio.sleep(max(0.05, sent_s + PING_S - time.monotonic()))
                    if time.monotonic() - sent_s >= PING_S:
                        await _send(call, ping)

            async def events_() -> None:
                nonlocal sent_s
                try:
                    async for event in source:
                        chunk = translate(event)
                        if chunk:
                            sent_s = time.monotonic()
                            await _send(call, chunk)
                except ProblemError as error:
                    await _send(call, failed(error))
                except Exception as error:
                    await _send(
                        call, failed(InternalError("a defect of the server; its log has the details"))
                    )
                    raise error from None
                await call.send({"type": "http.response.body", "body": b""})

            async with asyncio.TaskGroup() as group:
                pinger = group.create_task(pings())
                sender = group.create_task(events_())
                gone.add_done_callback(lambda _: sender.cancel())
                sender.add_done_callback(lambda _: pinger.cancel())
        finally:
            gone.cancel()


async def _until(source: LoopEvents, gone: asyncio.Future[None]) -> LoopEvents:
    """Events until the client is gone."""
    while True:
        event = asyncio.ensure_future(_next(source))
        try:
            waits: set[asyncio.Future[Any]] = {event, gone}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not event.done():
                event.cancel()
                await asyncio.wait({event})  # a generator that still runs cannot be closed
        if event.cancelled():
            return
        try:
            yield event.result()
        except StopAsyncIteration:
            return


async def _next(source: LoopEvents) -> LoopEvent:
    return await anext(source)


async def collect(call: Call, events: LoopEvents, take: Callable[[LoopEvent], object]) -> bool:
    """Every event to `take`, for an answer in one piece; False when the client hung up before the end."""

    async def work() -> None:
        async with aclosing(events) as source:
            async for event in source:
                take(event)

    worker = asyncio.ensure_future(work())
    try:
        if await call.gone_before(worker):
            return False
        await worker
        return True
    finally:
        if not worker.done():
            worker.cancel()
            await asyncio.wait({worker})


async def _send(call: Call, chunk: bytes) -> None:
    await call.send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _gone(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass
