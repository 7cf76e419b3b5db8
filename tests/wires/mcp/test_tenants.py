"""MCP with keys: errors of HTTP, and what belongs to another tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.tenants import tenant


@pytest.fixture(scope="module")
def two(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, list[str]]]:
    home = tmp_path_factory.mktemp("mcp")
    keys = [tenant(home, name, "execute", "read") for name in ("first", "second")]
    keys.append(tenant(home, "third", "execute", "read", executions_per_minute=1))
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, home) as gateway:
        yield gateway.url + "/mcp", keys


def connected(url: str, key: str) -> tuple[httpx2.AsyncClient, Client]:
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=60)
    return http, Client(streamable_http_client(url, http_client=http), mode="legacy")


def text(result: Any) -> str:
    return str(result.content[0].text)


def test_a_wrong_key(two: tuple[str, list[str]]) -> None:
    for headers in ({}, {"authorization": "Bearer oh_wrong"}):
        answer = httpx2.post(
            two[0], json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=headers, timeout=20
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "key" in answer.json()["error"]["message"]


def test_another_tenants_things(two: tuple[str, list[str]]) -> None:
    url, (first, second, _) = two

    async def run() -> None:
        http, mine = connected(url, first)
        http_other, other = connected(url, second)
        async with http, mine, http_other, other:
            made = await mine.call_tool("run_python", {"code": "open('a.txt', 'w').write('secret'); 1"})
            session = made.structured_content["session"]
            uri = f"onehop://{session}/a.txt"
            control: Any = await mine.read_resource(uri)
            assert control.contents[0].text == "secret"
            with pytest.raises(MCPError):
                await other.read_resource(uri)
            for name, arguments in (
                ("run_python", {"code": "1"}), ("list_files", {}), ("end_session", {}),
                ("write_file", {"path": "a.txt", "text": "forged"}),
            ):  # fmt: skip
                refused = await other.call_tool(name, {**arguments, "session": session})
                unknown = await other.call_tool(name, {**arguments, "session": "ses_none"})
                assert refused.is_error, name
                assert text(refused) == text(unknown)
            assert (await other.list_resources()).resources == []

    asyncio.run(run())


def test_a_connection_of_another_tenant(two: tuple[str, list[str]]) -> None:
    """Its id opens nothing for him."""
    url, (first, second, _) = two
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    headers = {"accept": "application/json, text/event-stream"}
    with httpx2.Client(headers=headers, timeout=30) as client:
        opened = client.post(
            url, json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
            headers={"x-api-key": first},
        )  # fmt: skip
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert client.post(url, json=listing, headers={**session, "x-api-key": first}).status_code == 200
        assert client.post(url, json=listing, headers={**session, "x-api-key": second}).status_code == 404
        assert client.delete(url, headers={**session, "x-api-key": second}).status_code == 404
        assert client.delete(url, headers={**session, "x-api-key": first}).status_code == 200


def test_over_a_limit(two: tuple[str, list[str]]) -> None:
    async def run() -> None:
        http, client = connected(two[0], two[1][2])
        async with http, client:
            assert not (await client.call_tool("run_python", {"code": "1"})).is_error
            refused = await client.call_tool("run_python", {"code": "1"})
            assert refused.is_error
            assert "minute" in text(refused)

    asyncio.run(run())
