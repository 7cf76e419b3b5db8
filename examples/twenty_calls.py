"""Twenty tool calls, each of which needs the result of the one before, made in four ways over one slow network.

    python examples/twenty_calls.py [--network-ms 50] [--model-ms 300] [--audit]

Everything runs: a server of onehop with the tool of records.py, a server with the model, and between them and the
client a proxy that holds up every byte. Only the model's mind is scripted: it reads the messages it is sent, takes
its time, and writes what a model would.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import records

Json = dict[str, Any]
FOLLOW: Json = {
    "name": "records.follow",
    "description": records.follow.__doc__,
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
}
RUN: Json = {
    "name": "run_python",
    "description": "Runs Python and answers with the last expression's value. tools.records.follow(key) can be called.",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
}
QUESTION = "Follow the records from the key 'start' to the last one. What is the sum of their amounts?"
PROGRAM = """\
key, total = "start", 0
while key:
    record = tools.records.follow(key=key)
    total += record["amount"]
    key = record["next"]
total
"""
REPLAYED = """\
import json
known = iter(json.loads(input()))
class tools:
    class records:
        def follow(key):
            for result in known:
                return result
            raise SystemExit("call " + json.dumps({"key": key}))
"""
"""For a program that is run again each round: results that are known, and an end at the first call that is not."""


# --- the network ----------------------------------------------------------------------------------------


class Network:
    """A proxy on a port of its own; what passes is held up half of `delay_s` in each direction."""

    def __init__(self, target_port: int, delay_s: float) -> None:
        self._target_port = target_port
        self._half_s = delay_s / 2
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(started)))
        self._thread.start()
        started.wait()

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await self._stop.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(self._pump(reader, there_writer)),
                    group.create_task(self._pump(there_reader, writer)),
                ]
                stop = group.create_task(self._stop.wait())
                for pump in pumps:
                    pump.add_done_callback(lambda _: stop.cancel())
                stop.add_done_callback(lambda _: [pump.cancel() for pump in pumps])
        finally:
            writer.close()
            there_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Every piece leaves so long after it came; pieces that follow closely are held up at the same time."""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                self._loop.call_later(self._half_s, writer.write, piece)
            await asyncio.sleep(2 * self._half_s)  # the last piece is still on its way

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


class Link:
    """The client's end: one connection through the network, and how many requests went over it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.hops = 0

    def post(self, path: str, body: Json) -> Json:
        self.hops += 1
        return self._request("POST", path, json.dumps(body).encode())

    def get(self, path: str) -> Json:
        return self._request("GET", path, None)

    def _request(self, method: str, path: str, body: bytes | None) -> Json:
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer: Json = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {answer}")
        return answer

    def close(self) -> None:
        self._connection.close()


# --- the model ------------------------------------------------------------------------------------------


def think(messages: list[Json], tools: list[Json]) -> Json:
    """What the scripted model says next; all that it knows stands in the messages."""
    results = [json.loads(one["content"]) for one in messages if one["role"] == "tool"]
    if tools == [RUN]:
        if not results:
            return call("run_python", {"code": PROGRAM})
        total = results[-1]["value"]
    else:
        key = results[-1]["next"] if results else "start"
        if key:
            return call("records.follow", {"key": key})
        total = sum(one["amount"] for one in results)
    return {"role": "assistant", "content": f"The sum of the amounts is {total}."}


def call(name: str, arguments: Json) -> Json:
    return {"role": "assistant", "tool_calls": [{"name": name, "arguments": arguments}]}


class Model(ThreadingHTTPServer):
    """The model behind HTTP; every turn takes `turn_s`."""

    daemon_threads = True

    def __init__(self, turn_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Turn)
        self.turn_s = turn_s
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Turn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.server.turn_s)
        body = json.dumps(think(asked["messages"], asked["tools"])).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)

    def log_message(self, *_: object) -> None:
        pass


# --- four ways ------------------------------------------------------------------------------------------


@dataclass
class Way:
    """What one way has cost."""

    name: str
    hops: int = 0
    turns: int = 0
    program_runs: int = 0
    tool_calls: int = 0
    tokens: int = 0
    wall_s: float = 0.0
    answer: str = ""
    execution: str = ""


class Client:
    """The agent's loop: asks the model, and does what it says."""

    def __init__(self, way: Way, model: Link, onehop: Link) -> None:
        self.way, self._model, self._onehop = way, model, onehop

    def talk(self, tools: list[Json], run: Callable[[Json], Json]) -> None:
        """Until the model has its answer; `run` carries out a call of the model's."""
        way = self.way
        began_s = time.perf_counter()
        messages: list[Json] = [{"role": "user", "content": QUESTION}]
        while True:
            said = self._model.post("/turn", {"messages": messages, "tools": tools})
            way.turns += 1
            way.tokens += tokens(messages) + tokens(tools) + tokens(said)
            messages.append(said)
            if "tool_calls" not in said:
                break
            (wanted,) = said["tool_calls"]
            messages.append({"role": "tool", "content": json.dumps(run(wanted["arguments"]))})
        way.answer = said["content"]
        way.wall_s = time.perf_counter() - began_s
        way.hops = self._model.hops + self._onehop.hops

    def follow(self, arguments: Json) -> Json:
        """The tool, here."""
        self.way.tool_calls += 1
        return {**records.follow(**arguments)}

    def replay(self, arguments: Json) -> Json:
        """The program from its beginning, once for each result that it needs."""
        known: list[Json] = []
        while True:
            body = {"code": REPLAYED + arguments["code"], "stdin": json.dumps(known)}
            answer = self._execute("/api/execute", body)
            self.way.program_runs += 1
            said = answer["error"]["value"] if answer["error"] else ""
            if not said.startswith("call "):
                return value(answer)
            known.append(self.follow(json.loads(said.removeprefix("call "))))

    def with_client_tools(self, arguments: Json) -> Json:
        """The program once; it stands still while the client runs the tool."""
        answer = self._execute("/api/execute", {"code": arguments["code"], "tools": [FOLLOW]})
        self.way.program_runs += 1
        while answer["status"] == "tool_call_required":
            results = [
                {"id": one["id"], "result": self.follow(one["arguments"])} for one in answer["tool_calls"]
            ]
            answer = self._execute(f"/api/executions/{answer['id']}/tool_results", {"results": results})
        return value(answer)

    def with_server_tools(self, arguments: Json) -> Json:
        """The program once, and the tool beside it."""
        answer = self._execute("/api/execute", {"code": arguments["code"], "tools": ["records.*"]})
        self.way.program_runs += 1
        self.way.tool_calls += sum(one["name"] == "records.follow" for one in answer["tool_calls"])
        return value(answer)

    def _execute(self, path: str, body: Json) -> Json:
        answer = self._onehop.post(path, body)
        self.way.execution = answer["id"]
        return answer


def value(answer: Json) -> Json:
    if answer["status"] != "ok":
        raise RuntimeError(f"the program ended with {answer['status']}: {answer['error']} {answer['reason']}")
    return {"value": int(answer["results"][-1]["text/plain"])}


def tokens(messages: Any) -> int:
    """A token for every four characters of JSON."""
    return math.ceil(len(json.dumps(messages, ensure_ascii=False, separators=(",", ":"))) / 4)


def compare(onehop_port: int, model_port: int) -> list[Way]:
    """All four ways, each over connections of its own."""
    ways = []
    for name, tools, run in (
        ("classic loop on the client", [FOLLOW], Client.follow),
        ("replay: the program is run again each round", [RUN], Client.replay),
        ("onehop, tools of the client", [RUN], Client.with_client_tools),
        ("onehop, tools of the server", [RUN], Client.with_server_tools),
    ):
        model, onehop = Link(model_port), Link(onehop_port)
        try:
            client = Client(Way(name), model, onehop)
            client.talk(tools, lambda arguments, run=run, client=client: run(client, arguments))  # type: ignore[misc]
            ways.append(client.way)
        finally:
            model.close()
            onehop.close()
    return ways


# --- around it ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server() -> Iterator[int]:
    """A server of onehop with records.py, and a state of its own; its port."""
    home = Path(os.environ.get("ONEHOP_HOME") or "~/.local/share/onehop").expanduser().absolute()
    tool = Path(records.__file__).resolve()
    with tempfile.TemporaryDirectory(prefix="twenty-calls-") as own:
        (Path(own) / "environments").symlink_to(home / "environments")
        variables = {name: value for name, value in os.environ.items() if not name.startswith("ONEHOP_")}
        command = [
            sys.executable,
            "-m",
            "onehop.cli.main",
            "serve",
            "--port",
            "0",
            "--json",
            "--tools",
            str(tool),
        ]
        process = subprocess.Popen(
            command, env={**variables, "ONEHOP_HOME": own}, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            if not ready:
                raise SystemExit("the server did not start")
            yield int(json.loads(ready)["url"].rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
            (Path(own) / "environments").unlink()


def table(ways: list[Way]) -> str:
    head = ("way", "client hops", "model turns", "program runs", "tool calls", "tokens", "wall time")
    rows = [
        (way.name, str(way.hops), str(way.turns), str(way.program_runs or "-"), str(way.tool_calls), f"{way.tokens:,}",
         f"{way.wall_s:.2f} s") for way in ways
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in (head, *rows)]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def audit(port: int, way: Way) -> str:
    """The audit of a way's execution, and the execution."""
    with contextlib.closing(Link(port)) as link:
        while (
            len(calls := link.get(f"/api/executions/{way.execution}/tool_calls")["tool_calls"])
            < way.tool_calls
        ):
            time.sleep(0.05)  # the audit is written in batches
        execution = link.get(f"/api/executions/{way.execution}")
    shown = "\n".join(json.dumps(one) for one in calls)
    return (
        f"\nGET /api/executions/{way.execution}/tool_calls\n{shown}\n"
        f"\nGET /api/executions/{way.execution}\n{json.dumps(execution, indent=1)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network-ms", type=float, default=50.0, help="there and back (default: 50)")
    parser.add_argument("--model-ms", type=float, default=300.0, help="of a turn (default: 300)")
    parser.add_argument(
        "--audit", action="store_true", help="show the calls of the last way, and its execution"
    )
    asked = parser.parse_args()
    model = Model(asked.model_ms / 1000)
    with contextlib.ExitStack() as stack:
        stack.callback(model.close)
        port = stack.enter_context(server())
        networks = [Network(one, asked.network_ms / 1000) for one in (port, model.server_port)]
        for network in networks:
            stack.callback(network.close)
        with contextlib.closing(
            Link(port)
        ) as first:  # whoever comes first waits for sandboxes and tools to be ready
            first.post("/api/execute", {"code": "tools.records.follow(key='start')", "tools": ["records.*"]})
        ways = compare(networks[0].port, networks[1].port)
        print(
            f"{records.COUNT} tool calls, each needs the result of the one before. Network: {asked.network_ms:g} ms "
            f"there and back, by a proxy. Model: scripted,\n{asked.model_ms:g} ms a turn, reached over the same "
            "network. Tokens: all that each turn reads and writes, one for every 4 characters of JSON.\n"
        )
        print(table(ways))
        print(f"\n{ways[-1].answer} All four say so: {len({way.answer for way in ways}) == 1}.")
        if asked.audit:
            print(audit(port, ways[-1]))


if __name__ == "__main__":
    main()
