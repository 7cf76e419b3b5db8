"""A websocket of a wire: accepted, read and written until one side goes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import NoneType
from typing import Any

from starlette.requests import ClientDisconnect

from onehop.api.asgi import Call
from onehop.errors import UnauthorizedError
from onehop.sessions.keyring import Keyring

UNSUPPORTED = 1003
"""Close code: the message cannot be read (RFC 6455, section 7.4.1)."""
POLICY = 1008
"""Close code: against the server's rules (the same)."""
TOO_MANY = 1013
"""Close code: try again later (IANA's registry of WebSocket close codes)."""


class Websocket:
    """One connection; `serve` begins it, and it lasts no longer than its key.

    Args:
        keyring: says with every message whether the caller's key is still one.
    """

    def __init__(self, call: Call, keyring: Keyring) -> None:
        self._call = call
        self._keyring = keyring

    async def serve(
        self, *works: Coroutine[Any, Any, None], beside: Coroutine[Any, Any, None] | None = None
    ) -> None:
        """Accepts it and does all `works` until one of them ends or the client goes.

        Args:
            beside: done meanwhile; that it ends ends nothing.
        """
        await self._call.receive()  # websocket.connect
        await self._call.send({"type": "websocket.accept"})
        main = [asyncio.create_task(work) for work in works]
        helpers = [] if beside is None else [asyncio.create_task(beside)]
        try:
            done, _ = await asyncio.wait(main, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*main, *helpers):
                task.cancel()
            await asyncio.gather(*main, *helpers, return_exceptions=True)
        for task in done:
            if not isinstance(task.exception(), ClientDisconnect | NoneType):
                task.result()

    async def receive(self) -> str | bytes:
        """The next message. Raises ClientDisconnect."""
        event = await self._call.receive()
        if event["type"] == "websocket.disconnect":
            raise ClientDisconnect
        try:
            self._keyring.check(self._call.caller)
        except UnauthorizedError as error:
            await self.close(POLICY, error.detail)
            raise ClientDisconnect from None
        return event.get("text") or event.get("bytes") or ""

    async def send(self, text: str) -> None:
        """Raises ClientDisconnect."""
        await self._send({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str) -> None:
        """Raises ClientDisconnect."""
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _send(self, event: dict[str, Any]) -> None:
        try:
            await self._call.send(event)
        except RuntimeError:
            raise ClientDisconnect from None  # it was closed meanwhile
