"""The rows on calls of tools from code: one after another, and a hundred at once.

The code takes the times itself, around each call, as a program in the sandbox has them. Beside it: what a tool
costs that a client calls over HTTP on this machine, network excluded, which is the classic loop's least.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.client import Client, body, text_of
from bench.measure import ONEHOP, SETTLE_S, Contender, Row, Series, Verdict, batch
from bench.server import NOOP_MCP
from bench.setup import CLIENTS, NOOP, Setup

ASYNC = "onehop, async def tool"
OF_CLIENT = "onehop, tool of the client"
BY_HAND = "the MCP server itself"
SERVER_TOOLS = "onehop, tools of the server"
TWENTY_CALLS = Path(__file__).parents[1] / "examples" / "twenty_calls.py"
TWENTY_RUNS = 3
TOOLS = ["noop_tools.*", "noop_mcp.*"]
GATHERED = 100

ONE_AFTER_ANOTHER = """
import json, time
call, clock, samples = tools.noop_tools.{name}, time.perf_counter, []
for _ in range(20):
    call()
began = clock()
for _ in range({count}):
    begun = clock()
    value = call()
    samples.append((clock() - begun) * 1000)
    assert value == 1
print(json.dumps([samples, clock() - began]))
"""
AT_ONCE = """
import asyncio, json, time
call, clock, samples = tools.noop_tools.{name}, time.perf_counter, []
await asyncio.gather(*(call() for _ in range({gathered})))
began = clock()
for _ in range({count}):
    begun = clock()
    values = await asyncio.gather(*(call() for _ in range({gathered})))
    samples += [(clock() - begun) * 1000] * {gathered}
    assert values == [1] * {gathered}
print(json.dumps([samples, clock() - began]))
"""
SUSPENDED = """
for _ in range({count}):
    assert tools.noop() == 1
"""

Batch = Callable[[Series], None]


def one_after_another(setup: Setup) -> Row:
    row = Row("tool-call", "Call from code to a no-op tool on the host and back, one after another")
    batches: dict[str, Batch] = {}
    if setup.onehop is not None:
        count = setup.count(1000)
        for label, name in ((ONEHOP, "noop"), (ASYNC, "noop_async")):
            batches[label] = partial(_in_code, setup, ONE_AFTER_ANOTHER.format(name=name, count=count))
        batches[OF_CLIENT] = partial(_suspended, setup, setup.count(200))
    batches[NOOP] = partial(_over_http, setup.noop(400))
    _interleave(row, batches, setup.rounds)
    row.notes.append(
        f"{NOOP}: a client calls a tool that does nothing over HTTP, one request per call, on this machine. "
        f"{OF_CLIENT}: the code stands still until the client has sent the result, from there to its next call."
    )
    ours = row.series.get(ONEHOP)
    if ours is not None and ours.samples_ms:
        p50 = ours.at(0.5)
        row.verdicts.append(Verdict("p50 ≤ 0.25 ms", f"{p50:.3f} ms", p50 <= 0.25 and not ours.errors))
    return row


def mcp(setup: Setup) -> Row:
    """Beside it the same server, asked over its pipes by hand: the tool's own time."""
    row = Row("tool-mcp", "Call from code to a no-op tool of an MCP server over stdio, one after another")
    batches: dict[str, Batch] = {}
    if setup.onehop is not None:
        code = ONE_AFTER_ANOTHER.replace("noop_tools.{name}", "noop_mcp.noop").replace(
            "value == 1", "value == {wanted}"
        )
        code = code.format(count=setup.count(500), wanted={"result": 1})
        batches[ONEHOP] = partial(_in_code, setup, code)
    batches[BY_HAND] = partial(_by_hand, setup.count(500))
    _interleave(row, batches, setup.rounds)
    row.notes.append(
        f"{BY_HAND}: the same server, written with the mcp library, asked by JSON-RPC over its own pipes: "
        "what a call costs in the server itself."
    )
    ours, own = row.series.get(ONEHOP), row.series.get(BY_HAND)
    if ours is not None and own is not None and ours.samples_ms and own.samples_ms:
        more = ours.at(0.5) - own.at(0.5)
        row.verdicts.append(
            Verdict("p50 ≤ the tool's own time + 0.5 ms", f"+ {more:.3f} ms", more <= 0.5 and not ours.errors)
        )
    return row


def at_once(setup: Setup) -> Row:
    row = Row("tool-gather", f"The same, {GATHERED} at once by asyncio.gather", rate=True)
    batches: dict[str, Batch] = {}
    if setup.onehop is not None:
        count = setup.count(40)
        for label, name in ((ONEHOP, "noop"), (ASYNC, "noop_async")):
            code = AT_ONCE.format(name=name, count=count, gathered=GATHERED)
            batches[label] = partial(_in_code, setup, code)
    connections = [setup.cleanup.enter_context(Client(setup.peers.port)) for _ in range(CLIENTS)]
    request = body(code="1+1")

    def call(client: int) -> None:
        text_of(connections[client].post("/noop", request))

    def prepare(client: int) -> None:
        connections[client].connect()

    peer = Contender(NOOP, call, setup.count(2000), clients=CLIENTS, prepare=prepare)
    batches[NOOP] = partial(_over_http, peer)
    _interleave(row, batches, setup.rounds)
    row.notes.append(f"The time of a call is that of all {GATHERED}. {NOOP}: {CLIENTS} clients over HTTP.")
    ours = row.series.get(ONEHOP)
    if ours is not None and ours.samples_ms:
        measured = ours.per_second
        row.verdicts.append(
            Verdict("≥ 8,000 a second", f"{measured:,.0f} a second", measured >= 8000 and not ours.errors)
        )
    return row


def twenty(setup: Setup) -> Row:
    """What `examples/twenty_calls.py` prints, several times."""
    row = Row(
        "twenty-calls",
        "Twenty dependent tool calls: 50 ms of network, a scripted model of 300 ms a turn",
        base=SERVER_TOOLS,
    )
    if setup.onehop is None:
        return row
    began = time.monotonic()
    told: dict[str, str] = {}
    for _ in range(setup.count(TWENTY_RUNS)):
        done = subprocess.run(
            [sys.executable, str(TWENTY_CALLS)], capture_output=True, text=True, timeout=120, check=True
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
        for line in lines[1:]:
            name, hops, turns, runs, calls, used, wall = (cell.strip() for cell in line.strip("|").split("|"))
            series = row.series.setdefault(name, Series())
            wall_s = float(wall.removesuffix(" s"))
            series.samples_ms.append(wall_s * 1000)
            series.wall_s += wall_s
            told[name] = (
                f"{name}: {hops} client hops, {turns} model turns, {runs} runs of the program, {calls} tool calls, "
                f"{used} tokens"
            )
    row.seconds = time.monotonic() - began
    row.notes += [
        *told.values(),
        "The time is that of the whole conversation. Tokens: all that each turn reads and writes, one for every 4 "
        "characters of JSON. The network is a proxy that holds up what passes; the model is scripted.",
    ]
    return row


def _interleave(row: Row, batches: dict[str, Batch], rounds: int) -> None:
    """As measure.interleave, for contenders that take their own times."""
    started = time.monotonic()
    names = list(batches)
    for name in names:
        batches[name](Series())
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(SETTLE_S)
            batches[name](row.series.setdefault(name, Series()))
    row.seconds += time.monotonic() - started


def _in_code(setup: Setup, code: str, series: Series) -> None:
    assert setup.onehop is not None
    try:
        with Client(setup.onehop.port) as client:
            answer = client.post("/api/execute", body(code=code, tools=TOOLS))
        samples, wall_s = json.loads(text_of(answer))
    except Exception as error:  # noqa: BLE001 - counted and shown, as every contender's
        series.errors += 1
        series.first_error = series.first_error or f"{type(error).__name__}: {error}"
        return
    series.samples_ms += samples
    series.wall_s += wall_s


def _by_hand(count: int, series: Series) -> None:
    with subprocess.Popen(
        [sys.executable, str(NOOP_MCP)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        channel, answers = process.stdin, process.stdout

        def say(method: str, number: int | None = None, **params: Any) -> Any:
            message = {"jsonrpc": "2.0", "method": method, "params": params}
            channel.write(
                json.dumps(message if number is None else {**message, "id": number}).encode() + b"\n"
            )
            channel.flush()
            return None if number is None else json.loads(answers.readline())["result"]

        about = {"name": "bench", "version": "1"}
        say("initialize", 0, protocolVersion="2025-06-18", capabilities={}, clientInfo=about)
        say("notifications/initialized")
        began = time.perf_counter()
        for number in range(1, count + 1):
            begun = time.perf_counter()
            result = say("tools/call", number, name="noop", arguments={})
            series.samples_ms.append((time.perf_counter() - begun) * 1000)
            assert result["structuredContent"] == {"result": 1}
        series.wall_s += time.perf_counter() - began
        channel.close()


def _suspended(setup: Setup, count: int, series: Series) -> None:
    assert setup.onehop is not None
    tool = {"name": "noop", "parameters": {"type": "object", "properties": {}}}
    try:
        with Client(setup.onehop.port) as client:
            answer = client.post("/api/execute", body(code=SUSPENDED.format(count=count), tools=[tool]))
            path = f"/api/executions/{answer['id']}/tool_results"
            while answer["status"] == "tool_call_required":
                begun = time.perf_counter()
                answer = client.post(
                    path, body(results=[{"id": one["id"], "result": 1} for one in answer["tool_calls"]])
                )
                took_s = time.perf_counter() - begun
                if answer["status"] == "tool_call_required":  # the last one ends a sandbox, too
                    series.samples_ms.append(took_s * 1000)
                    series.wall_s += took_s
        text_of(answer)
    except Exception as error:  # noqa: BLE001 - counted and shown, as every contender's
        series.errors += 1
        series.first_error = series.first_error or f"{type(error).__name__}: {error}"


def _over_http(contender: Contender, series: Series) -> None:
    batch(contender, series, contender.count)
