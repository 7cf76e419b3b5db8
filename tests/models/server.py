"""A server of models on a loopback port that plays scripts, in a thread and event loop of its own.

    with ModelServer([Turn([Text("Hello there")])]) as server:
        ...  # an upstream at server.url("chat")

Turns are played in the order of the requests; the last one is played again when they run out. A script may be a
function of the request, too. Every request is kept in `requests`. It stays free of pytest: benchmarks use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol

from tests.models.script import (
    Call,
    Calls,
    HangUp,
    Pause,
    Raw,
    Reasoning,
    Refusal,
    Reply,
    Request,
    Script,
    Sleep,
    Stamps,
    Status,
    Text,
    Turn,
    pieces,
)

ENDINGS = (
    ("/chat/completions", "chat"),
    ("/responses", "responses"),
    ("/messages", "messages"),
    (":streamGenerateContent", "gemini"),
)
BASES = {"chat": "/v1", "responses": "/v1", "messages": "", "gemini": ""}
"""What of a URL belongs to an upstream's `url`."""
START_S = 10.0


class Renderer(Protocol):
    """One answer in one dialect; every returned item is one write. Class `Renderer` of tests/models/<dialect>.py."""

    def __init__(self, request: Request, turn: Turn) -> None: ...
    def begin(self) -> list[bytes]: ...
    def text(self, piece: str) -> list[bytes]: ...
    def reasoning(self, piece: str) -> list[bytes]: ...
    def refusal(self, text: str) -> list[bytes]: ...
    def calls(self, calls: list[Call]) -> list[bytes]: ...
    def end(self) -> list[bytes]: ...
    def error(self, status: int, message: str) -> bytes: ...


class ModelServer:
    """Started on entering.

    Args:
        script: turns in the order of the requests, or a function.
        seed: cuts everything that is streamed at places that follow from it; None: one write for each event.
        models: what its lists of models have.
        port: to listen on; 0 takes a free one.
        key: requests without it are refused as the dialects do; empty: everybody may.
    """

    def __init__(
        self,
        script: Iterable[Reply] | Script = (),
        *,
        seed: int | None = None,
        models: Iterable[str] = ("scripted",),
        key: str = "",
        port: int = 0,
    ) -> None:
        self.script: list[Reply] | Script = script if callable(script) else list(script)
        self.requests: list[Request] = []
        self.models = list(models)
        self.lists = 0
        self.connections = 0
        self._seed = seed
        self._key = key
        self._came = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._ready = threading.Event()
        self._stopped = asyncio.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listener.getsockname()[1]

    def url(self, dialect: str) -> str:
        """The `url` of an upstream of that kind."""
        return f"http://127.0.0.1:{self.port}{BASES[dialect]}"

    def setting(self, dialect: str, **members: Any) -> str:
        """The setting `upstreams` with this server as `scripted`."""
        return json.dumps({"scripted": {"kind": dialect, "url": self.url(dialect), **members}})

    def wait(self, count: int, timeout_s: float = 10.0) -> Request:
        """The `count`-th request for a turn, once it has come."""
        with self._came:
            if not self._came.wait_for(lambda: len(self.requests) >= count, timeout_s):
                raise TimeoutError(f"{len(self.requests)} requests came, not {count}")
        return self.requests[count - 1]

    def __enter__(self) -> ModelServer:
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError("the scripted server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(START_S)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def connection() -> _Protocol:
            reader, ended = asyncio.StreamReader(), asyncio.Event()

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.get_running_loop().create_task(self._connection(reader, writer, ended))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            return _Protocol(reader, connected, ended)

        server = await asyncio.get_running_loop().create_server(connection, sock=self._listener)
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: asyncio.Event
    ) -> None:
        self.connections += 1
        # asyncio does so itself only where the listener's protocol number is set, which it is not.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while (request := await self._request(reader)) is not None:
                if not await self._answer(request, writer, ended):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head[:-4].split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(method, path, headers, json.loads(body) if body else None, 0)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter, ended: asyncio.Event) -> bool:
        """Whether the connection can be used again."""
        place = request.path.partition("?")[0]
        dialect = next((name for ending, name in ENDINGS if place.endswith(ending)), None)
        if self._key and self._key not in (
            request.headers.get("authorization", "").removeprefix("Bearer "),
            request.headers.get("x-api-key"),
            request.headers.get("x-goog-api-key"),
        ):
            _whole(writer, 401, b'{"error": {"message": "Incorrect API key provided", "type": "auth"}}', {})
            return True
        if dialect is None and request.method == "GET" and place.endswith("/models"):
            self.lists += 1
            _whole(writer, 200, json.dumps(self._list()).encode(), {})
            return True
        if place.endswith(":countTokens"):
            _whole(writer, 200, b'{"totalTokens": 7}', {})
            return True
        if dialect is None:
            _whole(writer, 404, b"not here", {"content-type": "text/plain"})
            return True
        turn = self._next(request)
        renderer: Renderer = importlib.import_module(f"tests.models.{dialect}").Renderer(request, turn)
        status = turn.steps[0] if turn.steps and isinstance(turn.steps[0], Status) else None
        if status is not None:
            content = renderer.error(status.status, status.message) if status.body is None else status.body
            _whole(writer, status.status, content, status.headers)
            request.done.set()
            return True
        return await self._watched(request, turn, renderer, writer, ended)

    def _list(self) -> dict[str, Any]:
        """OpenAI's, Anthropic's and Google's in one document."""
        data = [{"id": name, "object": "model", "created": 1_700_000_000} for name in self.models]
        return {
            "object": "list",
            "data": data,
            "models": [{"name": f"models/{name}"} for name in self.models],
        }

    def _next(self, request: Request) -> Turn:
        with self._came:
            request.number = len(self.requests) + 1
            if callable(self.script):
                reply = self.script(request)
            elif self.script:
                reply = self.script[min(request.number, len(self.script)) - 1]
            else:
                reply = [Text("ok")]
            self.requests.append(request)
            self._came.notify_all()
        return reply if isinstance(reply, Turn) else Turn(reply)

    async def _watched(
        self,
        request: Request,
        turn: Turn,
        renderer: Renderer,
        writer: asyncio.StreamWriter,
        ended: asyncio.Event,
    ) -> bool:
        """Plays the turn, unless its client goes."""
        playing = asyncio.ensure_future(self._play(request, turn, renderer, writer))
        watching = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait((playing, watching), return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                return playing.result()
            request.gone.set()
            return False
        except ConnectionError:
            request.gone.set()
            return False
        finally:
            for task in (playing, watching):
                task.cancel()
            await asyncio.gather(playing, watching, return_exceptions=True)

    async def _play(
        self, request: Request, turn: Turn, renderer: Renderer, writer: asyncio.StreamWriter
    ) -> bool:
        out = _Out(writer, None if self._seed is None else random.Random(self._seed + request.number))
        if turn.steps and isinstance(turn.steps[0], HangUp):
            return False
        await out.begin()
        await out.send(renderer.begin())
        for step in turn.steps:
            if isinstance(step, Text):
                for piece in pieces(step.text, step.pieces):
                    await out.send(renderer.text(piece))
                    if step.per_s:
                        await asyncio.sleep(1 / step.per_s)
            elif isinstance(step, Stamps):
                due_s = time.monotonic()
                for _ in range(step.count):
                    await out.send(renderer.text(f"@{time.monotonic():.6f} "))
                    due_s += 1 / step.per_s
                    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            elif isinstance(step, Reasoning):
                for piece in pieces(step.text, step.pieces):
                    await out.send(renderer.reasoning(piece))
            elif isinstance(step, Refusal):
                await out.send(renderer.refusal(step.text))
            elif isinstance(step, Call):
                await out.send(renderer.calls([step]))
            elif isinstance(step, Calls):
                await out.send(renderer.calls(step.calls))
            elif isinstance(step, Raw):
                await out.send([step.content])
            elif isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Pause):
                step.gate.reached.set()
                await asyncio.wrap_future(step.gate.future)
            elif isinstance(step, HangUp):
                return False
        if turn.ends:
            await out.send(renderer.end())
        await out.end()
        request.done.set()
        return True


class _Protocol(asyncio.StreamReaderProtocol):
    """Tells when the client ends the connection, without reading from it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
        ended: asyncio.Event,
    ) -> None:
        super().__init__(reader, connected)
        self._ended = ended

    def eof_received(self) -> bool:
        self._ended.set()
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()
        super().connection_lost(exc)


class _Out:
    """The chunked body of one answer."""

    def __init__(self, writer: asyncio.StreamWriter, cuts: random.Random | None) -> None:
        self._writer = writer
        self._cuts = cuts

    async def begin(self) -> None:
        self._writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    async def send(self, writes: list[bytes]) -> None:
        for content in writes:
            if self._cuts is None:
                await self._chunk(content)
                continue
            at = 0
            while at < len(content):
                size = self._cuts.randint(1, 40)
                await self._chunk(content[at : at + size])
                await asyncio.sleep(0)
                at += size

    async def _chunk(self, content: bytes) -> None:
        if content:
            self._writer.write(b"%x\r\n%b\r\n" % (len(content), content))
            await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


def _whole(writer: asyncio.StreamWriter, status: int, content: bytes, headers: dict[str, str]) -> None:
    lines = {"content-type": "application/json", **headers, "content-length": str(len(content))}
    head = f"HTTP/1.1 {status} Scripted\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in lines.items()
    )
    writer.write(head.encode() + b"\r\n" + content)


__all__ = [
    "Call",
    "Calls",
    "HangUp",
    "ModelServer",
    "Pause",
    "Raw",
    "Reasoning",
    "Refusal",
    "Renderer",
    "Reply",
    "Request",
    "Sleep",
    "Status",
    "Text",
    "Turn",
]
