"""The supervisor's service to gateways: creates, executes, follows, destroys; see messages.py for the words."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from onehop.errors import (
    InvalidRequestError,
    OnehopError,
    UnavailableError,
)
from onehop.supervisor import contexts
from onehop.supervisor.execution import Execution
from onehop.supervisor.messages import (
    LENGTH,
    MAX_MESSAGE_BYTES,
    Reply,
    Request,
    SandboxSpec,
    decode_request,
    frame,
)
from onehop.supervisor.sandbox import Sandbox
from onehop.supervisor.service import Service

HOLD_S = 0.002
DISCARD_DELAY_S = 0.002
"""A sandbox that nobody waits for ends after the answer is out: its end takes a core for milliseconds."""


class Connection(asyncio.Protocol):
    """One gateway. Requests may overlap; when it hangs up, executions go on without a follower."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._followed: set[Execution] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handed_over = False
        self._held = b""
        """What waits a moment for events to go with."""
        self._releasing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for execution in self._followed:
            if execution.follower == self._write:  # and not somebody who attached after us
                execution.follower = None
        self._followed.clear()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4 and not self._handed_over:
            (length,) = LENGTH.unpack_from(buffer)
            if length > MAX_MESSAGE_BYTES:
                self._abort()
                return
            if len(buffer) - 4 < length:
                return
            raw = bytes(memoryview(buffer)[4 : 4 + length])
            del buffer[: 4 + length]
            try:
                request = decode_request(raw)
            except msgspec.DecodeError:
                self._abort()
                return
            self._take(request)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes, soon: bool = False) -> None:
        if soon:
            self._write_soon(data)
            return
        if self._transport is not None:
            self._transport.write(self._held + data)
        self._held = b""

    def _write_soon(self, data: bytes) -> None:
        """For the reply to an execution: most end within a millisecond, and then one write carries it all.

        The same for the end of a call of a tool, which most often goes with the next call.
        """
        if not self._releasing:
            self._releasing = True
            asyncio.get_running_loop().call_later(HOLD_S, self._release)
        self._held += data

    def _release(self) -> None:
        self._releasing = False
        if self._held:
            self._write(b"")

    def _take(self, request: Request) -> None:
        handler: Callable[[Request], Any] | None = getattr(self, f"do_{request.operation}", None)
        try:
            if handler is None:
                raise InvalidRequestError(f"no operation {request.operation!r}")
            value = handler(request)
        except OnehopError as error:
            self._refuse(request, error)
            return
        except Exception as error:  # noqa: BLE001 - one request must not take the connection down
            self._fail(request, error)
            return
        if asyncio.iscoroutine(value):
            task = asyncio.get_running_loop().create_task(self._finish(request, value))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif request.ticket and not self._handed_over:
            write = self._write_soon if request.operation == "execute" else self._write
            write(frame(Reply(request.ticket, value)))

    async def _finish(self, request: Request, work: Awaitable[Any]) -> None:
        try:
            value = await work
        except OnehopError as error:
            self._refuse(request, error)
        except Exception as error:  # noqa: BLE001 - one request must not take the supervisor down
            self._fail(request, error)
        else:
            if request.ticket:
                self._write(frame(Reply(request.ticket, value)))

    def _fail(self, request: Request, error: Exception) -> None:
        self._service.around.log(f"{request.operation}: {type(error).__name__}: {error}")
        # The operating system's refusals pass (descriptors, memory); everything else is a defect of the request.
        kind = UnavailableError if isinstance(error, OSError) else InvalidRequestError
        self._refuse(request, kind("the supervisor could not do that; its log has the reason"))

    def _refuse(self, request: Request, error: OnehopError) -> None:
        if request.ticket:
            self._write(frame(Reply(request.ticket, None, type(error).__name__, str(error))))

    def _follow(self, execution: Execution, after: int = 0) -> None:
        self._followed = (
            {one for one in self._followed if one.end is None}
            if len(self._followed) > 256
            else self._followed
        )
        self._followed.add(execution)
        execution.follow(self._write, after)

    # --- operations -----------------------------------------------------------------------------------

    async def do_create(self, request: Request) -> Any:
        assert request.sandbox_spec is not None
        return self._service.info(await self._create(request.sandbox_spec))

    async def _create(self, spec: SandboxSpec) -> Sandbox:
        """A sandbox for our gateway. One that died while it waited has nobody left who would end it."""
        sandbox = await self._service.create(spec)
        if self._transport is None:
            sandbox.die("the gateway that asked for it is gone")
            raise UnavailableError("the gateway that asked for it is gone")
        return sandbox

    async def do_execute_once(self, request: Request) -> Any:
        assert request.sandbox_spec is not None
        assert request.execution_spec is not None
        self._check_new(request.execution_spec.id)
        sandbox = await self._create(request.sandbox_spec)
        try:
            self._check_new(request.execution_spec.id)  # another may have taken it meanwhile
            execution = sandbox.executions.execute("main", request.execution_spec)
        except BaseException:
            sandbox.die("its execution could not be started")
            raise
        self._service.remember(sandbox, execution)
        self._loop_soon_follow(execution)
        return self._service.info(sandbox)

    def _check_new(self, execution_id: str) -> None:
        if execution_id in self._service.executions:
            raise InvalidRequestError("an execution has this id already")

    def _loop_soon_follow(self, execution: Execution) -> None:
        asyncio.get_running_loop().call_soon(self._follow, execution)

    def do_execute(self, request: Request) -> Any:
        assert request.execution_spec is not None
        self._check_new(request.execution_spec.id)
        sandbox = self._service.sandbox(request.arguments["sandbox"])
        execution = sandbox.executions.execute(request.arguments["kernel"], request.execution_spec)
        self._service.remember(sandbox, execution)
        self._loop_soon_follow(execution)
        return None

    async def do_command(self, request: Request) -> Any:
        spec, arguments = request.execution_spec, request.arguments
        assert spec is not None
        self._check_new(spec.id)
        sandbox = self._service.sandbox(arguments["sandbox"])
        self._service.check_descriptors()
        execution = await sandbox.commands.start(
            spec,
            cwd=arguments["cwd"],
            stdin_open=arguments["stdin_open"],
            background=arguments["background"],
        )
        self._service.remember(sandbox, execution)
        self._loop_soon_follow(execution)

    def do_commands(self, request: Request) -> Any:
        return self._service.sandbox(request.arguments["sandbox"]).commands.list()

    def do_feed(self, request: Request) -> Any:
        arguments = request.arguments
        sandbox = self._service.sandbox(arguments["sandbox"])
        sandbox.commands.feed(arguments["execution"], arguments["data"], close=arguments["close"])

    def do_signal(self, request: Request) -> Any:
        arguments = request.arguments
        self._service.sandbox(arguments["sandbox"]).commands.signal(
            arguments["execution"], arguments["signal"]
        )

    async def do_create_context(self, request: Request) -> Any:
        arguments = request.arguments
        sandbox = self._service.sandbox(arguments["sandbox"])
        self._service.check_descriptors()
        return await contexts.create(sandbox, arguments["name"], arguments["cwd"], arguments["most"])

    def do_contexts(self, request: Request) -> Any:
        sandbox = self._service.sandbox(request.arguments["sandbox"])
        return [contexts.info(sandbox, name) for name in sandbox.contexts]

    def do_restart_context(self, request: Request) -> Any:
        arguments = request.arguments
        return contexts.restart(self._service.sandbox(arguments["sandbox"]), arguments["name"])

    def do_delete_context(self, request: Request) -> Any:
        arguments = request.arguments
        contexts.delete(self._service.sandbox(arguments["sandbox"]), arguments["name"])

    def do_attach(self, request: Request) -> Any:
        _, execution = self._service.execution(request.arguments["execution"])
        asyncio.get_running_loop().call_soon(self._follow, execution, request.arguments["after"])
        return None

    def do_acknowledge(self, request: Request) -> Any:
        self._service.forget(request.arguments["execution"])

    def do_return_call(self, request: Request) -> Any:
        arguments = request.arguments
        found = self._service.executions.get(arguments["execution"])
        if found is not None:
            sandbox, execution = found
            sandbox.calls.answer(execution, arguments["call"], arguments["payload"], arguments["end"])

    def do_suspend(self, request: Request) -> Any:
        found = self._service.executions.get(request.arguments["execution"])
        if found is not None:
            sandbox, execution = found
            sandbox.calls.suspend(execution, request.arguments["timeout_s"])

    def do_interrupt(self, request: Request) -> Any:
        return self._service.sandbox(request.arguments["sandbox"]).executions.interrupt(
            request.arguments["kernel"]
        )

    async def do_destroy(self, request: Request) -> Any:
        sandbox = self._service.assigned.get(request.arguments["sandbox"])
        if sandbox is None:
            return
        if not request.ticket:
            await asyncio.sleep(DISCARD_DELAY_S)
        sandbox.die("it was deleted")
        await sandbox.gone

    def do_sandboxes(self, request: Request) -> Any:
        return [self._service.info(sandbox) for sandbox in self._service.assigned.values()]

    def do_executions(self, request: Request) -> Any:
        return self._service.unacknowledged()

    def do_describe(self, request: Request) -> Any:
        return self._service.describe()

    def do_environments(self, request: Request) -> Any:
        return self._service.environments()

    def do_porter(self, request: Request) -> Any:
        """Hands this very connection to a porter: what follows on it never passes through us."""
        assert self._transport is not None
        ours: socket.socket = self._transport.get_extra_info("socket")
        fd = os.dup(ours.fileno())
        try:
            sandbox = self._service.sandbox(request.arguments["sandbox"])
            os.write(fd, frame(Reply(request.ticket, None)))
            sandbox.open_porter(fd)
            self._handed_over = True
        finally:
            os.close(fd)
        self._transport.abort()
