"""The mcp library's streamable HTTP with an end to what a server may send, and with our credentials.

The library follows redirects within the server's origin only, and bounds events; JSON answers it takes
whole, so they are bounded here. Nothing is unpacked: a small answer must not become a large one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.streamable_http import streamable_http_client

from onehop.tools.credentials import Credentials

NOT_SENT, NOT_ANSWERED = -32_098, -32_097
"""Our own codes (as in stdio.py) for requests that the server has not seen, and for those it may have."""
CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 300.0
"""A server that sends nothing for so long amid an answer is let go."""


class HttpServer:
    """The way to one server.

    Attributes:
        refused: the last status that was an error, for people.
    """

    def __init__(self, url: str, credentials: Credentials, *, max_message_bytes: int) -> None:
        self.refused = ""
        credentials.bind(url)
        self._url = url
        self._max_bytes = max_message_bytes
        self.client = httpx2.AsyncClient(
            auth=credentials,
            headers={"User-Agent": "onehop", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            transport=_Bounded(max_message_bytes),
            event_hooks={"response": [self._look]},
            follow_redirects=False,
        )

    def streams(self) -> Any:
        """The library's transport."""
        return streamable_http_client(self._url, http_client=self.client, max_sse_event_size=self._max_bytes)

    async def _look(self, response: httpx2.Response) -> None:
        # 404 and 405 are how servers say that they have no such method; 502 may be our own
        if response.status_code >= 400 and response.status_code not in (404, 405, 502):
            self.refused = f"HTTP {response.status_code} {response.reason_phrase}".rstrip()
        elif response.status_code < 300:
            self.refused = ""


class _Bounded(httpx2.AsyncHTTPTransport):
    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # A request that fails would end the library's whole session, with the calls of others: it becomes
        # an answer that says so.
        try:
            response = await super().handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _failed(NOT_SENT, f"it cannot be reached: {error}")
        except httpx2.TransportError as error:
            return _failed(NOT_ANSWERED, f"{type(error).__name__}: {error}".rstrip(": "))
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            await response.aclose()
            return _failed(types.PARSE_ERROR, "the server packs its answers although nobody asked it to")
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Counted(response.stream, self._max_bytes)
        return response


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        try:
            async for part in self._stream:
                total += len(part)
                if total > self._max_bytes:
                    raise httpx2.StreamError(f"an answer of more than {self._max_bytes} bytes")
                yield part
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"the answer broke off: {error}") from error

    async def aclose(self) -> None:
        await self._stream.aclose()


def _failed(code: int, message: str) -> httpx2.Response:
    """What the library makes of a refusal with an error of JSON-RPC: an error of that one request."""
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(502, json=error)
