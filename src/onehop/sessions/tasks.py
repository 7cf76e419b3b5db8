"""Background work with an owner: every task ends with the engine at the latest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger("onehop.sessions")


class Tasks:
    """A task group whose members fail alone. Entered and left by the same task."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._own: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Tasks:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._own:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def spawn(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Runs `work`. A failure is a defect: it is logged, and the other tasks go on."""
        task = self._group.create_task(_guarded(work))
        self._own.add(task)
        task.add_done_callback(self._own.discard)
        task.add_done_callback(lambda _: work.close())  # of a task that was cancelled before it began
        return task

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of `work`, which goes on to its end even if the caller is cancelled meanwhile."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def carry() -> None:
            try:
                result = await work
            except Exception as error:  # noqa: BLE001 - raised in the caller
                if not outcome.cancelled():
                    outcome.set_exception(error)
            else:
                if not outcome.cancelled():
                    outcome.set_result(result)

        def ended(_: object) -> None:
            work.close()
            outcome.cancel()  # whoever waits for what was cancelled

        self.spawn(carry()).add_done_callback(ended)
        return await outcome


async def _guarded(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except Exception:  # one failure must not cancel the tasks of all others
        log.exception("a task of the engine failed")
