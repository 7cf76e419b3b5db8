"""E2B's code interpreter: code in contexts, with lines of JSON as it goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect

from onehop import errors
from onehop.api import sse
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import ContextInfo, EndEvent, ErrorInfo, ResultEvent, TextEvent
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import CommandRequest, ContextRequest, ExecuteRequest, decode
from onehop.sessions.run import Run
from onehop.wires.e2b.access import Access
from onehop.wires.e2b.paths import HOME, in_workspace

TAG = "E2B"
LINES: Header = (b"content-type", b"application/x-ndjson")
KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b'{"type":"keepalive"}\n'
PYTHON, BASH = "python", "bash"
LANGUAGES = {"": PYTHON, "python": PYTHON, "python3": PYTHON, "bash": BASH, "sh": BASH}
MAIN = "main"
BASH_CONTEXT = "bash"
"""The context that bash's cells name; a cell is a shell of its own."""
CHART = "e2b/chart"
"""What the kernel calls a figure's data, see kernel/figures.py."""
NAMES = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    CHART: "chart",
}
AS_JSON = frozenset({"application/json", CHART})
ERRORS = {"timeout": "TimeoutError", "out_of_memory": "MemoryError", "interrupted": "KeyboardInterrupt"}


class Execute(msgspec.Struct):
    """A cell, in a context or in a language's own."""

    code: str
    context_id: str | None = None
    language: str | None = None
    env_vars: dict[str, str] | None = None


class NewContext(msgspec.Struct):
    """A context to be made."""

    language: str | None = None
    cwd: str | None = None


_decode_execute = msgspec.json.Decoder(Execute)
_decode_context = msgspec.json.Decoder(NewContext)


class Interpreter:
    def __init__(self, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    def operations(self, prefix: str) -> list[Operation]:
        every = prefix + "/contexts"
        one = every + "/{context_id}"
        return [
            Operation(
                "POST", prefix + "/execute", self.execute, "e2bExecute", TAG, "Run a cell", scope=EXECUTE,
                body=Body("The cell.", Execute),
            ),
            Operation("GET", every, self.list, "e2bListContexts", TAG, "The contexts", scope=READ),
            Operation(
                "POST", every, self.create, "e2bCreateContext", TAG, "Make a context", scope=EXECUTE,
                body=Body("The context.", NewContext),
            ),
            Operation("DELETE", one, self.delete, "e2bDeleteContext", TAG, "End a context", scope=EXECUTE),
            Operation("POST", one + "/restart", self.restart, "e2bRestartContext", TAG, "Start it anew", scope=EXECUTE),
        ]  # fmt: skip

    # --- cells ----------------------------------------------------------------------------------------

    async def execute(self, call: Call) -> None:
        call.require_type(b"application/json")
        asked = decode(_decode_execute, await call.body(self._engine.settings.body_bytes))
        sandbox, caller = self._access.sandbox(call)
        executions, env = self._engine.executions, asked.env_vars or {}
        # The client says to nobody how long it will wait: it hangs up, and that interrupts the code.
        longest_s = self._engine.settings.max_timeout_s
        if _language(asked.language) == BASH or asked.context_id == BASH_CONTEXT:
            command = CommandRequest(command=asked.code, env=env, timeout_s=longest_s)
            run = await executions.start_command(sandbox, command, caller)
        else:
            code = ExecuteRequest(
                code=asked.code or "None",
                context=_context_name(asked.context_id),
                env=env,
                timeout_s=longest_s,
            )
            run = await self._in_turn(sandbox, code, call)
        try:
            await sse.send(call, _told(run), headers=[], content_type=LINES)
        finally:
            if run.end is None:
                if run.context.startswith("!"):
                    await self._engine.commands.kill(sandbox, run.id, caller)
                else:
                    await executions.stop(run)

    async def _in_turn(self, sandbox: str, code: ExecuteRequest, call: Call) -> Run:
        """Cells of one context run one after the other, as the clients expect of its queue."""
        _, caller = self._access.sandbox(call)
        begun = asyncio.ensure_future(self._engine.executions.start_in_turn(sandbox, code, caller))
        if await call.gone_before(begun):
            begun.cancel()
            raise ClientDisconnect
        return await begun

    # --- contexts -------------------------------------------------------------------------------------

    async def list(self, call: Call) -> None:
        found = await self._engine.contexts.list(*self._access.sandbox(call))
        await call.answer(encode_json([_context(one) for one in found]))

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        asked = decode(_decode_context, await call.body(self._engine.settings.body_bytes) or b"{}")
        sandbox, caller = self._access.sandbox(call)
        if _language(asked.language) == BASH:
            await self._engine.sessions.get(sandbox, caller)
            await call.answer(encode_json({"id": BASH_CONTEXT, "language": BASH, "cwd": HOME}))
            return
        request = ContextRequest(cwd=in_workspace(asked.cwd) if asked.cwd else "")
        made = await self._engine.contexts.create(sandbox, request, caller)
        await call.answer(encode_json(_context(made)))

    async def delete(self, call: Call) -> None:
        sandbox, caller = self._access.sandbox(call)
        await self._engine.contexts.delete(sandbox, call.path["context_id"], caller)
        await call.empty()

    async def restart(self, call: Call) -> None:
        sandbox, caller = self._access.sandbox(call)
        made = await self._engine.contexts.restart(sandbox, call.path["context_id"], caller)
        await call.answer(encode_json(_context(made)))


def _language(asked: str | None) -> str:
    found = LANGUAGES.get((asked or "").lower())
    if found is None:
        raise errors.InvalidRequestError(
            f"language: {(asked or '')[:40]!r} is not here; there are {PYTHON} and {BASH}", field="language"
        )
    return found


def _context_name(asked: str | None) -> str:
    """Raises ContextNotFoundError for what cannot be one's name."""
    name = asked or MAIN
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 64):
        raise errors.ContextNotFoundError("there is no such context in this sandbox")
    return name


def _context(one: ContextInfo) -> dict[str, str]:
    return {"id": one.name, "language": PYTHON, "cwd": f"{HOME}/{one.cwd}" if one.cwd else HOME}


# --- a cell's lines -------------------------------------------------------------------------------------


async def _told(run: Run) -> AsyncIterator[bytes]:
    async for events in run.follow(0, pause_s=KEEP_ALIVE_S):
        if not events:
            yield KEEP_ALIVE
        for _, (kind, event) in events:
            for line in _line(kind, event):
                yield encode_json(line) + b"\n"


def _line(kind: str, event: object) -> list[dict[str, Any]]:
    if isinstance(event, TextEvent):
        return [{"type": kind, "text": event.text, "timestamp": time.time_ns()}]
    if isinstance(event, ResultEvent):
        return [_result(event)]
    if isinstance(event, ErrorInfo):
        return [{"type": "error", "name": event.name, "value": event.value, "traceback": event.traceback}]
    if isinstance(event, EndEvent):
        return [*_failed(event), {"type": "end_of_execution"}]
    return []


def _result(event: ResultEvent) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "result", "is_main_result": event.final}
    for mime, text in event.data.items():
        value: Any = text
        if mime in AS_JSON:
            try:
                value = json.loads(text)
            except ValueError:
                continue
        if mime in NAMES:
            told[NAMES[mime]] = value
        else:
            told.setdefault("extra", {})[mime] = value
    return told


def _failed(end: EndEvent) -> list[dict[str, Any]]:
    """What the code could not say itself."""
    exit_code = end.exit_code
    if isinstance(exit_code, int) and exit_code:
        value = f"exit status {exit_code}"
        return [{"type": "error", "name": "ExitCodeError", "value": value, "traceback": value}]
    if end.status in ("ok", "error"):
        return []
    name, value = ERRORS.get(end.status, "ExecutionError"), end.reason or end.status
    return [{"type": "error", "name": name, "value": value, "traceback": f"{name}: {value}"}]
