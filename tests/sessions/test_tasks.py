"""Work that the engine owns ends with the engine, also what had not begun."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from onehop.sessions.tasks import Tasks


async def test_what_is_spawned_goes_on_when_another_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with Tasks() as tasks:
        done = asyncio.Event()

        async def fails() -> None:
            raise ValueError("a defect")

        async def sets() -> None:
            done.set()

        tasks.spawn(fails())
        tasks.spawn(sets())
        await done.wait()
    assert "a defect" in caplog.text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("begun", [False, True])
async def test_the_end_cancels_what_is_there(begun: bool) -> None:
    """Without a warning of a coroutine that nobody awaited, for what had not begun."""
    waiters: list[asyncio.Task[Any]] = []
    async with Tasks() as tasks:
        tasks.spawn(asyncio.sleep(600))
        waiters.append(asyncio.create_task(tasks.finish(asyncio.sleep(600))))
        while not waiters[0].done() and len(tasks._own) < 2:
            await asyncio.sleep(0)
        for _ in range(3 if begun else 0):
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiters[0], 10)
    gc.collect()


async def test_finish_gives_the_outcome_and_outlives_its_caller() -> None:
    steps: list[str] = []
    go = asyncio.Event()

    async def work() -> str:
        steps.append("begun")
        await go.wait()
        steps.append("done")
        return "value"

    async def fails() -> None:
        raise ValueError("told")

    async with Tasks() as tasks:
        caller = asyncio.create_task(tasks.finish(work()))
        await until(lambda: bool(steps))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        go.set()
        await until(lambda: len(steps) == 2)
        assert await tasks.finish(work()) == "value"
        with pytest.raises(ValueError, match="told"):
            await tasks.finish(fails())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
