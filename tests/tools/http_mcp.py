"""A server of MCP over streamable HTTP, made with the mcp library; beside it one that misbehaves. Prints its port."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN = "bearer-of-the-server"
elsewhere = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:1/"
server = MCPServer("over HTTP")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool()
async def nap(s: float) -> str:
    await asyncio.sleep(s)
    return "rested"


@server.tool()
def large(size: int) -> str:
    return "x" * size


@server.tool()
def fail() -> str:
    raise ValueError("it is raining")


@server.tool()
def pid() -> int:
    return os.getpid()


@server.tool()
async def learn(context: Context) -> str:
    def learned() -> str:
        return "learned"

    server.add_tool(learned)
    await context.notify_tools_changed()
    return "ok"


def answer(number: Any, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


async def misbehave(request: Request) -> Response:
    """JSON answers of an old server; its tools are its bad habits."""
    if request.method != "POST":
        return Response(status_code=405)
    message = await request.json()
    number, method = message.get("id"), message.get("method")
    if number is None:
        return Response(status_code=202)
    if method == "initialize":
        about = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "x", "version": "1"},
        }
        return JSONResponse(answer(number, about), headers={"mcp-session-id": "s1"})
    if method == "tools/list":
        names = (
            "noop",
            "endless",
            "broken",
            "packed",
            "away",
            "hang",
            "teapot",
            "events",
            "text",
            "accepted",
            "gone",
        )
        return JSONResponse(
            answer(number, {"tools": [{"name": one, "inputSchema": {"type": "object"}} for one in names]})
        )
    if method != "tools/call":
        error = {"code": -32601, "message": "no such method"}
        return JSONResponse({"jsonrpc": "2.0", "id": number, "error": error})
    return await habit(message["params"]["name"], number)


async def habit(name: str, number: Any) -> Response:
    async def endless(part: bytes) -> AsyncIterator[bytes]:
        while True:
            yield part
            await asyncio.sleep(0)

    async def broken() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc":'
        raise ConnectionResetError

    match name:
        case "endless":
            return StreamingResponse(endless(b"x" * 65536), media_type="application/json")
        case "events":
            return StreamingResponse(endless(b"data: " + b"x" * 65536), media_type="text/event-stream")
        case "broken":
            return StreamingResponse(broken(), media_type="application/json")
        case "packed":
            return Response(b"x", media_type="application/json", headers={"Content-Encoding": "gzip"})
        case "away":
            return RedirectResponse(f"{elsewhere}mcp?secret=1", status_code=307)
        case "teapot":
            return Response("short and stout", status_code=418)
        case "text":
            return Response("hello", media_type="text/plain")
        case "accepted":
            return Response(status_code=202)
        case "gone":
            return Response(status_code=404)
        case "hang":
            await asyncio.sleep(1000)
    return JSONResponse(answer(number, {"content": [{"type": "text", "text": "ok"}]}))


def guarded(app: ASGIApp) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            if request.url.path == "/misbehaving":
                await (await misbehave(request))(scope, receive, send)
                return
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                await Response(status_code=401)(scope, receive, send)
                return
        await app(scope, receive, send)

    return call


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    print(listening.getsockname()[1], flush=True)
    app = guarded(server.streamable_http_app())
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])
