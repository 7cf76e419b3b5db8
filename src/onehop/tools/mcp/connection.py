"""One connection to a server of MCP, from its handshake to its end: its tools, and calls of them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp import Client, MCPError
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from onehop.errors import CallFailedError, UnreachableError
from onehop.tools.mcp.http import NOT_ANSWERED, NOT_SENT, HttpServer
from onehop.tools.mcp.stdio import TOO_LARGE, StdioServer

HANDSHAKE_TIMEOUT_S = 30.0
LIST_TIMEOUT_S = 30.0
MAX_PAGES = 200
SILENT_S = 10.0
"""A stdio server that says nothing for so long after a call was given up, asked again, is of no use."""
CALMING_S = 1.0
"""At most one new list of tools within this time."""
MESSAGE_CHARACTERS = 4000
RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


class Connection:
    """Made by `connected`.

    Attributes:
        ended: set when nothing can be called any more.
        changed: set when the server says that its tools have changed.
    """

    def __init__(self, server: StdioServer | HttpServer) -> None:
        self.ended = server.ended if isinstance(server, StdioServer) else asyncio.Event()
        self.changed = asyncio.Event()
        self._server = server
        self._problem = ""
        self._client = Client(
            server.streams(),
            client_info=types.Implementation(name="onehop", version=importlib.metadata.version("onehop")),
            message_handler=self._take,
            cache=None,
        )

    @property
    def problem(self) -> str:
        """Why it ended, as far as that is known."""
        if self._problem:
            return self._problem
        if isinstance(self._server, StdioServer):
            return self._server.problem
        return self._server.refused

    async def _take(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Shakes hands, and ends the connection. Raises UnreachableError when there is nobody to talk to."""
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(self._server, HttpServer):
                await stack.enter_async_context(self._server.client)
            try:
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    await stack.enter_async_context(self._client)
            except TimeoutError:
                raise UnreachableError(f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s") from None
            except (MCPError, ValidationError, ExceptionGroup) as error:
                raise UnreachableError(self.problem or f"no handshake: {_told(error)}") from None
            yield

    # --- its tools ------------------------------------------------------------------------------------

    async def tools(self) -> list[types.Tool]:
        """All of them. Raises UnreachableError when the server does not say, or says nonsense."""
        if self._client.server_capabilities.tools is None:
            return []
        found: list[types.Tool] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                for _ in range(MAX_PAGES):
                    page = await self._client.list_tools(cursor=cursor)
                    found += page.tools
                    cursor = page.next_cursor
                    if cursor is None:
                        return found
        except TimeoutError:
            raise UnreachableError(f"no list of its tools within {LIST_TIMEOUT_S:g} s") from None
        except (MCPError, ValidationError) as error:
            raise UnreachableError(self.problem or f"no list of its tools: {_told(error)}") from None
        raise UnreachableError(f"its list of tools has more than {MAX_PAGES} pages")

    async def watch(self, refresh: Callable[[], Any]) -> None:
        """Awaits `refresh` after changes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                tools = self._client.server_capabilities.tools
                if tools is not None and tools.list_changed:
                    group.create_task(self._subscribe())
            while True:
                await self.changed.wait()
                self.changed.clear()
                await refresh()
                await asyncio.sleep(CALMING_S)

    async def _subscribe(self) -> None:
        """Servers of 2026-07-28 and later tell changes to those only who ask for them."""
        while True:
            try:
                async with self._client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        self.changed.set()
            except (SubscriptionLost, MCPError, TimeoutError):
                pass
            await asyncio.sleep(CALMING_S)
            self.changed.set()  # what was missed

    # --- calls ----------------------------------------------------------------------------------------

    async def call(self, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        """Raises CallFailedError; UnreachableError when the connection ended, unsent: the server has not seen it."""
        started_s = time.monotonic()
        try:
            result = await self._answer(name, arguments)
        except asyncio.CancelledError:
            self._suspect(started_s)
            raise
        except MCPError as error:
            raise self._failure(error) from None
        except ValidationError as error:
            raise CallFailedError(
                "bad_result", f"the server's answer is none of MCP: {_told(error)}"
            ) from None
        if isinstance(result, types.InputRequiredResult):
            raise CallFailedError("failed", "the tool wants to ask somebody for input, and nobody is there")
        return result

    async def _answer(
        self, name: str, arguments: dict[str, Any]
    ) -> types.CallToolResult | types.InputRequiredResult:
        if isinstance(self._server, StdioServer):
            return RESULT.validate_python(await self._server.call(name, arguments), by_name=False)
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=name, arguments=arguments))
        return await self._client.session.send_request(request, RESULT)

    def _failure(self, error: MCPError) -> Exception:
        code, message = error.error.code, error.error.message[:MESSAGE_CHARACTERS]
        if message.startswith("SSE stream failed") or code in (TOO_LARGE, types.PARSE_ERROR):
            return CallFailedError("bad_result", message)
        if code in (NOT_SENT, NOT_ANSWERED):
            return UnreachableError(message, unsent=code == NOT_SENT)
        if code == types.CONNECTION_CLOSED:
            return UnreachableError(self.problem or message)
        if isinstance(self._server, HttpServer) and message == "Session terminated":  # by HTTP 404
            self._problem = "the server has ended the session"
            self.ended.set()
            return UnreachableError(self._problem, unsent=True)
        if code == types.HEADER_MISMATCH:
            self.changed.set()
            return UnreachableError("the tool has changed", unsent=True)
        if isinstance(self._server, HttpServer) and self._server.refused and "error response" in message:
            return CallFailedError("failed", f"the server answered with {self._server.refused}")
        kind = "bad_arguments" if code == types.INVALID_PARAMS else "failed"
        return CallFailedError(kind, message or f"error {code}")

    def _suspect(self, started_s: float) -> None:
        """A call was given up. Has the server said nothing since, it may hang; then it is ended."""
        server = self._server
        if isinstance(server, StdioServer) and server.heard_s < started_s and not self.ended.is_set():
            loop = asyncio.get_running_loop()
            loop.call_later(SILENT_S, self._if_still_silent, server, server.heard_s)

    def _if_still_silent(self, server: StdioServer, heard_s: float) -> None:
        if server.heard_s == heard_s and not self.ended.is_set():
            self._problem = f"the server hangs: a call was given up, and nothing came for {SILENT_S:g} s more"
            self.ended.set()


@asynccontextmanager
async def connected(server: StdioServer | HttpServer) -> AsyncIterator[Connection]:
    """A connection that has shaken hands; ended with the block. Raises UnreachableError."""
    connection = Connection(server)
    async with connection.opened():
        yield connection


def _told(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        return error.error.message[:MESSAGE_CHARACTERS]
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:MESSAGE_CHARACTERS]
