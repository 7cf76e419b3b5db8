"""A server of MCP that keeps no promise, by hand: its standard library only, one bad habit per tool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

HABITS = sys.argv[1:]
IMAGE = "iVBORw0KGgo="  # "\x89PNG\r\n\x1a\n"


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def answer(number: Any, result: Any) -> None:
    say({"jsonrpc": "2.0", "id": number, "result": result})


def text(*texts: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": one} for one in texts]}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [
    tool("noop"), tool("echo", annotations={"idempotentHint": True}), tool("pid"), tool("variables"),
    tool("die", annotations={"readOnlyHint": True}), tool("die-writing"), tool("hang"), tool("flood"), tool("large"),
    tool("larger"), tool("garbage"), tool("error"), tool("refuse"), tool("nonsense"), tool("change"),
    tool("orphan"), tool("stderr"), tool("nan"), tool("shuffled"), tool("blocks"), tool("badimage"), tool("json"),
    tool("requests"), tool("promised", outputSchema=NUMBER), tool("broken", outputSchema=NUMBER),
    tool("texted", outputSchema=NUMBER), tool("unstructured", outputSchema=NUMBER),
    tool("badschema", inputSchema={"type": "object", "properties": {"a": {"type": 42}}}, outputSchema={"type": "object", "properties": {"a": {"type": 42}}}),
    tool("wants", inputSchema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
    tool("elsewhere", inputSchema={"type": "object", "properties": {"n": {"$ref": "http://127.0.0.1:1/x"}}}),
    tool("delete-all", annotations={"destructiveHint": True}),
    tool("append", annotations={"readOnlyHint": False, "destructiveHint": False}),
]  # fmt: skip
more: list[dict[str, Any]] = []


def call(number: Any, name: str, arguments: dict[str, Any]) -> None:
    match name:
        case "noop" | "wants" | "badschema" | "elsewhere" | "new":
            answer(number, text("ok"))
        case "echo":
            answer(number, {"content": [], "structuredContent": arguments})
        case "pid":
            answer(number, text(str(os.getpid())))
        case "variables":
            answer(number, {"content": [], "structuredContent": dict(os.environ)})
        case "die" | "die-writing":
            mark = arguments.get("mark", "") and os.path.join(os.environ["TMPDIR"], arguments["mark"])
            if mark and os.path.exists(mark):
                answer(number, text("the second time"))
                return
            if mark:
                open(mark, "w").close()
            sys.stderr.write("my last words\n")
            sys.stderr.flush()
            os._exit(3)
        case "hang":
            time.sleep(1000)
        case "flood":
            for n in range(1_000_000):
                say({"jsonrpc": "2.0", "method": "notifications/progress",
                     "params": {"progressToken": "x", "progress": n}})  # fmt: skip
        case "requests":
            for n in range(1_000_000):
                say({"jsonrpc": "2.0", "id": f"r{n}", "method": "sampling/createMessage", "params": {}})
        case "large":
            answer(number, text("x" * int(arguments["bytes"])))
        case "larger":
            while True:
                sys.stdout.write("x" * (1 << 20))
        case "garbage":
            sys.stdout.write("Welcome to the server!\n\x00\xff\n[]\n{}\n")
            answer(number, text("after garbage"))
        case "error":
            answer(number, {**text("it is raining"), "isError": True})
        case "refuse":
            say({"jsonrpc": "2.0", "id": number, "error": {"code": -32602, "message": "n is missing"}})
        case "nonsense":
            answer(number, {"content": [{"type": "text"}]})
        case "change":
            more[:] = [tool("new")]
            for _ in range(arguments.get("times", 1)):
                say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            answer(number, text("changed"))
        case "orphan":
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
            answer(number, text(str(child.pid)))
        case "stderr":
            sys.stderr.write("y" * 10_000_000)
            answer(number, text("shouted"))
        case "shuffled":
            say({"result": text("ok"), "id": number, "jsonrpc": "2.0"})
        case "nan":
            sys.stdout.write(
                f'{{"jsonrpc":"2.0","id":{number},"result":{{"content":[],"structuredContent":{{"x":NaN}}}}}}\n'
            )
            sys.stdout.flush()
        case "blocks":
            answer(number, {"content": [
                {"type": "text", "text": "one"},
                {"type": "image", "data": IMAGE, "mimeType": "image/png"},
                {"type": "resource", "resource": {"uri": "file:///a/note.txt", "text": "a note"}},
                {"type": "resource", "resource": {"uri": "file:///a/../data.bin?x", "blob": "AAEC"}},
                {"type": "resource_link", "uri": "file:///b", "name": "b"},
            ]})  # fmt: skip
        case "badimage":
            answer(number, {"content": [{"type": "image", "data": "no base64!", "mimeType": "image/png"}]})
        case "json":
            answer(number, text('{"a": [1, 2]}'))
        case "promised":
            answer(number, {"content": [], "structuredContent": {"n": 1}})
        case "broken":
            answer(number, {"content": [], "structuredContent": {"n": "one"}})
        case "texted":
            answer(number, text('{"n": 2}'))
        case "unstructured":
            answer(number, text("two"))
        case _:
            say({"jsonrpc": "2.0", "id": number, "error": {"code": -32602, "message": f"no tool {name}"}})


def main() -> None:
    if "silent" in HABITS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    if "quits" in HABITS:
        sys.exit("I do not want to")
    for line in sys.stdin:
        message = json.loads(line)
        number, method = message.get("id"), message.get("method")
        if number is None:
            continue
        if method == "initialize":
            version = message["params"]["protocolVersion"]
            about = {"name": "hostile", "version": "1"}
            capabilities = {"tools": {"listChanged": True}}
            answer(number, {"protocolVersion": version, "capabilities": capabilities, "serverInfo": about})
        elif method == "tools/list":
            if "badlist" in HABITS:
                answer(number, {"tools": [{"name": 3}]})
            elif "pages" in HABITS:
                answer(number, {"tools": [tool("noop")], "nextCursor": "again"})
            else:
                answer(number, {"tools": TOOLS + more})
        elif method == "tools/call":
            call(number, message["params"]["name"], message["params"].get("arguments") or {})
        else:
            say({"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "no such method"}})


main()
