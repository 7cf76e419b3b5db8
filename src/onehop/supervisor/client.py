"""The gateway's side of the supervisor: one connection, requests in flight, events to their listeners."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, cast

import msgspec

from onehop import errors, protocol
from onehop.supervisor.messages import (
    LENGTH,
    MAX_MESSAGE_BYTES,
    CommandInfo,
    ContextInfo,
    EnvironmentInfo,
    Event,
    ExecutionInfo,
    ExecutionSpec,
    Request,
    SandboxInfo,
    SandboxSpec,
    decode_from_supervisor,
    frame,
)
from onehop.supervisor.porter import Porter

Listener = Callable[[Event | None], None]
"""Called for every event of an execution, in order, on the loop; with None when the supervisor is lost."""


class SupervisorClient(asyncio.Protocol):
    """Use `await SupervisorClient.connect(path)`; methods may be called concurrently.

    Every method raises EngineError when the supervisor is gone, and the class that the supervisor
    named when it refused (SessionNotFoundError, SessionBusyError, TooManyError, UnavailableError …).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost: asyncio.Event = asyncio.Event()
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._listeners: dict[str, Listener] = {}
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def connect(cls, path: str, *, timeout_s: float = 10.0) -> SupervisorClient:
        """Connects to the supervisor's unix socket. Raises EngineError when nobody listens there."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, client = await loop.create_unix_connection(lambda: cls(path), path)
        except (OSError, TimeoutError) as error:
            raise errors.EngineError(f"no supervisor answers at {path}: {error}") from error
        return client

    async def close(self) -> None:
        """Hangs up. Sandboxes live on."""
        if self._transport is not None:
            self._transport.close()
            await self.lost.wait()

    # --- calls --------------------------------------------------------------------------------------

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxInfo:
        """A ready sandbox, from the pool where one waits there."""
        return msgspec.convert(await self._call("create", sandbox_spec=spec), SandboxInfo)

    async def destroy_sandbox(self, sandbox: str) -> None:
        """Ends all its processes and frees everything; returns when nothing is left."""
        await self._call("destroy", {"sandbox": sandbox})

    def discard_sandbox(self, sandbox: str) -> None:
        """Like destroy_sandbox, without waiting for it (the supervisor owns the rest)."""
        self._write(Request(0, "destroy", {"sandbox": sandbox}))

    async def sandboxes(self) -> list[SandboxInfo]:
        """All that were handed out and not destroyed, with their unacknowledged executions."""
        return msgspec.convert(await self._call("sandboxes"), list[SandboxInfo])

    async def environments(self) -> list[EnvironmentInfo]:
        """All that a sandbox may have at this moment."""
        return msgspec.convert(await self._call("environments"), list[EnvironmentInfo])

    async def executions(self) -> list[ExecutionInfo]:
        """All that were not acknowledged, also those whose sandbox is gone."""
        return msgspec.convert(await self._call("executions"), list[ExecutionInfo])

    async def execute(
        self, sandbox: str, spec: ExecutionSpec, listener: Listener, *, kernel: str = "main"
    ) -> None:
        """Starts an execution; its events go to `listener`. Raises SessionBusyError when one is running."""
        await self._begin("execute", {"sandbox": sandbox, "kernel": kernel}, spec, listener)

    async def _begin(
        self, operation: str, arguments: dict[str, Any], spec: ExecutionSpec, listener: Listener
    ) -> None:
        if spec.id in self._listeners:
            raise errors.InvalidRequestError("an execution has this id already")
        self._listeners[spec.id] = listener
        try:
            await self._call(operation, arguments, execution_spec=spec)
        except BaseException:
            self._listeners.pop(spec.id, None)
            raise

    async def execute_once(
        self, sandbox_spec: SandboxSpec, spec: ExecutionSpec, listener: Listener
    ) -> SandboxInfo:
        """A new sandbox and an execution in it, in one step. The caller destroys the sandbox afterwards."""
        if spec.id in self._listeners:
            raise errors.InvalidRequestError("an execution has this id already")
        self._listeners[spec.id] = listener
        try:
            value = await self._call("execute_once", sandbox_spec=sandbox_spec, execution_spec=spec)
        except BaseException:
            self._listeners.pop(spec.id, None)
            raise
        return msgspec.convert(value, SandboxInfo)

    async def attach(self, execution: str, listener: Listener, *, after: int = 0) -> None:
        """Follows an execution again, from the event after number `after` on."""
        self._listeners[execution] = listener
        try:
            await self._call("attach", {"execution": execution, "after": after})
        except BaseException:
            self._listeners.pop(execution, None)
            raise

    def acknowledge(self, execution: str) -> None:
        """The result is stored: the supervisor may forget the execution's events."""
        self._listeners.pop(execution, None)
        self._write(Request(0, "acknowledge", {"execution": execution}))

    def return_call(self, execution: str, call: int, payload: bytes, end: bytes) -> None:
        """Answers a pending call; nothing happens when it is not pending.

        Args:
            call: its number.
            payload: msgpack of protocol.Return; goes to the kernel.
            end: msgpack of CallEnd; goes into the log.
        """
        arguments = {"execution": execution, "call": call, "payload": payload, "end": end}
        self._write(Request(0, "return_call", arguments))

    def suspend(self, execution: str, timeout_s: float) -> None:
        """The deadline stands still until a call is answered; after `timeout_s` without one it is stopped."""
        self._write(Request(0, "suspend", {"execution": execution, "timeout_s": timeout_s}))

    async def command(
        self,
        sandbox: str,
        spec: ExecutionSpec,
        listener: Listener,
        *,
        cwd: str,
        stdin_open: bool,
        background: bool,
    ) -> None:
        """Starts a shell command; see supervisor/commands.py."""
        arguments = {"sandbox": sandbox, "cwd": cwd, "stdin_open": stdin_open, "background": background}
        await self._begin("command", arguments, spec, listener)

    async def commands(self, sandbox: str) -> list[CommandInfo]:
        """Those that run, and the last of those that have ended."""
        return msgspec.convert(await self._call("commands", {"sandbox": sandbox}), list[CommandInfo])

    async def feed(self, sandbox: str, execution: str, data: bytes, *, close: bool) -> None:
        """More stdin for a command. Raises CommandNotFoundError, ConflictError, TooManyError."""
        await self._call("feed", {"sandbox": sandbox, "execution": execution, "data": data, "close": close})

    async def signal(self, sandbox: str, execution: str, number: int) -> None:
        """For a command's process group. Raises CommandNotFoundError, ConflictError."""
        await self._call("signal", {"sandbox": sandbox, "execution": execution, "signal": number})

    async def create_context(self, sandbox: str, name: str, *, cwd: str, most: int) -> ContextInfo:
        """Another kernel. Raises ConflictError, TooManyError, InvalidRequestError."""
        arguments = {"sandbox": sandbox, "name": name, "cwd": cwd, "most": most}
        return msgspec.convert(await self._call("create_context", arguments), ContextInfo)

    async def contexts(self, sandbox: str) -> list[ContextInfo]:
        return msgspec.convert(await self._call("contexts", {"sandbox": sandbox}), list[ContextInfo])

    async def restart_context(self, sandbox: str, name: str) -> ContextInfo:
        """A new kernel in its place. Raises ContextNotFoundError."""
        return msgspec.convert(
            await self._call("restart_context", {"sandbox": sandbox, "name": name}), ContextInfo
        )

    async def delete_context(self, sandbox: str, name: str) -> None:
        """Raises ContextNotFoundError, ConflictError."""
        await self._call("delete_context", {"sandbox": sandbox, "name": name})

    async def interrupt(self, sandbox: str, *, kernel: str = "main") -> bool:
        """SIGINT for what runs; the variables stay. False when nothing ran."""
        return bool(await self._call("interrupt", {"sandbox": sandbox, "kernel": kernel}))

    async def describe(self) -> dict[str, Any]:
        """Protections, environments, pool and counts; see supervisor/server.py."""
        value = await self._call("describe")
        assert isinstance(value, dict)
        return value

    async def open_porter(self, sandbox: str, *, timeout_s: float = 10.0) -> Porter:
        """A connection to a new porter process in the sandbox; close it after use."""
        try:
            reader, writer = await asyncio.open_unix_connection(
                self.path, limit=2 * protocol.PORTER_CHUNK_BYTES
            )
        except OSError as error:  # too many open files, or the supervisor is gone
            raise errors.UnavailableError(f"the sandbox does not hand out its files: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                # From this reply on, the supervisor has handed the connection itself to the porter.
                writer.write(frame(Request(1, "porter", {"sandbox": sandbox})))
                raw = await reader.readexactly(LENGTH.unpack(await reader.readexactly(LENGTH.size))[0])
                _raise_refusal(decode_from_supervisor(raw))
                await reader.readexactly(protocol.PORTER_HEADER.size)
        except (OSError, EOFError, TimeoutError) as error:
            writer.close()
            raise errors.UnavailableError(f"the sandbox does not hand out its files: {error!r}") from error
        except BaseException:
            writer.close()
            raise
        return Porter(reader, writer)

    # --- transport ------------------------------------------------------------------------------------

    async def _call(
        self,
        operation: str,
        arguments: dict[str, Any] | None = None,
        *,
        sandbox_spec: SandboxSpec | None = None,
        execution_spec: ExecutionSpec | None = None,
    ) -> Any:
        ticket = next(self._tickets)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        try:
            self._write(Request(ticket, operation, arguments or {}, sandbox_spec, execution_spec))
            return await future
        finally:
            self._waiting.pop(ticket, None)

    def _write(self, request: Request) -> None:
        if self._transport is None or self.lost.is_set():
            raise errors.EngineError("the supervisor is gone")
        self._transport.write(frame(request))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        while end - start >= 4:
            (length,) = LENGTH.unpack_from(buffer, start)
            if length > MAX_MESSAGE_BYTES or end - start - 4 < length:
                break
            message = decode_from_supervisor(memoryview(buffer)[start + 4 : start + 4 + length])
            start += 4 + length
            self._take(message)
        if start:
            del buffer[:start]

    def _take(self, message: list[Any]) -> None:
        if isinstance(message[0], int):
            future = self._waiting.get(message[0])
            if future is not None and not future.done():
                try:
                    _raise_refusal(message)
                except errors.OnehopError as error:
                    future.set_exception(error)
                else:
                    future.set_result(message[1])
            return
        event = Event(*message)
        listener = self._listeners.get(event.execution)
        if listener is not None:
            if event.kind == "end":
                self._listeners.pop(event.execution, None)
            listener(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(errors.EngineError("the supervisor is gone"))
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener(None)


def _raise_refusal(message: list[Any]) -> None:
    name = message[2]
    if name:
        kind = getattr(errors, name, errors.EngineError)
        raise kind(message[3])
