"""A server of the Model Context Protocol at /mcp: Python for every client that speaks it.

The protocol itself is the package `mcp`, of all its revisions; here are the tools, and the files as resources. Loaded
at the first request: most servers never get one.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING

from onehop import errors
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.mounts import Mount, Refusal
from onehop.api.resources import Operation
from onehop.sessions import Engine
from onehop.sessions.caller import EXECUTE, READ
from onehop.tools.registry import Registry
from onehop.wires.process import retry_after

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

PATH = "/mcp"
TAG = "MCP"
REFUSED = -32000
"""The first of JSON-RPC's codes for errors of a server's own (https://www.jsonrpc.org/specification#error_object)."""


class Mcp:
    """Enter it before requests come; leaving it ends what is under way."""

    def __init__(self, engine: Engine, registry: Registry | None) -> None:
        self._engine = engine
        self._registry = registry
        self._starting = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._runner: asyncio.Task[None] | None = None

    @property
    def mount(self) -> Mount:
        return Mount(PATH, self.operations(), _refuse)

    async def __aenter__(self) -> Mcp:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", PATH, self.serve, "mcpMessage", TAG, "A message of a client", scope=EXECUTE),
            Operation("GET", PATH, self.serve, "mcpListen", TAG, "Messages of the server", scope=READ),
            Operation("DELETE", PATH, self.end, "mcpEnd", TAG, "End a client's session", scope=EXECUTE),
        ]

    async def serve(self, call: Call) -> None:
        from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
        from mcp.server.auth.provider import AccessToken

        # Whose a session of the protocol is: the library lets nobody else use it.
        token = AccessToken(token="", client_id=call.caller.owner or "-", scopes=sorted(call.caller.scopes))
        call.scope["user"] = AuthenticatedUser(token)
        manager = await self._started()
        await manager.handle_request(call.scope, call.receive, call.send)

    async def end(self, call: Call) -> None:
        """What the client's code left ends with its session."""
        from onehop.wires.mcp.sessions import CONNECTIONS, end

        await self.serve(call)
        for name in CONNECTIONS:
            await end(self._engine, call.header(name.encode()).decode("latin-1"), call.caller)

    async def _started(self) -> StreamableHTTPSessionManager:
        async with self._starting:
            if self._manager is None:
                from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

                from onehop.wires.mcp.server import make

                manager = StreamableHTTPSessionManager(
                    make(self._engine, self._registry),
                    session_idle_timeout=self._engine.settings.max_age_s,
                    max_request_body_size=self._engine.settings.body_bytes,
                )
                ready = asyncio.Event()
                self._runner = asyncio.create_task(_run(manager, ready))
                await ready.wait()
                self._manager = manager
            return self._manager


async def _run(manager: StreamableHTTPSessionManager, ready: asyncio.Event) -> None:
    """A task of its own, because what is entered here has to be left by the same task."""
    async with manager.run():
        ready.set()
        await asyncio.get_running_loop().create_future()


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    headers: list[Header] = [(b"content-type", b"application/json"), *retry_after(error)]
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="onehop"'))
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": REFUSED, "message": error.detail}}
    return Refusal(error.status, encode_json(body), tuple(headers))
