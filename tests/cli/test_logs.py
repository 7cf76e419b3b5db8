"""The log of a whole server as JSON: every process writes one object per line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

from onehop.supervisor.lines import line
from tests.cli.processes import END_S, Server, wait_until


def test_every_process_logs_json(serve: Callable[..., Server]) -> None:
    server = serve("--log-format", "json", "--access-log")
    answer = server.call("POST", "/api/execute", {"code": "print('s3cret')"})
    # The answer leaves before its line is written: a gateway killed in between has nothing to say about it.
    wait_until(lambda: answer["id"] in server.said(), END_S, "the request in the log")
    os.kill(server.gateway(), signal.SIGKILL)
    server.call("GET", "/api/info")
    os.kill(server.shim(), signal.SIGKILL)
    server.wait_for_screen()
    server.close()
    found = [json.loads(one) for one in server.said().splitlines()]
    assert {"onehop.serve", "onehop.access"} <= {one["logger"] for one in found}
    assert answer["id"] in {one.get("execution") for one in found}
    assert [one for one in found if "starting it again" in one["message"]]
    assert found[-1]["message"] == "ended"
    assert "s3cret" not in server.said()


def test_a_line_of_the_supervisor_cannot_be_forged() -> None:
    text = "x\nonehop supervisor: forged\x1b[2J" + "y" * 10_000
    plain = line("supervisor", text, "text")
    assert plain.startswith("onehop supervisor: x\\nonehop supervisor: forged\\x1b[2J")
    assert plain.count("\n") == 1
    assert len(plain) < 5000
    document = line("supervisor", text, "json")
    assert document.count("\n") == 1
    assert json.loads(document)["message"].startswith("x\nonehop")
