"""A server of MCP that dies, hangs, floods, lies or sends too much: typed errors, nothing left, others served."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest

from onehop.errors import ProtocolError
from onehop.tools.mcp.lines import Lines, TooLong
from onehop.tools.model import ErrorFrame
from tests.tools.conftest import until
from tests.tools.remote import error, hostile, tools


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    return int(re.findall(r"^PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0])


async def test_a_server_that_dies() -> None:
    async with hostile() as api:
        pid = int(await api.call("pid"))
        told = error(await api.call("die_writing"), "unavailable")
        assert told == "the MCP server is not available: the server ended with exit code 3: my last words"
        assert int(await api.call("pid")) != pid  # it was started again
        assert await api.call("die", {"mark": "once"}) == "the second time"


async def test_a_server_that_dies_takes_only_its_own_calls() -> None:
    async with hostile() as api:
        calls = [asyncio.ensure_future(api.call(name)) for name in ("noop", "die_writing", "noop", "echo")]
        first, dead, written, repeated = await asyncio.gather(*calls)
        assert first == "ok"
        error(dead, "unavailable")
        assert written == "ok" or written.kind == "unavailable"
        assert repeated == {}  # idempotent: it is called once again


async def test_messages_that_are_too_large() -> None:
    async with hostile(max_message_bytes=1 << 20) as api:
        pid = await api.call("pid")
        large, small = await asyncio.gather(api.call("large", {"bytes": 5 << 20}), api.call("noop"))
        assert "more than 1048576 bytes" in error(large, "bad_result") and small == "ok"
        assert len(await api.call("large", {"bytes": 1 << 19})) == 1 << 19
        assert await api.call("pid") == pid
        told = error(await api.call("larger"), "unavailable")
        assert told.endswith("it sent a message of more than 1048576 bytes")
        assert await api.call("noop") == "ok"


@pytest.mark.parametrize("habit", ["flood", "requests"])
async def test_floods(habit: str) -> None:
    async with hostile() as api:
        told = error(await api.call(habit), "unavailable")
        assert "it sent more than 2000 messages within 1 s that answer nothing" in told
        assert await api.call("noop") == "ok"


async def test_a_server_that_shouts() -> None:
    async with hostile() as api:
        assert await api.call("stderr") == "shouted"


async def test_a_server_that_hangs() -> None:
    async with hostile() as api:
        pid = int(await api.call("pid"))
        told = error(await api.call("hang", timeout_s=0.2), "timeout")
        assert "0.2 s" in told
        await until(lambda: not alive(pid))  # it said nothing since
        assert int(await api.call("pid")) != pid


async def test_a_server_that_does_not_read() -> None:
    async with hostile() as api:
        waiting = [asyncio.ensure_future(api.call("hang"))]
        waiting += [asyncio.ensure_future(api.call("echo", {"x": "y" * (4 << 20)})) for _ in range(20)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert "bytes unread" in error(done.pop().result(), "unavailable")
        for one in waiting:
            one.cancel()


async def test_lists_that_change() -> None:
    async with hostile() as api:
        assert "new" not in tools(api)
        started_s = time.monotonic()
        assert await api.call("change", {"times": 500}) == "changed"
        await until(lambda: "new" in tools(api))
        assert await api.call("new") == "ok"
        # however often it says so, it is asked once a second, and nobody is told what has not changed
        assert len(api.catalogues) <= 2 + (time.monotonic() - started_s)


async def test_nothing_is_left() -> None:
    async with hostile() as api:
        pid, orphan = int(await api.call("pid")), int(await api.call("orphan"))
        assert alive(pid) and alive(orphan)
        error(await api.call("die_writing"), "unavailable")
        await until(lambda: not alive(pid) and not alive(orphan))
        pid, orphan = int(await api.call("pid")), int(await api.call("orphan"))
    await until(lambda: not alive(pid) and not alive(orphan))


async def test_it_ends_with_its_worker() -> None:
    async with hostile() as api:
        pid = int(await api.call("pid"))
        os.kill(parent_of(pid), signal.SIGKILL)
        await until(lambda: not alive(pid))
        answer = await api.call("pid")
        while isinstance(answer, ErrorFrame):  # it was on its way to the worker that died
            assert answer.kind == "unavailable"
            answer = await api.call("pid")
        assert int(answer) != pid


def test_lines() -> None:
    def cut(*parts: bytes) -> list[bytes | None]:
        lines = Lines(10)
        found = [line for part in parts for line in lines.feed(part)]
        return [None if isinstance(one, TooLong) else one for one in found]

    assert cut(b"a\nb", b"c\n\n", b"d") == [b"a", b"bc", b""]
    assert cut(b"0123456789\n") == [b"0123456789"]
    assert cut(b"0123456789a\nx\n") == [None, b"x"]
    assert cut(b"0123456789", b"a" * 50, b"b\nx\n") == [None, b"x"]
    with pytest.raises(ProtocolError):
        cut(*[b"0123456789"] * 9)
