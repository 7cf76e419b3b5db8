"""Responses over a websocket: each `response.create` is answered by a stream's events, one after another.

A connection keeps its newest response, stored or not, so that the next can go on from it at once.
Source: https://platform.openai.com/docs/guides/websocket-mode and `openai.types.responses.responses_client_event`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from onehop.api.asgi import Call, encode_json
from onehop.errors import (
    InternalError,
    InvalidRequestError,
    ProblemError,
    UnsupportedParameterError,
)
from onehop.sessions import Engine
from onehop.wires.openai import errors, members
from onehop.wires.openai.responses import Responses, Stored
from onehop.wires.websocket import POLICY, TOO_MANY, Websocket

MAX_AGE_S = 3600.0
"""As OpenAI's connections."""
MAX_WAITING = 16
CREATE = "response.create"


class ResponsesSocket:
    def __init__(self, responses: Responses, engine: Engine) -> None:
        self._responses = responses
        self._engine = engine

    async def serve(self, call: Call) -> None:
        """Until the client goes, or for MAX_AGE_S."""
        await _Connection(self._responses, self._engine, call).run()


class _Connection:
    def __init__(self, responses: Responses, engine: Engine, call: Call) -> None:
        self._responses = responses
        self._most_bytes = engine.settings.body_bytes
        self._call = call
        self._socket = Websocket(call, engine.keyring)
        self._near: dict[str, Stored] = {}
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue(MAX_WAITING)
        self._waiting_bytes = 0

    async def run(self) -> None:
        await self._socket.serve(self._listen(), self._work(), self._age())

    async def _listen(self) -> None:
        while True:
            raw = await self._socket.receive()
            if self._waiting.full() or self._waiting_bytes > self._most_bytes:
                await self._socket.close(TOO_MANY, "too many requests are waiting already")
                return
            self._waiting_bytes += len(raw)
            self._waiting.put_nowait(raw)

    async def _age(self) -> None:
        await asyncio.sleep(MAX_AGE_S)
        await self._fail("websocket_connection_limit_reached", "the connection is too old; open a new one")
        await self._socket.close(POLICY, "the connection is too old")

    async def _work(self) -> None:
        while True:
            raw = await self._waiting.get()
            self._waiting_bytes -= len(raw)
            document: dict[str, Any] = {}
            try:
                document = _request(raw)
                ended_well = await self._answer(document)
            except ProblemError as error:
                ended_well = False
                about = errors.document(error)
                await self._tell({"type": "error", "status": errors.status(error), "error": about})
            if not ended_well:
                # A client that tries once more must not go on from what it believes has gone on already.
                self._near.pop(str(document.get("previous_response_id")), None)

    async def _answer(self, document: dict[str, Any]) -> bool:
        """One response. False when it failed; raises ProblemError when it did not begin."""
        generate = members.optional_flag(document.pop("generate", None), "generate") is not False
        _, output, run = await self._responses.begin(self._call, document, self._near, generate=generate)
        begun = False
        async with aclosing(run) as events:
            try:
                async for event in events:
                    told = [] if begun else output.begin()
                    begun = True
                    for one in (*told, *output.told(event)):
                        await self._tell(one)
            except ProblemError as error:
                if not begun:
                    raise
                failure = error
            except Exception:
                for one in output.failed(InternalError("a defect of the server; its log has the details")):
                    await self._tell(one)
                raise
            else:
                return True
        for one in output.failed(failure):
            await self._tell(one)
        return False

    async def _fail(self, code: str, message: str) -> None:
        about = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
        await self._tell({"type": "error", "status": 400, "error": about})

    async def _tell(self, event: dict[str, Any]) -> None:
        await self._socket.send(encode_json(event).decode())


def _request(raw: str | bytes) -> dict[str, Any]:
    """The body of a request of Responses, with `generate`. Raises InvalidRequestError."""
    document = members.document(raw)
    kind = document.pop("type", None)
    if kind != CREATE:
        raise InvalidRequestError(f"type: expected {CREATE}, got {str(kind)[:40]!r}", field="type")
    if document.pop("stream_id", None) is not None:
        raise UnsupportedParameterError(
            "stream_id is not supported: a connection makes one response at a time; open another",
            field="stream_id",
        )
    document.pop("stream", None)  # it always is
    return document
