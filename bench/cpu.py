"""CPU time, page faults and context switches per execution, by process: figures that a busy machine blurs little.

`python -m bench.cpu [fresh|live] [N] [CLIENTS]` runs `1+1` N times against a server of its own, as root, and reads
/proc before and after; `calls` and `mcp` make N calls of a tool from one cell, `lambda` sends N small functions. It
must never be a target by itself: what a user feels is time, see speed.py.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench import system
from bench.calls import TOOLS
from bench.cells import ADD, WrongAnswerError
from bench.client import Client, body, run
from bench.server import Home, onehop_server

WARM_UP = 20
CALLS = """
call = tools.{tool}.noop
for _ in range({count}):
    call()
"""
CALLED = {"calls": "noop_tools", "mcp": "noop_mcp"}
LAMBDA = "lambda x: sum(x) if isinstance(x, list) else 0"
REST_S = 1.0
"""After the last answer: sandboxes end and others are made in their place."""


@dataclass(frozen=True)
class Use:
    """Of one process (all its threads), or of its children that it has waited for."""

    cpu_ms: float
    faults: int
    switches: int = 0

    def since(self, before: Use, count: int) -> str:
        cpu_ms = (self.cpu_ms - before.cpu_ms) / count
        faults, switches = (self.faults - before.faults) / count, (self.switches - before.switches) / count
        return f"{cpu_ms:8.3f} ms {faults:8.1f} faults" + (f" {switches:6.1f} switches" if switches else "")


def _own(pid: int) -> Use:
    """schedstat and status of each thread, minflt of stat (proc(5))."""
    cpu_ns = switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                switches += int(line.split()[1])
    return Use(cpu_ns / 1e6, int(_stat(pid)[7]), switches)


def _children(pid: int) -> Use:
    fields = _stat(pid)
    return Use((int(fields[13]) + int(fields[14])) * 1000 / os.sysconf("SC_CLK_TCK"), int(fields[8]))


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _processes(server_pid: int) -> dict[str, int]:
    supervisor = system.supervisor_of(server_pid)
    depth = system.namespace_depth(supervisor)
    found = {"supervisor": supervisor}
    for pid in system.descendants(server_pid):
        if "onehop.cli.gateway" in system.command_line(pid):
            found["gateway"] = pid
        elif system.namespace_depth(pid) == depth and "onehop.zygote.seed" in system.command_line(pid):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found["seed" if name == "onehop-seed" else "zygote"] = pid
    return found


def _look(processes: dict[str, int]) -> dict[str, Use]:
    uses = {name: _own(pid) for name, pid in processes.items()}
    uses["inits, reaped"] = _children(processes["supervisor"])
    uses["kernels, reaped"] = _children(processes["zygote"])
    return uses


def measure(kind: str, count: int, clients: int) -> list[str]:
    """One line per process. `kind` is `fresh` or `live`; a live kernel's own part is in its execution's usage."""
    with Home() as home, onehop_server(home) as server, Client(server.port) as client:
        path = "/api/execute"
        if kind == "live":
            path = f"/api/sessions/{client.post('/api/sessions', b'{}')['id']}/execute"
        request = body(code=ADD.code)
        for _ in range(WARM_UP):
            run(client, path, request, ADD)
        time.sleep(REST_S)
        processes = _processes(server.pid)
        before = _look(processes)

        def loop() -> None:
            with Client(server.port) as own:
                for _ in range(count // clients):
                    run(own, path, request, ADD)

        threads = [threading.Thread(target=loop) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(REST_S)
        after = _look(processes)
        total = sum(after[name].cpu_ms - before[name].cpu_ms for name in before) / count
        lines = [f"{name:16} {after[name].since(before[name], count)}" for name in before]
        return [*lines, f"{'all':16} {total:8.3f} ms for each of {count}, {clients} clients"]


def profile(kind: str, count: int) -> list[str]:
    """One line per process that was at work. `kind` is `calls`, `mcp` or `lambda`."""
    with Home() as home, onehop_server(home) as server, Client(server.port) as client:
        if kind in CALLED:
            path = f"/api/sessions/{client.post('/api/sessions', b'{}')['id']}/execute"
            warm_up, request = (
                body(code=CALLS.format(tool=CALLED[kind], count=some), tools=TOOLS, timeout_s=60)
                for some in (WARM_UP, count)
            )
            times = 1
        else:
            path, times = "/api/lambda", count
            warm_up = request = body(code=LAMBDA, args=[[1, 2, 3]])
        for _ in range(WARM_UP):
            client.post(path, warm_up)
        time.sleep(REST_S)
        before = {pid: _own(pid) for pid in system.descendants(server.pid)}
        began = time.perf_counter()
        for _ in range(times):
            answer = client.post(path, request)
            if answer["status"] != "ok":
                raise WrongAnswerError(str(answer)[:500])
        took_ms = (time.perf_counter() - began) * 1000
        rows = [
            (_label(pid, server.pid), _own(pid), use)
            for pid, use in before.items()
            if Path(f"/proc/{pid}").exists()
        ]
    busy = [one for one in rows if one[1].cpu_ms - one[2].cpu_ms > took_ms / 100]
    lines = [
        f"{name:24} {after.since(use, count)}" for name, after, use in sorted(busy, key=lambda one: one[0])
    ]
    return [*lines, f"{'time':24} {took_ms / count:8.3f} ms for each of {count}"]


def _label(pid: int, server_pid: int) -> str:
    module = re.search(r"-m (onehop\.[\w.]+)", system.command_line(pid))
    inside = system.namespace_depth(pid) > system.namespace_depth(system.supervisor_of(server_pid))
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return f"in a sandbox: {name}" if inside else module[1] if module else name


def main() -> int:
    if os.geteuid() != 0:
        print("bench.cpu needs root: the processes are closed to others", file=sys.stderr)
        return 2
    kind, count, clients = (*sys.argv[1:], *("fresh", "400", "1")[len(sys.argv) - 1 :])
    if kind in (*CALLED, "lambda"):
        print("\n".join(profile(kind, int(count))))
        return 0
    for line in measure(kind, int(count), 1 if kind == "live" else int(clients)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
