"""Sources of other services in their real workers, and processes that stand for those services."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from onehop.tools.model import ErrorFrame, SourceSpec, ToolSpec
from tests.tools.conftest import Source, running

HERE = Path(__file__).parent


def worker(
    kind: str,
    options: dict[str, Any],
    *,
    secrets: tuple[str, ...] = (),
    readable: tuple[str, ...] = (),
    timeout_s: float | None = None,
) -> AbstractAsyncContextManager[Source]:
    """The source named `api` as the gateway has it."""
    return running(
        SourceSpec(
            name="api", kind=kind, options=options, secrets=secrets, readable=readable, timeout_s=timeout_s
        )
    )


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
