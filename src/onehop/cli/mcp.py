"""`onehop mcp`: the server of the Model Context Protocol on stdin and stdout, as desktop programs start one.

It carries messages to /mcp of a server, which is another one (ONEHOP_URL) or the engine of this process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

from onehop.client.where import Place, Where
from onehop.errors import EngineError, UnauthorizedError

if TYPE_CHECKING:
    from mcp.shared.message import SessionMessage

CONNECTION = "onehop-connection"
"""The header by which the server knows this connection in revisions of the protocol that have no sessions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=os.environ.get("ONEHOP_URL", ""),
        metavar="URL",
        help="a server (default: ONEHOP_URL; without one an engine is started, which ends with the client); its key "
        "comes from ONEHOP_API_KEY",
    )


def main(arguments: argparse.Namespace) -> int:
    import anyio

    where = Where(arguments.url or None)
    place = where.find()
    _check(place, where.describe())
    anyio.run(_carry, place)
    return 0


def _check(place: Place, name: str) -> None:
    """Says in one line what a client would only show as a connection that ended. Raises OnehopError."""
    import httpx2

    headers = {"authorization": f"Bearer {place.api_key}"} if place.api_key else {}
    transport = httpx2.HTTPTransport(uds=place.socket) if place.socket else None
    try:
        with httpx2.Client(transport=transport, timeout=10, trust_env=not place.is_local) as client:
            status = client.get(place.url + "/api/info", headers=headers).status_code
    except httpx2.HTTPError as error:
        raise EngineError(f"{name} does not answer ({error}); start it with: onehop serve") from None
    if status == 401:
        raise UnauthorizedError(f"{name} wants a valid key; put it into ONEHOP_API_KEY")
    if status != 200:
        raise EngineError(f"{name} answers with status {status}; is it a server of onehop?")


async def _carry(place: Place) -> None:
    import anyio
    import httpx2
    from mcp.client.streamable_http import streamable_http_client
    from mcp.server.stdio import stdio_server

    connection = secrets.token_urlsafe(24)
    headers = {CONNECTION: connection}
    if place.api_key:
        headers["authorization"] = f"Bearer {place.api_key}"
    http = httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=place.socket) if place.socket else None,
        headers=headers,
        timeout=httpx2.Timeout(None, connect=10),
        trust_env=not place.is_local,
    )
    url = place.url + "/mcp"
    async with (
        http,
        stdio_server() as (theirs, answers),
        streamable_http_client(url, http_client=http) as (ours, asked),
    ):
        versions = _Versions()
        try:
            async with anyio.create_task_group() as group:

                async def back() -> None:
                    async for message in ours:
                        if not isinstance(message, Exception):
                            versions.hear(message)
                            await answers.send(message)

                group.start_soon(back)
                async for message in theirs:
                    if not isinstance(message, Exception):
                        await asked.send(versions.stamp(message))
                group.cancel_scope.cancel()
        finally:
            with (
                anyio.CancelScope(shield=True),
                anyio.move_on_after(5),
                contextlib.suppress(httpx2.HTTPError),
            ):
                await http.delete(url)


class _Versions:
    """HTTP wants in headers what stdin has in messages only: revision, method and name (MCP 2026-07-28, Transports)."""

    def __init__(self) -> None:
        self._negotiated = ""

    def hear(self, message: SessionMessage) -> None:
        """What the server answers to `initialize` is the revision of all that follows."""
        result: Any = getattr(message.message, "result", None)
        if isinstance(result, dict) and isinstance(result.get("protocolVersion"), str):
            self._negotiated = result["protocolVersion"]

    def stamp(self, message: SessionMessage) -> SessionMessage:
        from mcp.shared.inbound import (
            MCP_METHOD_HEADER,
            MCP_NAME_HEADER,
            MCP_PROTOCOL_VERSION_HEADER,
            NAME_BEARING_METHODS,
            encode_header_value,
        )
        from mcp.shared.message import ClientMessageMetadata, SessionMessage
        from mcp_types import PROTOCOL_VERSION_META_KEY

        method = getattr(message.message, "method", "")
        params: Any = getattr(message.message, "params", None) or {}
        version = (params.get("_meta") or {}).get(PROTOCOL_VERSION_META_KEY)
        headers: dict[str, str] = {}
        if version:
            headers = {MCP_PROTOCOL_VERSION_HEADER: str(version), MCP_METHOD_HEADER: method}
            name = params.get(NAME_BEARING_METHODS.get(method, ""))
            if name is not None:
                headers[MCP_NAME_HEADER] = encode_header_value(str(name))
        elif self._negotiated:
            headers = {MCP_PROTOCOL_VERSION_HEADER: self._negotiated}
        if not headers:
            return message
        return SessionMessage(message.message, metadata=ClientMessageMetadata(headers=headers))
