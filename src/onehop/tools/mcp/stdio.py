"""A process that speaks MCP over its stdin and stdout, with an end to all that it may do.

The mcp library's own transport takes lines of any length and any number of messages, and leaves what a
server has started to itself when this process is killed; so the process and its pipes are ours, and the
library gets the messages. Calls of tools go past it: its layers take 0.3 ms of CPU time for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import MCPError
from mcp.shared.message import SessionMessage

from onehop.errors import CallFailedError, ConfigurationError, ProtocolError
from onehop.jail import syscalls
from onehop.tools.mcp.lines import Lines, TooLong

READ_BYTES = 262_144
GRACE_S = 1.0
"""A server has this long to end after its stdin was closed, and again after SIGTERM."""
LAST_WORDS_S = 0.2
FIRST_CALL = 1_000_000_000
"""Ids of our own requests are above; the library counts from 1."""
ENVELOPE = "io.modelcontextprotocol/"
"""Members of `_meta` that say, since 2026-07-28, in which version of the protocol a request is written."""
MAX_UNSENT_BYTES = 64 * 1024 * 1024
MAX_UNASKED = 2000
"""Messages within UNASKED_S that answer nothing."""
UNASKED_S = 1.0
STDERR_LINES = 5
STDERR_CHARACTERS = 1000
TOO_LARGE = -32_099
"""Our own code for an answer that was too large to be read (JSON-RPC 2.0, section 5.1: implementation-defined)."""
ANSWER = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*([0-9]{1,15})\s*,')

Received = SessionMessage | Exception


class StdioServer:
    """One process of a server, used once: `async with server.streams() as (read, write)`.

    Args:
        command: program and arguments.
        env: all its variables.
        cwd: folder that it starts in.
        max_message_bytes: of one message from it.

    Attributes:
        ended: set when it has nothing more to say.
        problem: why, for people.
        heard_s: time (monotonic) of its last byte.
    """

    def __init__(
        self, command: tuple[str, ...], *, env: dict[str, str], cwd: str | None, max_message_bytes: int
    ) -> None:
        self.ended = asyncio.Event()
        self.problem = ""
        self.heard_s = time.monotonic()
        self._command = command
        self._env = env
        self._cwd = cwd
        self._max_bytes = max_message_bytes
        self._awaited: set[int | str] = set()
        self._unasked = 0
        self._unasked_since_s = 0.0
        self._all_said = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_call = FIRST_CALL
        self._envelope: dict[str, Any] = {}
        self._said: deque[str] = deque(maxlen=STDERR_LINES)

    @asynccontextmanager
    async def streams(
        self,
    ) -> AsyncIterator[tuple[MemoryObjectReceiveStream[Received], MemoryObjectSendStream[SessionMessage]]]:
        """Starts it, and ends it with all that it started. Raises ConfigurationError when it cannot be started."""
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)  # what it leaves behind becomes ours, and is ended
        try:
            # In this process's own group: whoever ends that, ends the server with it.
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._env,
                cwd=self._cwd,
            )
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"command: {self._command[0]} cannot be started: {error}") from None
        self._process = process
        to_library, from_server = anyio.create_memory_object_stream[Received](0)
        to_server, from_library = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, process, to_library)
            group.start_soon(self._write, process, from_library)
            group.start_soon(self._listen, process)
            try:
                yield from_server, to_server
            finally:
                with anyio.CancelScope(shield=True):
                    await self._end(process)
                for stream in (from_server, to_server, to_library, from_library):
                    stream.close()
                group.cancel_scope.cancel()

    # --- what comes -----------------------------------------------------------------------------------

    async def _read(
        self, process: asyncio.subprocess.Process, to_library: MemoryObjectSendStream[Received]
    ) -> None:
        assert process.stdout is not None
        lines = Lines(self._max_bytes)
        try:
            async with to_library:
                try:
                    while data := await process.stdout.read(READ_BYTES):
                        self.heard_s = time.monotonic()
                        for line in lines.feed(data):
                            message = self._message(line)
                            if message is not None:
                                await to_library.send(message)
                except ProtocolError as error:
                    self.problem = f"it sent {error}"
                else:
                    # Before the calls that wait are told: they say why.
                    self.problem = await self._how_it_ended(process)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
        finally:
            self.ended.set()
            for number in list(self._calls):
                self._fail(number, types.CONNECTION_CLOSED, "Connection closed")

    def _message(self, line: bytes | TooLong) -> Received | None:
        if isinstance(line, TooLong):
            return self._too_long(line)
        if not line.strip():
            return None
        found = ANSWER.match(line)
        if found is not None and int(found[1]) in self._calls:
            try:
                self._settle(int(found[1]), msgspec.json.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self._fail(int(found[1]), types.PARSE_ERROR, f"the server's answer is no JSON: {error}")
            return None
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._count_unasked()
            shown = line[:200].decode("utf-8", "replace")
            sys.stderr.write(f"on stdout, where only messages of MCP belong: {shown}\n")
            return None
        answered = message.id if isinstance(message, types.JSONRPCResponse | types.JSONRPCError) else None
        if isinstance(answered, int) and answered in self._calls:  # its members in another order
            self._settle(answered, message.model_dump(by_alias=True))
            return None
        if answered is not None and answered in self._awaited:
            self._awaited.discard(answered)
        else:
            self._count_unasked()
        return SessionMessage(message)

    def _too_long(self, line: TooLong) -> Received | None:
        found = ANSWER.match(line.head)
        text = f"a message of more than {self._max_bytes} bytes"
        if found is not None and int(found[1]) in self._calls:
            self._fail(int(found[1]), TOO_LARGE, f"the server answered with {text}")
            return None
        if found is None or int(found[1]) not in self._awaited:
            raise ProtocolError(text)
        self._awaited.discard(int(found[1]))
        error = types.ErrorData(code=TOO_LARGE, message=f"the server answered with {text}")
        return SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))

    def _count_unasked(self) -> None:
        now_s = time.monotonic()
        if now_s - self._unasked_since_s > UNASKED_S:
            self._unasked, self._unasked_since_s = 0, now_s
        self._unasked += 1
        if self._unasked > MAX_UNASKED:
            raise ProtocolError(
                f"more than {MAX_UNASKED} messages within {UNASKED_S:g} s that answer nothing"
            )

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """What it says on stderr goes to the log; its last words explain its end."""
        assert process.stderr is not None
        rest = b""
        while data := await process.stderr.read(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line[:STDERR_CHARACTERS].decode("utf-8", "replace").rstrip()
                if text:
                    self._said.append(text)
                    sys.stderr.write(f"{text}\n")
            rest = rest[-STDERR_CHARACTERS:]
        self._all_said.set()

    async def _how_it_ended(self, process: asyncio.subprocess.Process) -> str:
        code = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                code = await _gone(process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._all_said.wait()
        if code is None:
            how = "closed its stdout"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        said = " / ".join(self._said)
        return f"the server {how}" + (f": {said}" if said else "")

    # --- calls ----------------------------------------------------------------------------------------

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """A request tools/call; its result as it came. Raises MCPError or CallFailedError; cancelled, it says so."""
        assert self._process is not None
        assert self._process.stdin is not None
        if self.ended.is_set():
            raise MCPError(types.CONNECTION_CLOSED, "Connection closed")
        if self._process.stdin.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise CallFailedError("unavailable", f"the MCP server leaves {MAX_UNSENT_BYTES} bytes unread")
        self._last_call += 1
        number = self._last_call
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        if self._envelope:
            params["_meta"] = self._envelope
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            self._send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
            return await answer
        except asyncio.CancelledError:
            about = {"requestId": number, "reason": "nobody waits for it any more"}
            if self._envelope:
                about["_meta"] = self._envelope
            self._send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": about})
            raise
        finally:
            del self._calls[number]

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        except (OSError, RuntimeError):
            pass  # its end is told by the reader

    def _settle(self, number: int, answer: dict[str, Any]) -> None:
        """Gives an answer to the call that waits for it."""
        result, error = answer.get("result"), answer.get("error")
        if isinstance(result, dict):
            waiting = self._calls[number]
            if not waiting.done():
                waiting.set_result(result)
        elif isinstance(error, dict) and isinstance(error.get("code"), int):
            self._fail(number, error["code"], str(error.get("message", "")))
        else:
            self._fail(number, types.PARSE_ERROR, "the server's answer is none of JSON-RPC")

    def _fail(self, number: int, code: int, message: str) -> None:
        waiting = self._calls[number]
        if not waiting.done():
            waiting.set_exception(MCPError(code, message))

    # --- what goes ------------------------------------------------------------------------------------

    async def _write(
        self, process: asyncio.subprocess.Process, from_library: MemoryObjectReceiveStream[SessionMessage]
    ) -> None:
        assert process.stdin is not None
        async with from_library:
            try:
                async for one in from_library:
                    message = one.message
                    if isinstance(message, types.JSONRPCRequest):
                        self._awaited.add(message.id)
                        self._learn(message)
                    data = message.model_dump_json(by_alias=True, exclude_unset=True)
                    process.stdin.write(data.encode() + b"\n")
                    await process.stdin.drain()
            except (OSError, RuntimeError):  # uvloop's transports raise the latter once they are closed
                # Those who call are told by the reader, which knows why.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2 * GRACE_S):
                        await self.ended.wait()
                        return
                self.problem = "the server closed its stdin"
                self.ended.set()

    def _learn(self, request: types.JSONRPCRequest) -> None:
        """How the library, which has settled the version, addresses this server."""
        meta = (request.params or {}).get("_meta")
        if request.method == "tools/list" and isinstance(meta, dict):
            self._envelope = {name: one for name, one in meta.items() if name.startswith(ENVELOPE)}

    # --- its end --------------------------------------------------------------------------------------

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await _gone(process)
                    break
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await _gone(process)
        _end_children()


async def _gone(process: asyncio.subprocess.Process) -> int | None:
    """Waits for its end and gives its exit code, below zero for a signal.

    Not by `process.wait()`, which waits for the ends of its pipes, too: its children may hold them.
    """
    if process.returncode is not None:
        return process.returncode
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return process.returncode
    try:
        loop.add_reader(pidfd, ended.set)
        await ended.wait()
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # noqa: ASYNC222 - it has ended
    except ChildProcessError:
        return process.returncode
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    if found is None:
        return process.returncode
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _end_children() -> None:
    """Ends what is left below this process: nothing else has been started by it."""
    for _ in range(100):  # each round may bring the children of those that were ended
        children = [
            int(pid)
            for task in Path("/proc/self/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
