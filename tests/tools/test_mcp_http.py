"""Servers of MCP over streamable HTTP: one made with the unmodified library, and one with bad habits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from onehop.tools.model import ErrorFrame
from tests.tools.conftest import Source, until
from tests.tools.http_mcp import TOKEN
from tests.tools.remote import error, serving, tools, worker

SECRETS = ("MCP_TOKEN",)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving("http_mcp.py") as elsewhere, serving("http_mcp.py", elsewhere) as url:
        yield url


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_TOKEN", TOKEN)


@asynccontextmanager
async def library(url: str) -> AsyncIterator[Source]:
    options = {"url": f"{url}mcp", "auth": {"bearer": "MCP_TOKEN"}, "max_message_bytes": 1 << 20}
    async with worker("mcp", options, secrets=SECRETS) as api:
        yield api


async def test_the_librarys_server(url: str) -> None:
    async with library(url) as api:
        found = tools(api)
        assert {"add", "nap", "large"} <= found.keys()
        assert found["add"].read_only and not found["nap"].read_only
        assert found["add"].returns is not None
        assert await api.call("add", {"a": 1, "b": 2}) == {"result": 3}
        assert "Error executing tool fail" in error(await api.call("fail"), "failed")
        assert "'b' is a required property" in error(await api.call("add", {"a": 1}), "bad_arguments")
        both = [api.call("add", {"a": n, "b": n}) for n in range(50)]
        assert await asyncio.gather(*both) == [{"result": 2 * n} for n in range(50)]
        slow = asyncio.ensure_future(api.call("nap", {"s": 30}, timeout_s=0.5))
        assert await api.call("add", {"a": 1, "b": 2}) == {"result": 3}
        error(await slow, "timeout")
        assert "more than 1048576 bytes" in error(await api.call("large", {"size": 2 << 20}), "bad_result")
        assert await api.call("add", {"a": 1, "b": 2}) == {"result": 3}


async def test_lists_that_change(url: str) -> None:
    async with library(url) as api:
        assert "learned" not in tools(api)
        await api.call("learn")
        await until(lambda: "learned" in tools(api))
        assert await api.call("learned") == {"result": "learned"}


async def test_without_the_secret(url: str) -> None:
    async with worker("mcp", {"url": f"{url}mcp"}) as api:
        assert "HTTP 401 Unauthorized" in error(await api.call("add"), "unavailable")


async def test_a_server_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("http_mcp.py") as url:
        monkeypatch.setenv("PORT", url.rpartition(":")[2].strip("/"))
        options = {"url": f"{url}mcp", "auth": {"bearer": "MCP_TOKEN"}}
        async with worker("mcp", options, secrets=SECRETS) as api:
            before = await api.call("pid")
            os.kill(before["result"], 9)
            error(await api.call("pid"), "unavailable")  # it may have been done: not repeated
            # The dead server's connection may be told of only now, or its address be tried in vain.
            gone = error(await api.call("pid"), "unavailable")
            assert "cannot be reached" in gone or "is not available" in gone
            with serving("http_mcp.py") as again:
                assert again == url
                after = await api.call("pid")
                while isinstance(after, ErrorFrame):  # as long as the source waits before it tries again
                    error(after, "unavailable")
                    await asyncio.sleep(0.05)
                    after = await api.call("pid")
                assert after["result"] not in (before["result"], os.getpid())


async def test_bad_habits(url: str) -> None:
    async with worker("mcp", {"url": f"{url}misbehaving", "max_message_bytes": 1 << 20}) as api:
        assert await api.call("noop") == "ok"
        hanging = asyncio.ensure_future(api.call("hang", timeout_s=20))
        for name, kind, said in (
            ("endless", "bad_result", "more than 1048576 bytes"),
            ("events", "bad_result", "SSE stream failed"),
            ("broken", "bad_result", "broke off"),
            ("packed", "bad_result", "packs its answers"),
            ("teapot", "failed", "HTTP 418"),
            ("text", "failed", "Unexpected content type: text/plain"),
            ("accepted", "failed", "202 Accepted"),
            ("gone", "unavailable", "ended the session"),
        ):
            if name == "gone":
                assert not hanging.done()
            assert said in error(await api.call(name), kind), name
        told = error(await api.call("away"), "failed")
        assert "not followed" in told and "secret" not in told
        assert await api.call("noop") == "ok"
        hanging.cancel()
