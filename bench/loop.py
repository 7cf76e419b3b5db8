"""The rows on the model loop: what it adds to a turn and to a first byte, and a hundred conversations at once.

The models are scripted, in a process of their own (models_server.py). Beside onehop: the same client at the models'
server itself, and the classic loop, where the client asks the model, runs its code by the native API, and asks again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from bench.client import IDLE_LIMIT_S, Client, HttpError, body, text_of
from bench.measure import ONEHOP, Contender, Row, Series, Verdict, interleave
from bench.models_server import PER_S, TURNS
from bench.setup import Setup

UPSTREAM = "the models' server itself"
CLASSIC = "classic loop, native API"
PATH = "/v1/chat/completions"
END = b"\r\n0\r\n\r\n"
CONVERSATIONS = 100
STAMPS = 250
STALL_MS = 250.0
START_S = 1.0
"""Over which the conversations begin."""
_STAMP = re.compile(rb"@(\d+\.\d+) ")


class Stream:
    """A connection whose answers are streams; what it costs itself is little, and the same for everybody."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % (PATH.encode(), port)
        self._socket: socket.socket | None = None
        self._used_s = 0.0
        self._answer = bytearray()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def connect(self) -> socket.socket:
        """Anew, unless it was used just now; call it before the clock runs."""
        if self._socket is None or time.monotonic() - self._used_s > IDLE_LIMIT_S:
            self.close()
            self._socket = socket.create_connection(("127.0.0.1", self._port), 60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._used_s = time.monotonic()
        return self._socket

    def ask(self, request: bytes, until: bytes = END) -> bytes:
        """The answer up to `until`; `drain` reads the rest."""
        head = self._head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(request)
        self.connect().sendall(head + request)
        self._answer = bytearray()
        self._read(until)
        return bytes(self._answer)

    def drain(self) -> None:
        self._read(END)

    def _read(self, until: bytes) -> None:
        data, connection = self._answer, self._socket
        assert connection is not None
        while (not data.endswith(END)) if until is END else (until not in data):
            chunk = connection.recv(65536)
            data += chunk
            if not chunk or data[9:12] != b"200":
                self.close()
                raise HttpError(f"no stream: {bytes(data)[:300]!r}")


def turn(setup: Setup) -> Row:
    row = Row("loop-turn", f"A turn of the loop: the model asked, `1+1` run, {TURNS} in one request")
    bodies = [_asked("turns", count) for count in range(TURNS)]
    direct = setup.cleanup.enter_context(Stream(setup.models.port))

    def ask_all(run: Callable[[], None]) -> None:
        for number, request in enumerate(bodies):
            said = direct.ask(request)
            if number < TURNS - 1:
                run()
        if b"done" not in said:
            raise HttpError(f"another answer: {said[-300:]!r}")

    def alone(client: int) -> None:
        ask_all(lambda: None)

    def connect(client: int) -> None:
        direct.connect()

    count = setup.count(40)
    contenders = [Contender(UPSTREAM, alone, count, prepare=connect)]
    if setup.onehop is not None:
        stream = setup.cleanup.enter_context(Stream(setup.onehop.port))
        native = setup.cleanup.enter_context(Client(setup.onehop.port))
        path = f"/api/sessions/{native.post('/api/sessions', b'{}')['id']}/execute"
        numbers = itertools.count()
        request = _request("turns", onehop={"conversation": "bench"})

        def ours(client: int) -> None:
            said = stream.ask(request)
            if b"done" not in said:
                raise HttpError(f"another answer: {said[-500:]!r}")

        def run() -> None:
            if text_of(native.post(path, body(code=f"1+1  # {next(numbers)}"))) != "2":
                raise HttpError("1+1 is not 2")

        def classic(client: int) -> None:
            ask_all(run)

        def connect_both(client: int) -> None:
            direct.connect()
            native.connect()

        def connect_ours(client: int) -> None:
            stream.connect()

        contenders.insert(0, Contender(ONEHOP, ours, count, prepare=connect_ours))
        contenders.append(Contender(CLASSIC, classic, count, prepare=connect_both))
    interleave(row, contenders, rounds=setup.rounds)
    for series in row.series.values():
        series.samples_ms = [one / TURNS for one in series.samples_ms]
    row.notes.append(
        f"A sample is a request of {TURNS} turns, by their number. {UPSTREAM}: the same client asks for the same "
        f"turns, and nothing runs. {CLASSIC}: it runs the code by POST /api/sessions/…/execute between them, on this "
        "machine, without the network that lies between in life."
    )
    _added(row, 3.0)
    return row


def first_byte(setup: Setup) -> Row:
    row = Row("loop-first-byte", "First word of a streamed answer, from the request on")
    contenders = []
    ports = {UPSTREAM: setup.models.port}
    if setup.onehop is not None:
        ports = {ONEHOP: setup.onehop.port, **ports}
    for name, port in ports.items():
        stream = setup.cleanup.enter_context(Stream(port))
        contenders.append(_first_word(name, stream, setup.count(300)))
    interleave(row, contenders, rounds=setup.rounds)
    row.notes.append("The model is offered the Python tool and answers at once.")
    _added(row, 2.0)
    return row


def _first_word(name: str, stream: Stream, count: int) -> Contender:
    request = _request("hello")

    def call(client: int) -> None:
        stream.ask(request, b"Hello")

    def prepare(client: int) -> None:
        stream.connect()

    def after(client: int) -> None:
        stream.drain()

    return Contender(name, call, count, prepare=prepare, after=after)


def conversations(setup: Setup) -> Row:
    row = Row(
        "loop-conversations",
        f"{CONVERSATIONS} conversations at once, {PER_S:.0f} tokens/s each: a token's way from the model to the client",
    )
    stamps = setup.count(STAMPS)
    began = time.monotonic()
    if setup.onehop is not None:
        with Client(setup.onehop.port) as client:
            before = _sessions(client)
            row.series[ONEHOP] = asyncio.run(_conversations(setup.onehop.port, stamps))
            for name in _sessions(client) - before:  # they would be counted by the row on memory
                client.request("DELETE", f"/api/sessions/{name}")
    row.series[UPSTREAM] = asyncio.run(_conversations(setup.models.port, stamps))
    row.seconds = time.monotonic() - began
    row.notes.append(
        f"Each conversation has a sandbox of its own and runs `1+1` before its {stamps} tokens; they begin within "
        f"{START_S:g} s. Every token is the time at which the model's server sent it; client, that server and onehop "
        "share the machine, and what each adds is in the figure. The models' server itself runs nothing."
    )
    ours = row.series.get(ONEHOP)
    if ours is not None and ours.samples_ms:
        longest = max(ours.samples_ms)
        row.verdicts.append(
            Verdict(
                f"no stall over {STALL_MS:g} ms, no error",
                f"longest {longest:.0f} ms, {ours.errors} errors",
                longest <= STALL_MS and not ours.errors,
            )
        )
    return row


async def _conversations(port: int, stamps: int) -> Series:
    series = Series()
    began = time.perf_counter()
    await asyncio.gather(*(_conversation(port, number, stamps, series) for number in range(CONVERSATIONS)))
    series.wall_s = time.perf_counter() - began
    return series


def _sessions(client: Client) -> set[str]:
    return {one["id"] for one in client.request("GET", "/api/sessions")["sessions"]}


async def _conversation(port: int, number: int, stamps: int, series: Series) -> None:
    await asyncio.sleep(START_S * number / CONVERSATIONS)
    count = 0
    try:
        async with asyncio.timeout(60 + stamps / PER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                request = _request(f"stamps-{stamps}")
                head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(request)}\r\n\r\n".encode() + request)
                data = b""
                while not data.endswith(END):
                    chunk = await reader.read(65536)
                    now = time.monotonic()
                    if not chunk:
                        break
                    data += chunk
                    end = 0
                    for found in _STAMP.finditer(data):
                        series.samples_ms.append((now - float(found[1])) * 1000)
                        count, end = count + 1, found.end()
                    data = data[end:]
            finally:
                writer.close()
        if count != stamps:
            raise HttpError(f"{count} of {stamps} tokens came: {data[-300:]!r}")
    except (OSError, HttpError) as error:
        series.errors += 1
        series.first_error = series.first_error or repr(error)


def _added(row: Row, most_ms: float) -> None:
    ours, own = row.series.get(ONEHOP), row.series.get(UPSTREAM)
    if ours is not None and own is not None and ours.samples_ms and own.samples_ms:
        more = ours.at(0.5) - own.at(0.5)
        row.verdicts.append(
            Verdict(f"adds p50 ≤ {most_ms:g} ms", f"+ {more:.2f} ms", more <= most_ms and not ours.errors)
        )


def _request(model: str, **more: Any) -> bytes:
    return body(model=model, messages=[{"role": "user", "content": "go"}], stream=True, **more)


def _asked(model: str, results: int) -> bytes:
    """What the models' server is asked after that many results, by a client that runs the loop itself."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for number in range(results):
        code = json.dumps({"code": f"1+1  # {number}"})
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "python", "arguments": code}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": "2"})
    function = {
        "name": "python",
        "parameters": {"type": "object", "properties": {"code": {"type": "string"}}},
    }
    tools = [{"type": "function", "function": function}]
    return body(model=model, messages=messages, tools=tools, stream=True)
