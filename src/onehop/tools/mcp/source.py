"""The source of kind mcp: keeps one server connected, and offers its tools.

Runs in its worker. A server that ends, hangs or misbehaves is connected to again, each time later; what it
sends is bounded where it comes in. Its tools stay offered meanwhile, so that code is told why they fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import Any

from mcp import MCPError

from onehop.errors import CallFailedError, ConfigurationError, OnehopError, UnreachableError
from onehop.tools.credentials import Credentials
from onehop.tools.launcher import PASSED_ON
from onehop.tools.mcp import catalogue, options
from onehop.tools.mcp.connection import Connection, connected
from onehop.tools.mcp.http import HttpServer
from onehop.tools.mcp.stdio import StdioServer
from onehop.tools.model import SourceSpec, ToolSpec
from onehop.tools.source import Publish, Source

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
STEADY_S = 30.0
"""A connection that has lasted so long is made again at once."""
PATIENCE_S = 10.0
"""A call waits so long for a connection that is being made again."""
WARNINGS = 200
"""Of servers that break their promises; further ones are not told."""


class McpSource(Source):
    """Options: see McpOptions."""

    def __init__(self, spec: SourceSpec, secrets: dict[str, str]) -> None:
        super().__init__(spec, secrets)
        self._options = options.read(spec.options)
        self._credentials = Credentials(self._options.auth, secrets)
        self._tools: dict[str, catalogue.Tool] = {}
        self._published: list[ToolSpec] | None = None
        self._connection: Connection | None = None
        self._made = asyncio.Event()
        self._delay_s = 0.0
        self._problem = ""
        self._warned: set[str] = set()
        self._running: asyncio.Task[None] | None = None

    # --- the connection -------------------------------------------------------------------------------

    async def start(self, publish: Publish) -> None:
        self._running = asyncio.create_task(self._run(publish))
        made = asyncio.create_task(self._made.wait())
        await asyncio.wait({self._running, made}, return_when=asyncio.FIRST_COMPLETED)
        made.cancel()
        if self._running.done():
            await self._running  # raises what was wrong

    async def _run(self, publish: Publish) -> None:
        """Until cancelled. Raises ConfigurationError when the first connection fails: then the gateway waits."""
        while True:
            started_s = time.monotonic()
            try:
                await self._one(publish)
            except* Exception as errors:  # noqa: BLE001 - a group of the library ends with whatever it met
                self._problem = _told(errors) if not self._problem else self._problem
            self._connection = None
            self._made.clear()
            problem = self._credentials.blacken_text(self._problem or "the connection ended")
            if self._published is None:
                raise ConfigurationError(problem)
            lived_s = time.monotonic() - started_s
            self._delay_s = (
                0.0 if lived_s >= STEADY_S else min(MAX_DELAY_S, self._delay_s * 2 or FIRST_DELAY_S)
            )
            self._problem = problem
            sys.stderr.write(f"{problem}; connecting again in {self._delay_s:g} s\n")
            await asyncio.sleep(self._delay_s)

    async def _one(self, publish: Publish) -> None:
        """One connection, until it ends."""
        self._problem = ""
        async with connected(self._server()) as connection:
            try:
                await self._refresh(connection, publish)
                self._connection = connection
                self._made.set()
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(connection.watch(lambda: self._again(connection, publish)))
                    await connection.ended.wait()
                    watching.cancel()
            finally:
                self._problem = connection.problem
                self._connection = None
                self._made.clear()

    def _server(self) -> StdioServer | HttpServer:
        chosen = self._options
        if chosen.url is not None:
            return HttpServer(chosen.url, self._credentials, max_message_bytes=chosen.max_message_bytes)
        names = (*PASSED_ON, "HOME", "TMPDIR")
        env = {name: os.environ[name] for name in names if name in os.environ} | self.secrets | chosen.env
        return StdioServer(
            chosen.command, env=env, cwd=chosen.cwd, max_message_bytes=chosen.max_message_bytes
        )

    async def _refresh(self, connection: Connection, publish: Publish) -> None:
        self._tools = catalogue.tools(await connection.tools(), self._options, self._warn)
        specs = [one.spec for one in self._tools.values()]
        if specs != self._published:
            self._published = specs
            publish(specs)

    async def _again(self, connection: Connection, publish: Publish) -> None:
        try:
            await self._refresh(connection, publish)
        except UnreachableError as error:
            self._warn(f"the list of its tools stays as it was: {error}")

    def _warn(self, text: str) -> None:
        """Once each: a server may break the same promise with every result."""
        if text not in self._warned and len(self._warned) < WARNINGS:
            self._warned.add(text)
            sys.stderr.write(f"{text}\n")  # the worker's output goes to the server's log

    # --- calls ----------------------------------------------------------------------------------------

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        found = self._tools.get(tool)
        if found is None:
            raise CallFailedError("not_found", f"the source {self.spec.name!r} has no tool {tool!r}")
        found.arguments.check(arguments)
        try:
            return await self._try(found, arguments)
        except UnreachableError as error:
            if not error.unsent and not found.spec.idempotent:
                raise _unavailable(error) from None
        try:
            return await self._try(found, arguments)
        except UnreachableError as error:
            raise _unavailable(error) from None

    async def _try(self, tool: catalogue.Tool, arguments: dict[str, Any]) -> Any:
        connection = self._connection
        if connection is None or connection.ended.is_set():
            connection = await self._next()
        result = await connection.call(tool.name, arguments)
        return tool.results.value(result)

    async def _next(self) -> Connection:
        """The connection that is being made. Raises UnreachableError when that is not to be waited for."""
        if self._delay_s > PATIENCE_S and self._problem:
            raise UnreachableError(self._problem, unsent=True)  # it fails again and again
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while self._connection is None or self._connection.ended.is_set():
                    self._made.clear()
                    await self._made.wait()
                return self._connection
        raise UnreachableError(self._problem or "the server does not answer", unsent=True)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)


def _unavailable(error: UnreachableError) -> CallFailedError:
    return CallFailedError("unavailable", f"the MCP server is not available: {error}")


def _told(errors: BaseExceptionGroup[Any]) -> str:
    """The first one that is none of a group."""
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, MCPError):
        return first.error.message
    return str(first) if isinstance(first, OnehopError) else f"{type(first).__name__}: {first}".rstrip(": ")
