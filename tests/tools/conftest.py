"""Real workers of real modules, as the gateway has them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgspec
import pytest

from onehop.tools import launcher
from onehop.tools.model import ErrorFrame, SourceSpec, ToolSpec
from onehop.tools.workers import SourceLink, Workers

TEST_UID = 1_900_070_000
"""Outside what any server's sandboxes and workers have."""
LIMIT_S = 90.0
"""Longer than the product gives a worker to start (START_TIMEOUT_S), shorter than a test may take."""


class Source:
    """One source of `Workers`, for tests that await its calls."""

    def __init__(self, workers: Workers, name: str, catalogues: list[list[ToolSpec]]) -> None:
        self.workers = workers
        self.link: SourceLink = workers.sources[name]
        self.catalogues = catalogues

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        again: bool = False,
        timeout_s: float = LIMIT_S,
    ) -> Any:
        """Its value (with the files, if there are any), or the ErrorFrame."""
        answer = asyncio.get_running_loop().create_future()
        self.link.call(tool, arguments or {}, answer.set_result, again=again, timeout_s=timeout_s)
        frame = await asyncio.wait_for(answer, LIMIT_S)
        if isinstance(frame, ErrorFrame):
            return frame
        value = msgspec.msgpack.decode(frame.value)
        return (value, frame.files) if frame.files else value


@asynccontextmanager
async def running(spec: SourceSpec) -> AsyncIterator[Source]:
    """The source in its worker, as the gateway has it."""
    catalogues: list[list[ToolSpec]] = []
    launched = launcher.start([spec], first_uid=TEST_UID if os.geteuid() == 0 else None)
    workers = Workers(launched.channel, [spec.name], lambda _, tools: catalogues.append(tools))
    try:
        await asyncio.wait_for(workers.settled(), LIMIT_S)
        yield Source(workers, spec.name, catalogues)
    finally:
        workers.close()
        launched.end()


Started = Callable[..., AbstractAsyncContextManager[Source]]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """`async with started("def f(): ...") as source`."""

    def start(code: str, *, secrets: tuple[str, ...] = ()) -> AbstractAsyncContextManager[Source]:
        path = tmp_path / "mine.py"
        path.write_text(dedent(code))
        os.chmod(path, 0o644)
        spec = SourceSpec(
            name="mine", kind="python", options={"module": str(path)}, readable=(str(path),), secrets=secrets
        )
        return running(spec)

    return start


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it holds; fails after LIMIT_S."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)
