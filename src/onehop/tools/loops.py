"""A worker whose source is awaited: one event loop reads the calls and runs each as a task of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from onehop.errors import CallFailedError, ProtocolError
from onehop.tools import model
from onehop.tools.source import Source
from onehop.tools.worker import Wire, leave

READ_BYTES = 262_144


async def serve(source: Source, wire: Wire) -> None:
    """Until the gateway hangs up. Raises OnehopError when the source does not start."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    calls = Calls(source, wire)
    await source.start(calls.publish)

    def read() -> None:
        data = wire.channel.recv(READ_BYTES)
        if not data:
            loop.remove_reader(wire.channel)
            ended.set()
            return
        try:
            calls.take(data)
        except ProtocolError as error:
            wire.log("critical", str(error))
            leave()

    loop.add_reader(wire.channel, read)
    await ended.wait()
    await calls.end()
    await source.close()


class Calls:
    """The calls that run, by ticket."""

    def __init__(self, source: Source, wire: Wire) -> None:
        self._source = source
        self._wire = wire
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._frames = model.for_worker()

    def publish(self, tools: list[model.ToolSpec]) -> None:
        self._wire.send(model.CatalogueFrame(tools))

    def take(self, data: bytes) -> None:
        """Starts and cancels what the frames in `data` say. Raises ProtocolError."""
        for frame in self._frames.feed(data):
            if isinstance(frame, model.CallFrame):
                self.start(frame)
            else:
                self.cancel(frame.ticket)

    def start(self, frame: model.CallFrame) -> None:
        task = asyncio.get_running_loop().create_task(self._run(frame))
        self._tasks[frame.ticket] = task

    def cancel(self, ticket: int) -> None:
        task = self._tasks.get(ticket)
        if task is not None:
            task.cancel()

    async def _run(self, frame: model.CallFrame) -> None:
        try:
            value: Any = await self._source.call(frame.tool, frame.arguments)
        except asyncio.CancelledError:
            self._wire.error(frame.ticket, CallFailedError("failed", "it was given up"))
        except BaseException as error:  # noqa: BLE001 - whatever a tool raises is the caller's to know
            self._wire.error(frame.ticket, error)
        else:
            self._wire.result(frame.ticket, value)
        finally:
            del self._tasks[frame.ticket]

    async def end(self) -> None:
        """Cancels all that runs."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
