"""examples/twenty_calls.py does what it prints: with small delays here, whose sums are lower bounds of the times."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from onehop.environments import Environment
from tests.cli.processes import variables

EXAMPLE = Path(__file__).parents[2] / "examples" / "twenty_calls.py"
NETWORK_MS, MODEL_MS = 6, 10


def test_four_ways(onehop_home: Path, environment: Environment, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--network-ms", str(NETWORK_MS), "--model-ms", str(MODEL_MS), "--audit"],
        cwd=tmp_path,
        env=variables(ONEHOP_HOME=str(onehop_home), PYTHONWARNINGS="error"),
        capture_output=True,
        text=True,
        timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Model: scripted,\n{MODEL_MS} ms a turn" in done.stdout
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]
    head, classic, replay, client_tools, server_tools = rows
    assert head[1:6] == ["client hops", "model turns", "program runs", "tool calls", "tokens"]
    assert classic[1:5] == ["21", "21", "-", "20"]
    assert replay[1:5] == ["23", "2", "21", "20"]
    assert client_tools[1:5] == ["23", "2", "1", "20"]
    assert server_tools[1:5] == ["3", "2", "1", "20"]
    assert len({row[5] for row in (replay, client_tools, server_tools)}) == 1
    assert int(classic[5].replace(",", "")) > 20 * int(server_tools[5].replace(",", ""))
    for row in (classic, replay, client_tools, server_tools):
        wall_s = float(row[6].removesuffix(" s"))
        least_s = (int(row[1]) * NETWORK_MS + int(row[2]) * MODEL_MS) / 1000
        assert wall_s >= least_s - 0.005, row  # printed in hundredths
    assert "All four say so: True." in done.stdout
    calls = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id": "call_')]
    assert len(calls) == 20
    assert {(one["name"], one["status"]) for one in calls} == {("records.follow", "ok")}
    assert len({one["arguments_sha256"] for one in calls}) == 20
    execution = re.search(r"^GET /api/executions/(exe_[\w-]+)$", done.stdout, re.MULTILINE)
    assert execution is not None
    document = json.loads(done.stdout[execution.end() :])
    assert (document["id"], document["status"]) == (execution[1], "ok")
    assert len(document["tool_calls"]) == 20
    assert document["results"][0]["text/plain"] in done.stdout.partition("All four")[0]
