"""The MCP server by the unmodified client library, over HTTP and stdio, in the protocol's newest revision and before."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters

from tests.api.gateway import Gateway

MODES = ["legacy", "auto"]
"""With the handshake and sessions of 2025, and as the newest revision has it: every request for itself."""
Flow = Callable[[Client], Awaitable[None]]


def http(gateway: Gateway, mode: str, flow: Flow) -> None:
    async def run() -> None:
        async with Client(gateway.url + "/mcp", mode=mode) as client:
            await asyncio.wait_for(flow(client), 60)

    asyncio.run(run())


def stdio(gateway: Gateway, mode: str, flow: Flow) -> None:
    async def run() -> None:
        variables = {**os.environ, "ONEHOP_URL": gateway.url}
        program = StdioServerParameters(
            command=sys.executable, args=["-m", "onehop.cli.main", "mcp"], env=variables
        )
        async with Client(program, mode=mode) as client:
            await asyncio.wait_for(flow(client), 60)

    asyncio.run(run())


def text(result: Any) -> str:
    return str(next(one.text for one in result.content if one.type == "text"))


@pytest.mark.compat(
    "MCP", "run_python over HTTP, 2025 and 2026-07-28: state, errors, pictures, files as resources"
)
@pytest.mark.parametrize("mode", MODES)
def test_python(gateway: Gateway, mode: str) -> None:
    async def flow(client: Client) -> None:
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert {"run_python", "run_command", "write_file", "create_session", "end_session"} <= set(tools)
        first = await client.call_tool("run_python", {"code": "x = 6\nprint('hi')\nx * 7"})
        assert text(first) == "hi\n42"
        structured = first.structured_content
        assert (structured["status"], structured["stdout"], structured["results"]) == ("ok", "hi\n", ["42"])
        session = {} if mode == "legacy" else {"session": structured["session"]}
        assert text(await client.call_tool("run_python", {"code": "x + 1", **session})) == "7"
        failed = await client.call_tool("run_python", {"code": "1 / 0", **session})
        assert failed.is_error
        assert "ZeroDivisionError" in text(failed)
        drawn = await client.call_tool(
            "run_python",
            {
                "code": "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.savefig('a b.png'); plt.show()",
                **session,
            },
        )
        (picture,) = [one for one in drawn.content if one.type == "image"]
        assert picture.mime_type == "image/png"
        assert base64.b64decode(picture.data).startswith(b"\x89PNG")
        (link,) = [one for one in drawn.content if one.type == "resource_link"]
        assert link.name == "a b.png"
        read: Any = (await client.read_resource(link.uri)).contents[0]
        assert base64.b64decode(read.blob).startswith(b"\x89PNG")
        written: Any = await client.call_tool("write_file", {"path": "d/n.txt", "text": "Grüße", **session})
        note: Any = (await client.read_resource(written.content[1].uri)).contents[0]
        assert (note.text, note.mime_type) == ("Grüße", "text/plain")
        command = await client.call_tool("run_command", {"command": "cat d/n.txt; exit 4", **session})
        assert (command.structured_content["stdout"], command.structured_content["exit_code"]) == ("Grüße", 4)
        listed = await client.call_tool("list_files", session)
        assert [one["path"] for one in listed.structured_content["files"]] == ["a b.png", "d/n.txt"]
        if mode == "legacy":
            assert [one.name for one in (await client.list_resources()).resources] == ["a b.png", "d/n.txt"]
        assert (
            (await client.list_resource_templates())
            .resource_templates[0]
            .uri_template.startswith("onehop://")
        )
        await client.call_tool("end_session", session)

    http(gateway, mode, flow)


@pytest.mark.compat("MCP", "onehop mcp (stdio): state, pictures, files as resources")
@pytest.mark.parametrize("mode", MODES)
def test_stdio(gateway: Gateway, mode: str) -> None:
    async def flow(client: Client) -> None:
        await client.call_tool("run_python", {"code": "x = 5; open('a.txt', 'w').write('hi')"})
        assert text(await client.call_tool("run_python", {"code": "x"})) == "5", (
            "a connection has its session"
        )
        assert [one.name for one in (await client.list_resources()).resources] == ["a.txt"]
        file: Any = (await client.read_resource((await client.list_resources()).resources[0].uri)).contents[0]
        assert file.text == "hi"
        heard: list[str | None] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message)

        code = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.1)"
        await client.call_tool("run_python", {"code": code}, progress_callback=hear)
        assert [one for one in heard if one] == ["0", "1", "2"] or "".join(filter(None, heard)).split() == [
            "0",
            "1",
            "2",
        ]

    before = live(gateway)
    stdio(gateway, mode, flow)
    assert live(gateway) == before, "it has ended with its client"


def live(gateway: Gateway) -> set[str]:
    with httpx2.Client(base_url=gateway.url, timeout=30) as client:
        return {
            one["id"]
            for one in client.get("/api/sessions").json()["sessions"]
            if "mcp.session" in one["metadata"]
        }


@pytest.mark.compat("MCP", "onehop mcp with an engine of its own")
def test_stdio_without_a_server(tmp_path: Any, onehop_home: Any) -> None:
    async def run() -> None:
        variables = {**os.environ, "ONEHOP_HOME": str(onehop_home)}
        variables.pop("ONEHOP_URL", None)
        program = StdioServerParameters(
            command=sys.executable, args=["-m", "onehop.cli.main", "mcp"], env=variables
        )
        async with Client(program) as client:
            done = await asyncio.wait_for(client.call_tool("run_python", {"code": "6 * 7"}), 90)
            assert text(done) == "42"

    asyncio.run(run())


@pytest.mark.compat("MCP", "progress, cancellation; variables stay")
@pytest.mark.parametrize("mode", MODES)
def test_progress_and_cancellation(gateway: Gateway, mode: str) -> None:
    async def flow(client: Client) -> None:
        made = (await client.call_tool("create_session", {})).structured_content["session"]
        heard: list[str | None] = []
        begun = asyncio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message)
            begun.set()

        endless = {
            "code": "n = 1\nprint('on', flush=True)\nwhile True: pass",
            "session": made,
            "timeout_s": 60,
        }
        call = asyncio.ensure_future(client.call_tool("run_python", endless, progress_callback=hear))
        await begun.wait()
        assert heard[0] == "on"
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # The next cell waits until the cancelled one has ended, which it would not by itself.
        done = await asyncio.wait_for(client.call_tool("run_python", {"code": "n", "session": made}), 20)
        assert text(done) == "1"
        await client.call_tool("end_session", {"session": made})

    http(gateway, mode, flow)


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_done(gateway: Gateway, mode: str) -> None:
    async def flow(client: Client) -> None:
        for name, arguments, words in (
            ("run_python", {}, "do not fit"),
            ("run_python", {"code": 5}, "do not fit"),
            ("run_python", {"code": "1", "more": 1}, "do not fit"),
            ("run_python", {"code": " "}, "nothing to run"),
            ("run_python", {"code": "1", "timeout_s": 1e9}, "timeout_s"),
            ("run_python", {"code": "1", "session": "ses_none"}, "session"),
            ("end_session", {"session": "ses_none"}, "session"),
            ("write_file", {"path": "a"}, "either"),
            ("write_file", {"path": "../a", "text": ""}, "path"),
            ("write_file", {"path": "a", "base64": "%%"}, "do not fit"),
        ):
            refused = await client.call_tool(name, arguments)
            assert refused.is_error, (name, arguments)
            assert words in text(refused), text(refused)
        with pytest.raises(MCPError, match="no tool"):
            await client.call_tool("nothing", {})
        for uri in ("onehop://ses_none/a.txt", "onehop://x", "file:///etc/passwd"):
            with pytest.raises(MCPError):
                await client.read_resource(uri)

    http(gateway, mode, flow)


def test_parallel_calls_of_one_connection(gateway: Gateway) -> None:
    """They share its session, and wait for each other."""

    async def flow(client: Client) -> None:
        codes = [f"import time; time.sleep(0.05); seen = globals().get('seen', []) + [{n}]" for n in range(6)]
        done = await asyncio.gather(*(client.call_tool("run_python", {"code": code}) for code in codes))
        assert len({one.structured_content["session"] for one in done}) == 1
        assert sorted(json.loads(text(await client.call_tool("run_python", {"code": "seen"})))) == list(
            range(6)
        )

    http(gateway, "legacy", flow)


def test_a_page_of_another_origin(gateway: Gateway) -> None:
    """Host and Origin are looked at before the protocol is."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        answer = httpx2.post(gateway.url + "/mcp", json=body, headers=headers, timeout=20)
        assert answer.status_code == 403
        assert answer.json()["error"]["message"]
    accept = {"accept": "application/json, text/event-stream"}
    answer = httpx2.post(
        gateway.url + "/mcp", content=b"{", headers={**accept, "content-type": "application/json"}, timeout=20
    )
    assert answer.status_code == 400


def test_a_server_that_is_not_there(tmp_path: Any) -> None:
    """A line that says what to do, where a client shows what its program wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "onehop.cli.main", "mcp", "--url", "http://127.0.0.1:9"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith("start it with: onehop serve")
