"""`python -m bench.models_server PORT`: the scripted models of the rows on the loop, until SIGTERM.

`turns` calls Python TURNS - 1 times, each time with another `1+1`, and looks at what comes back; `hello` says two
words; `stamps-N` says N times of sending at 50 a second, after a first turn with code when it is offered any.
"""

from __future__ import annotations

import signal
import sys
import threading

from tests.models.script import Call, Reply, Request, Stamps, Text
from tests.models.server import ModelServer

TURNS = 11
PER_S = 50.0


def script(request: Request) -> Reply:
    name: str = request.body["model"]
    results = [one["content"] for one in request.body["messages"] if one["role"] == "tool"]
    if name == "hello":
        return [Text("Hello there", pieces=1)]
    if name == "turns":
        if any(result != "2" for result in results):
            return [Text(f"wrong: {results}")]
        if len(results) < TURNS - 1:
            return [Call("python", {"code": f"1+1  # {len(results)}"})]
        return [Text("done")]
    if request.body.get("tools") and not results:
        return [Call("python", {"code": "1+1"})]
    return [Stamps(int(name.partition("-")[2]), PER_S)]


def main() -> None:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ModelServer(script, port=int(sys.argv[1]), models=("hello", "turns")):
        ended.wait()


if __name__ == "__main__":
    main()
