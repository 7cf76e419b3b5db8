"""Mixed load for a bounded time, then a look for what it left. It measures no speed; a part of `make soak`.

Sessions and one-shots run cells that print, compute, fail, time out, flood, fork, write files and kill
their kernel. What the server holds is read before and after, each time at rest, from the outside.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from bench import server, system
from bench.client import Client, HttpError, body
from bench.parts import Budget, Outcome

MIB = 1024 * 1024
MIXED_S = 600.0
REST_TIMEOUT_S = 120.0
MEMORY_SLACK = 1.3
"""Memory of gateway and supervisor may end at this many times what it was after the warm-up …"""
MEMORY_SLACK_BYTES = 32 * MIB
"""… or at this much more, whichever is larger: allocators keep some."""
FILES_SLACK = 8


@dataclass(frozen=True)
class Kind:
    """A cell, the statuses it may end with, and what must be printed if it ends well."""

    name: str
    code: str
    statuses: tuple[str, ...]
    shows: str = ""
    timeout_s: float = 20.0
    weight: int = 10


_FIGURE = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')"
_CHILD = "import subprocess; print(subprocess.check_output(['echo', 'hi']).decode())"
_STRAY = "import subprocess; p = subprocess.Popen(['sleep', '1000']); print('left')"
_MEMORY = "x = bytearray(3 << 30); x[::4096] = b'y' * len(x[::4096])"

KINDS = (
    Kind("add", "1+1", ("ok",), "2", weight=40),
    Kind("pandas", "import pandas as pd; print(pd.Series(range(9)).mean())", ("ok",), "4.0", weight=20),
    Kind("variables", "n = globals().get('n', 0) + 1; print('n', n > 0)", ("ok",), "n True", weight=20),
    Kind("file", "open('a', 'w').write('x' * 100_000); print(len(open('a').read()))", ("ok",), "100000"),
    Kind("child", _CHILD, ("ok",), "hi"),
    Kind("error", "1/0", ("error",)),
    Kind("syntax", "def", ("error",)),
    Kind("figure", _FIGURE, ("ok",), "drawn", weight=4),
    Kind("flood", "print('y' * 3_000_000)", ("ok",), "yyy", weight=3),
    Kind("timeout", "while True: pass", ("timeout",), timeout_s=0.3, weight=3),
    Kind("stray", _STRAY, ("ok",), "left", weight=2),
    Kind("exit", "import os; os._exit(3)", ("kernel_died",), weight=2),
    Kind("memory", _MEMORY, ("out_of_memory", "error"), weight=1),
)
ENDS_SESSION = frozenset({"memory"})
ENDED = 410
"""The status for a session that ended by itself, as one that ran out of memory does."""


@dataclass
class Tally:
    """What happened, over all clients."""

    runs: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, name: str, problem: str = "") -> None:
        with self.lock:
            self.runs[name] += 1
            if problem:
                self.wrong.append(f"{name}: {problem}")


@dataclass(frozen=True)
class Holding:
    """What the server has while nothing runs."""

    server_bytes: int
    supervisor_bytes: int
    server_files: int
    supervisor_files: int
    sandboxes: int
    processes: int
    groups: int
    mounts: int


def holding(pid: int, traces: system.Traces) -> Holding:
    supervisor = system.supervisor_of(pid)
    sandboxes = system.sandboxes(pid)
    inside = {process for pids in sandboxes.values() for process in pids}
    every = [pid, *system.descendants(pid)]
    gateways = [one for one in every if one not in inside and one != supervisor]
    # The zygotes are the supervisor's children outside of sandboxes: they are neither gateway nor supervisor.
    zygotes = [one for one in system.children().get(supervisor, []) if one not in sandboxes]
    gateways = [one for one in gateways if one not in zygotes]
    return Holding(
        _private_bytes(gateways),
        _private_bytes([supervisor]),
        sum(system.open_files(one) for one in gateways),
        system.open_files(supervisor),
        len(sandboxes),
        len(every),
        len(traces.directories()),
        len(system.mounts(supervisor)),
    )


def _private_bytes(pids: list[int]) -> int:
    """0 where they are closed to this user, as the supervisor is; then its memory is not judged."""
    try:
        return system.memory(pids).private
    except PermissionError:
        return 0


def at_rest(pid: int, traces: system.Traces, limit: int) -> Holding:
    """What is held once at most `limit` sandboxes are left (the pool lets go slowly)."""
    deadline_s = time.monotonic() + REST_TIMEOUT_S
    while True:
        found = holding(pid, traces)
        if found.sandboxes <= limit or time.monotonic() > deadline_s:
            return found
        time.sleep(0.5)


def work(port: int, tally: Tally, seed: int, stop: threading.Event) -> None:
    """One client: sessions of some cells each, one-shots between them."""
    chance = random.Random(seed)
    with Client(port) as client:
        while not stop.is_set():
            try:
                if chance.random() < 0.4:
                    _once(client, tally, chance)
                else:
                    _session(client, tally, chance, stop)
            except (OSError, HttpError) as error:
                tally.note("request", f"{type(error).__name__}: {error}")
                stop.wait(0.1)


def _pick(chance: random.Random) -> Kind:
    return chance.choices(KINDS, [kind.weight for kind in KINDS])[0]


def _execute(client: Client, path: str, kind: Kind, tally: Tally) -> None:
    answer = client.post(path, body(code=kind.code, timeout_s=kind.timeout_s))
    problem = ""
    if answer["status"] not in kind.statuses:
        problem = f"status {answer['status']} ({answer.get('reason')}) {answer.get('error')}"
    elif kind.shows not in answer["stdout"] + "".join(
        result.get("text/plain", "") for result in answer["results"]
    ):
        problem = f"printed {answer['stdout'][:200]!r}"
    tally.note(kind.name, problem)


def _once(client: Client, tally: Tally, chance: random.Random) -> None:
    _execute(client, "/api/execute", _pick(chance), tally)


def _session(client: Client, tally: Tally, chance: random.Random, stop: threading.Event) -> None:
    name = client.post("/api/sessions", b"{}")["id"]
    try:
        for _ in range(chance.randrange(1, 12)):
            kind = _pick(chance)
            if stop.is_set():
                break
            _execute(client, f"/api/sessions/{name}/execute", kind, tally)
            if kind.name in ENDS_SESSION:
                break
    finally:
        try:
            client.request("DELETE", f"/api/sessions/{name}")
        except HttpError as error:
            if error.status != ENDED:
                raise


def judge(before: Holding, after: Holding) -> list[str]:
    """One line per thing that grew."""
    found = []
    for name in ("server_bytes", "supervisor_bytes"):
        old, new = getattr(before, name), getattr(after, name)
        if new > max(old * MEMORY_SLACK, old + MEMORY_SLACK_BYTES):
            found.append(f"{name} grew from {old / MIB:.0f} to {new / MIB:.0f} MiB")
    for name in ("server_files", "supervisor_files"):
        # Each ready sandbox holds a handful of the supervisor's descriptors: compared at equal numbers.
        old, new = getattr(before, name), getattr(after, name)
        if new > old + FILES_SLACK and after.sandboxes <= before.sandboxes:
            found.append(f"{name} grew from {old} to {new}")
    for name in ("sandboxes", "groups", "mounts"):
        old, new = getattr(before, name), getattr(after, name)
        if new > old:
            found.append(f"{name} grew from {old} to {new}")
    return found


def run(budget: Budget, *, clients: int = 8, seed: int = 1) -> Outcome:
    """Ten minutes of it."""
    outcome = Outcome()
    tally = Tally()
    seconds = min(MIXED_S, max(5.0, budget.left_s()))
    with server.Home() as home, server.onehop_server(home) as running:
        _load(running.port, Tally(), clients, seed, min(20.0, seconds / 4))  # caches fill
        traces = system.Traces.of(running.pid)
        fewest = 3  # pool_min and the one that is being made
        before = at_rest(running.pid, traces, fewest)
        _load(running.port, tally, clients, seed, seconds)
        after = at_rest(running.pid, traces, max(before.sandboxes, fewest))
        print(f"  before {before}\n  after  {after}", flush=True)
        outcome.problems += judge(before, after)
        outcome.problems += [f"empty control group {path}" for path in traces.empty_groups()]
        if not running.alive():
            outcome.problems.append(f"the server ended: {running.log_tail()}")
        took_s = running.stop()
        if running.returncode not in (0, -signal.SIGTERM, 143):
            outcome.problems.append(f"the server ended with {running.returncode}: {running.log_tail()}")
    outcome.problems += [f"after the end there is still {line}" for line in traces.left()]
    outcome.problems += tally.wrong
    outcome.figures += [
        ("seconds, clients", f"{seconds:.0f}, {clients}"),
        ("executions", f"{sum(tally.runs.values())}"),
        ("of these, by kind of cell", ", ".join(f"{name} {n}" for name, n in tally.runs.most_common())),
        ("wrong answers", f"{len(tally.wrong)}"),
        ("memory of server and supervisor, before", _mib(before)),
        ("memory of server and supervisor, after", _mib(after)),
        ("seconds to stop", f"{took_s:.1f}"),
    ]
    return outcome


def _mib(held: Holding) -> str:
    return f"{held.server_bytes / MIB:.0f} and {held.supervisor_bytes / MIB:.0f} MiB"


def _load(port: int, tally: Tally, clients: int, seed: int, seconds: float) -> None:
    stop = threading.Event()
    threads = [
        threading.Thread(target=work, args=(port, tally, seed * 1000 + number, stop))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline_s:
            time.sleep(min(15.0, max(0.0, deadline_s - time.monotonic())))
            print(f"  {sum(tally.runs.values())} executions, {len(tally.wrong)} wrong", flush=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
