"""Commands of a sandbox: E2B's service `process.Process`. A command is known by its pid while it runs."""

from __future__ import annotations

import base64
import shlex
import signal
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from onehop import errors
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Operation
from onehop.sessions import Engine
from onehop.sessions.answers import CommandInfo, EndEvent, TextEvent
from onehop.sessions.caller import EXECUTE, READ, Caller
from onehop.sessions.requests import CommandRequest
from onehop.sessions.run import Run
from onehop.wires.e2b import connect
from onehop.wires.e2b.access import Access
from onehop.wires.e2b.connect import CallError
from onehop.wires.e2b.errors import UnsupportedError
from onehop.wires.e2b.paths import in_workspace

TAG = "E2B"
KEEP_ALIVE_S = 20.0
INPUT_BYTES = 256 * 1024 * 1024
"""Of one stream of input."""
SHELL = ("/bin/bash", "-l", "-c")
"""What the clients put in front of a command."""
SIGNALS = {"SIGNAL_SIGTERM": signal.SIGTERM, "SIGNAL_SIGKILL": signal.SIGKILL}


class Config(msgspec.Struct):
    cmd: str
    args: list[str] = []
    envs: dict[str, str] = {}
    cwd: str | None = None


class StartRequest(msgspec.Struct):
    process: Config
    pty: Any = None
    stdin: bool = True


class Selector(msgspec.Struct):
    pid: int | None = None
    tag: str | None = None


class Input(msgspec.Struct):
    stdin: bytes | None = None
    pty: bytes | None = None


class OfProcess(msgspec.Struct):
    process: Selector


class InputRequest(OfProcess):
    input: Input


class SignalRequest(OfProcess):
    signal: str


class Data(msgspec.Struct):
    input: Input


class InputMessage(msgspec.Struct):
    """One of a stream: `start` first, then `data`."""

    start: OfProcess | None = None
    data: Data | None = None


class Nothing(msgspec.Struct):
    pass


_start = msgspec.json.Decoder(StartRequest)
_of_process = msgspec.json.Decoder(OfProcess)
_input = msgspec.json.Decoder(InputRequest)
_signal = msgspec.json.Decoder(SignalRequest)
_message = msgspec.json.Decoder(InputMessage)
_nothing = msgspec.json.Decoder(Nothing)


class Process:
    def __init__(self, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    def operations(self, prefix: str) -> list[Operation]:
        calls = (
            ("Start", self.start, "Run a command", EXECUTE),
            ("Connect", self.connect, "Follow a command from now on", READ),
            ("List", self.list, "The commands that run", READ),
            ("SendInput", self.send_input, "Feed a command", EXECUTE),
            ("StreamInput", self.stream_input, "Feed a command piece by piece", EXECUTE),
            ("CloseStdin", self.close_stdin, "End a command's input", EXECUTE),
            ("SendSignal", self.send_signal, "Send a command a signal", EXECUTE),
            ("Update", self.update, "Not supported: terminals", EXECUTE),
        )
        return [
            Operation(
                "POST",
                f"{prefix}/process.Process/{name}",
                handler,
                f"e2bProcess{name}",
                TAG,
                text,
                scope=scope,
            )
            for name, handler, text, scope in calls
        ]

    async def start(self, call: Call) -> None:
        await connect.stream(call, self._start(call))

    async def _start(self, call: Call) -> AsyncGenerator[Any]:
        asked = await connect.only(call, _start)
        if asked.pty is not None:
            raise UnsupportedError("pty: there are no terminals here; run a command and feed its stdin")
        sandbox, caller = self._access.sandbox(call)
        wanted_s = connect.timeout_s(call)
        longest_s = self._engine.settings.max_timeout_s
        request = CommandRequest(
            command=_line(asked.process),
            cwd=in_workspace(asked.process.cwd) if asked.process.cwd else "",
            env=asked.process.envs,
            stdin_open=asked.stdin,
            # What may run longer than any execution runs until it ends; its client stops listening by itself.
            timeout_s=wanted_s if wanted_s is not None and wanted_s <= longest_s else None,
            background=True,
        )
        run = await self._engine.executions.start_command(sandbox, request, caller)
        async for event in self._events(sandbox, run, 0, caller):
            yield event

    async def connect(self, call: Call) -> None:
        await connect.stream(call, self._connect(call))

    async def _connect(self, call: Call) -> AsyncGenerator[Any]:
        asked = await connect.only(call, _of_process)
        sandbox, caller = self._access.sandbox(call)
        command = await self._find(sandbox, asked.process, caller)
        run = await self._engine.executions.running(command.id, caller)
        if run is None:
            raise _unknown()
        async for event in self._events(sandbox, run, len(run.events), caller):
            yield event

    async def _events(self, sandbox: str, run: Run, after: int, caller: Caller) -> AsyncGenerator[Any]:
        command = await self._engine.commands.get(sandbox, run.id, caller)
        yield {"event": {"start": {"pid": command.pid}}}
        async for events in run.follow(after, pause_s=KEEP_ALIVE_S):
            if not events:
                yield {"event": {"keepalive": {}}}
            for _, (kind, event) in events:
                if isinstance(event, TextEvent):
                    yield {"event": {"data": {kind: base64.b64encode(event.text.encode()).decode()}}}
                elif isinstance(event, EndEvent):
                    yield {"event": {"end": _ended(event)}}

    async def list(self, call: Call) -> None:
        await connect.unary(call, _nothing)
        sandbox, caller = self._access.sandbox(call)
        processes = [
            {"config": {"cmd": SHELL[0], "args": [*SHELL[1:], one.command]}, "pid": one.pid}
            for one in await self._engine.commands.list(sandbox, caller)
            if one.status == "running"
        ]
        await call.answer(encode_json({"processes": processes}))

    async def send_input(self, call: Call) -> None:
        asked = await connect.unary(call, _input)
        sandbox, caller = self._access.sandbox(call)
        command = await self._find(sandbox, asked.process, caller)
        await self._engine.commands.feed(sandbox, command.id, _bytes(asked.input), caller, close=False)
        await call.answer(b"{}")

    async def stream_input(self, call: Call) -> None:
        sandbox, caller = self._access.sandbox(call)
        command: CommandInfo | None = None
        async for message in connect.messages(call, _message, INPUT_BYTES):
            if message.start is not None:
                command = await self._find(sandbox, message.start.process, caller)
            elif message.data is not None:
                if command is None:
                    raise errors.InvalidRequestError("the stream has to start with which process it is for")
                await self._engine.commands.feed(
                    sandbox, command.id, _bytes(message.data.input), caller, close=False
                )
        await connect.answer(call, {})

    async def close_stdin(self, call: Call) -> None:
        asked = await connect.unary(call, _of_process)
        sandbox, caller = self._access.sandbox(call)
        command = await self._find(sandbox, asked.process, caller)
        await self._engine.commands.feed(sandbox, command.id, b"", caller, close=True)
        await call.answer(b"{}")

    async def send_signal(self, call: Call) -> None:
        asked = await connect.unary(call, _signal)
        number = SIGNALS.get(asked.signal)
        if number is None:
            raise errors.InvalidRequestError(f"signal: expected one of {', '.join(SIGNALS)}", field="signal")
        sandbox, caller = self._access.sandbox(call)
        command = await self._find(sandbox, asked.process, caller)
        try:
            await self._engine.commands.signal(sandbox, command.id, number, caller)
        except errors.ConflictError:
            raise _unknown() from None  # it has ended meanwhile
        await call.answer(b"{}")

    async def update(self, call: Call) -> None:
        raise UnsupportedError("pty: there are no terminals here")

    async def _find(self, sandbox: str, which: Selector, caller: Caller) -> CommandInfo:
        """The running one. Raises CommandNotFoundError."""
        for one in await self._engine.commands.list(sandbox, caller):
            if one.pid == which.pid and one.status == "running":
                return one
        raise _unknown()


def _unknown() -> errors.CommandNotFoundError:
    return errors.CommandNotFoundError("no command with that pid runs in this sandbox")


def _line(config: Config) -> str:
    words = (config.cmd, *config.args)
    if len(words) == len(SHELL) + 1 and words[: len(SHELL)] == SHELL:
        return words[-1]
    return f"exec {shlex.join(words)}"


def _bytes(given: Input) -> bytes:
    if given.pty is not None:
        raise UnsupportedError("pty: there are no terminals here")
    return given.stdin or b""


def _ended(event: EndEvent) -> dict[str, Any]:
    """Of a command. Raises CallError for one that was stopped at its time."""
    if event.status == "timeout":
        raise CallError("deadline_exceeded", event.reason or "the command was stopped at its time")
    if isinstance(event.exit_code, int):
        # Protobuf's JSON leaves out what is 0.
        told: dict[str, Any] = {"exited": True, "status": f"exit status {event.exit_code}"}
        if event.exit_code:
            told["exitCode"] = event.exit_code
            told["error"] = told["status"]
        return told
    reason = event.reason or "it was ended by a signal"
    return {"exitCode": -1, "status": reason, "error": reason}
