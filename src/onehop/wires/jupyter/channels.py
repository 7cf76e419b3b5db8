"""A kernel's channels as one websocket: requests in, replies and everything that is shown out.

What is asked on `shell` is done in turn; `control` (interrupt, shutdown) is done at once. The code goes on when the
client goes away, as in Jupyter; what it shows then is not shown again.
"""

from __future__ import annotations

import asyncio
import json
import platform
from typing import Any

import msgspec

from onehop import __version__, errors
from onehop.api.asgi import Call
from onehop.sessions import Engine
from onehop.sessions.answers import EndEvent, ErrorInfo, ResultEvent, TextEvent
from onehop.sessions.caller import Caller
from onehop.sessions.requests import ExecuteRequest, SessionChange
from onehop.sessions.run import Run
from onehop.wires.jupyter.asking import Asker
from onehop.wires.jupyter.kernels import LABEL
from onehop.wires.jupyter.messages import VERSION, Message, Writer, decode
from onehop.wires.websocket import TOO_MANY, UNSUPPORTED, Websocket

MAX_WAITING = 1000
"""Requests of one client that are not begun yet."""
USED_S = 60.0
"""A kernel with a client is in use: so often it is told."""
PAUSE_S = 30.0

Content = dict[str, Any]


class Channels:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def serve(self, call: Call) -> None:
        """Raises SessionNotFoundError, SessionEndedError before the websocket is accepted."""
        session = await self._engine.sessions.get(call.path["kernel_id"], call.caller)
        if LABEL not in session.metadata:
            raise errors.SessionNotFoundError("there is no such kernel")
        await _Client(self._engine, session.id, call).run()


class _Client:
    """One websocket."""

    def __init__(self, engine: Engine, kernel: str, call: Call) -> None:
        self._engine = engine
        self._kernel = kernel
        self._socket = Websocket(call, engine.keyring)
        self._caller: Caller = call.caller
        self._writer = Writer(kernel)
        self._asker = Asker(engine, kernel, call.caller)
        self._count = 0
        self._waiting: asyncio.Queue[tuple[Message, int]] = asyncio.Queue(MAX_WAITING)
        self._waiting_bytes = 0
        self._shell = {
            "execute_request": self._execute,
            "complete_request": self._complete,
            "inspect_request": self._inspect,
            "is_complete_request": self._is_complete,
            "kernel_info_request": self._info,
            "history_request": self._history,
            "comm_info_request": self._comms,
        }
        self._control = {
            "interrupt_request": self._interrupt,
            "shutdown_request": self._shutdown,
            "kernel_info_request": self._info,
        }

    async def run(self) -> None:
        """Until the client goes, or until what answers it cannot go on."""
        await self._socket.serve(self._listen(), self._work(), beside=self._stay())

    async def _listen(self) -> None:
        most_bytes = self._engine.settings.body_bytes
        while True:
            raw = await self._socket.receive()
            try:
                message = decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                reason = "expected a message of Jupyter's protocol as JSON"
                await self._socket.close(UNSUPPORTED, reason)
                return
            if message.channel == "control" or message.kind in ("interrupt_request", "shutdown_request"):
                await self._answer(message, "control", self._control.get(message.kind))
            elif self._waiting.full() or self._waiting_bytes > most_bytes:
                reason = f"more than {MAX_WAITING} requests or {most_bytes} bytes are waiting already"
                await self._socket.close(TOO_MANY, reason)
                return
            else:
                self._waiting_bytes += len(raw)
                self._waiting.put_nowait((message, len(raw)))

    async def _work(self) -> None:
        while True:
            message, size = await self._waiting.get()
            self._waiting_bytes -= size
            await self._answer(message, "shell", self._shell.get(message.kind))

    async def _stay(self) -> None:
        """The kernel does not end for being idle while a client listens."""
        while True:
            await asyncio.sleep(USED_S)
            try:
                await self._engine.sessions.change(self._kernel, SessionChange(), self._caller)
            except errors.ProblemError:
                return

    async def _answer(self, message: Message, channel: str, perform: Any) -> None:
        """One request, between `busy` and `idle`; what cannot be done is an error in its reply."""
        if perform is None:
            return  # as kernels do with what they do not know
        await self._show("status", {"execution_state": "busy"}, message)
        try:
            content = await perform(message)
        except errors.ProblemError as error:
            content = {
                "status": "error",
                "ename": type(error).__name__,
                "evalue": error.detail,
                "traceback": [],
            }
            if message.kind == "execute_request":
                content |= {"execution_count": self._count}
                told = {name: content[name] for name in ("ename", "evalue", "traceback")}
                await self._show("error", told | {"traceback": [error.detail]}, message)
        kind = message.kind.removesuffix("_request") + "_reply"
        await self._socket.send(self._writer.message(channel, kind, content, message))
        await self._show("status", {"execution_state": "idle"}, message)

    async def _show(self, kind: str, content: Content, parent: Message) -> None:
        await self._socket.send(self._writer.message("iopub", kind, content, parent))

    # --- cells ----------------------------------------------------------------------------------------

    async def _execute(self, message: Message) -> Content:
        code, silent = str(message.content.get("code", "")), bool(message.content.get("silent"))
        if not code.strip():
            return self._done("ok")
        request = ExecuteRequest(code=code, timeout_s=self._engine.settings.max_timeout_s)
        run = await self._engine.executions.start_in_turn(self._kernel, request, self._caller)
        if not silent:
            self._count += 1
            await self._show("execute_input", {"code": code, "execution_count": self._count}, message)
        return await self._follow(run, message, silent=silent)

    async def _follow(self, run: Run, message: Message, *, silent: bool) -> Content:
        failed: Content | None = None
        async for events in run.follow(0, pause_s=PAUSE_S):
            for _, (kind, event) in events:
                shown: tuple[str, Content] | None = None
                if isinstance(event, TextEvent):
                    shown = ("stream", {"name": kind, "text": event.text})
                elif isinstance(event, ResultEvent):
                    shown = self._result(event)
                elif isinstance(event, ErrorInfo):
                    failed = _error(event.name, event.value, event.traceback)
                    shown = ("error", failed)
                elif isinstance(event, EndEvent) and event.status not in ("ok", "error") and failed is None:
                    failed = _error(event.status, event.reason, f"{event.status}: {event.reason}")
                    shown = ("error", failed)
                if shown is not None and not silent:
                    await self._show(*shown, message)
        return self._done("ok") if failed is None else self._done("error") | failed

    def _result(self, event: ResultEvent) -> tuple[str, Content]:
        content: Content = {
            "data": {mime: _value(mime, text) for mime, text in event.data.items()},
            "metadata": {},
        }
        if event.final:
            return "execute_result", content | {"execution_count": self._count}
        return "display_data", content | {"transient": {}}

    def _done(self, status: str) -> Content:
        return {"status": status, "execution_count": self._count, "user_expressions": {}, "payload": []}

    # --- what else is asked ---------------------------------------------------------------------------

    async def _complete(self, message: Message) -> Content:
        return await self._asker.complete(
            str(message.content.get("code", "")), message.content.get("cursor_pos")
        )

    async def _inspect(self, message: Message) -> Content:
        level = int(bool(message.content.get("detail_level")))
        return await self._asker.inspect(
            str(message.content.get("code", "")), message.content.get("cursor_pos"), level
        )

    async def _is_complete(self, message: Message) -> Content:
        return await self._asker.is_complete(str(message.content.get("code", "")))

    async def _info(self, message: Message) -> Content:
        version = platform.python_version()
        return {
            "status": "ok",
            "protocol_version": VERSION,
            "implementation": "onehop",
            "implementation_version": __version__,
            "language_info": {
                "name": "python",
                "version": version,
                "mimetype": "text/x-python",
                "file_extension": ".py",
                "pygments_lexer": "ipython3",
                "codemirror_mode": {"name": "ipython", "version": 3},
                "nbconvert_exporter": "python",
            },
            "banner": f"onehop {__version__}: Python {version} in a sandbox",
            "help_links": [],
        }

    async def _history(self, message: Message) -> Content:
        return {"status": "ok", "history": []}

    async def _comms(self, message: Message) -> Content:
        return {"status": "ok", "comms": {}}

    async def _interrupt(self, message: Message) -> Content:
        await self._engine.executions.interrupt(self._kernel, self._caller)
        return {"status": "ok"}

    async def _shutdown(self, message: Message) -> Content:
        restart = bool(message.content.get("restart"))
        if restart:
            await self._engine.contexts.restart(self._kernel, "main", self._caller)
        else:
            await self._engine.sessions.delete(self._kernel, self._caller)
        return {"status": "ok", "restart": restart}


def _error(name: str, value: str, trace: str) -> Content:
    return {"ename": name, "evalue": value, "traceback": trace.splitlines()}


def _value(mime: str, text: str) -> Any:
    """JSON is carried as what it means, everything else as text."""
    if mime == "application/json" or mime.endswith("+json"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
