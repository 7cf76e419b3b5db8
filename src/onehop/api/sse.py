"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): numbered, in JSON.

A client that reads slowly or goes away holds up nobody: events are taken from the execution's log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from onehop.api.asgi import Call, Header
from onehop.sessions.run import EncodedEvent

KEEP_ALIVE_S = 15.0
CONTENT_TYPE: Header = (b"content-type", b"text/event-stream; charset=utf-8")
COMMENT = b": keep-alive\n\n"


def wanted(call: Call) -> bool:
    """The client asks for events instead of one answer."""
    return b"text/event-stream" in call.header(b"accept").lower()


def formatted(events: list[EncodedEvent]) -> bytes:
    """Several events at once; none is a comment that keeps the connection alive."""
    if not events:
        return COMMENT
    return b"".join(b"id: %d\nevent: %b\ndata: %b\n\n" % (n, kind.encode(), data) for n, kind, data in events)


async def stream(call: Call, events: AsyncIterator[list[EncodedEvent]], *, headers: list[Header]) -> None:
    """Sends events until they end or the client is gone."""
    await send(call, (formatted(several) async for several in events), headers=headers)


async def send(
    call: Call, chunks: AsyncIterator[bytes], *, headers: list[Header], content_type: Header = CONTENT_TYPE
) -> None:
    """Like `stream`, of what is formatted already, also of other types."""
    head = [content_type, *headers]
    await call.send({"type": "http.response.start", "status": 200, "headers": head})
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_wait_for_disconnect(call))
        sender = group.create_task(_send(call, chunks))
        watcher.add_done_callback(lambda _: sender.cancel())
        sender.add_done_callback(lambda _: watcher.cancel())


async def _send(call: Call, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
    await call.send({"type": "http.response.body", "body": b""})


async def _wait_for_disconnect(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass
