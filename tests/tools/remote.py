"""Sources of other services in their real workers, and processes that stand for those services."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from onehop.tools import launcher
from onehop.tools.model import ErrorFrame, SourceSpec, ToolSpec
from onehop.tools.workers import Workers
from tests.tools.conftest import LIMIT_S, TEST_UID, Source

HERE = Path(__file__).parent


@asynccontextmanager
async def worker(
    kind: str,
    options: dict[str, Any],
    *,
    secrets: tuple[str, ...] = (),
    readable: tuple[str, ...] = (),
    timeout_s: float | None = None,
) -> AsyncIterator[Source]:
    """The source named `api` as the gateway has it."""
    spec = SourceSpec(
        name="api", kind=kind, options=options, secrets=secrets, readable=readable, timeout_s=timeout_s
    )
    catalogues: list[list[ToolSpec]] = []
    launched = launcher.start([spec], first_uid=TEST_UID if os.geteuid() == 0 else None)
    workers = Workers(launched.channel, ["api"], lambda _, tools: catalogues.append(tools))
    try:
        await asyncio.wait_for(workers.settled(), LIMIT_S)
        yield Source(workers, "api", catalogues)
    finally:
        workers.close()
        launched.end()


@contextmanager
def serving(script: str, *arguments: str) -> Iterator[str]:
    """Runs a service of this folder that prints its port; gives its URL with a / at the end."""
    with subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            process.kill()


HOSTILE = (sys.executable, str(HERE / "hostile_mcp.py"))


@asynccontextmanager
async def hostile(*habits: str, secrets: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Source]:
    """The server of MCP that keeps no promise."""
    options = {"command": [*HOSTILE, *habits], **options}
    async with worker("mcp", options, secrets=secrets, readable=(HOSTILE[1],)) as api:
        yield api


def error(frame: Any, kind: str) -> str:
    """The message of a call that failed in this way."""
    assert isinstance(frame, ErrorFrame), frame
    assert frame.kind == kind, frame
    return frame.message


def tools(source: Source) -> dict[str, ToolSpec]:
    """What is offered now."""
    return {one.name: one for one in source.catalogues[-1]}
