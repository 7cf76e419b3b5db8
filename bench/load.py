"""200 sessions, 50 of them at work at every moment, for five minutes: how long `1+1` takes, and what goes wrong.

Cells are mixed as people's are: most wait for something, some compute, some draw or write. The 50 clients are
threads of this process on the same machine, so their cost is in every figure.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from bench import server, system
from bench.client import Client, HttpError, body
from bench.mixed import at_rest, judge
from bench.parts import Budget, Outcome, percentile, spread

SESSIONS = 200
AT_WORK = 50
LOAD_S = 300.0
P99_MS = 150.0
ADD = "1+1"
CELLS: tuple[tuple[str, str, str, int], ...] = (
    ("add", ADD, "2", 30),
    ("wait", "import time; time.sleep(1.0); print('waited')", "waited", 45),
    ("variable", "n = globals().get('n', 0) + 1; print('n', n > 0)", "n True", 10),
    ("pandas", "import pandas as pd; print(pd.Series(range(9)).mean())", "4.0", 6),
    ("file", "open('a', 'w').write('x' * 100_000); print(len(open('a').read()))", "100000", 5),
    ("compute", "print(sum(i * i for i in range(200_000)) > 0)", "True", 3),
    ("figure", "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show(); print('drawn')", "drawn", 1),
)
"""Name, code, what must be shown, weight."""


@dataclass
class Taken:
    """By all clients."""

    add_ms: list[float] = field(default_factory=list)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def run(budget: Budget) -> Outcome:
    outcome = Outcome()
    with server.Home() as home, server.onehop_server(home) as running:
        traces = system.Traces.of(running.pid)
        _phase(running.port, Taken(), sessions=8, at_work=4, seconds=min(10.0, budget.left_s()))
        before = at_rest(running.pid, traces, 3)
        taken = Taken()
        seconds = min(LOAD_S, max(5.0, budget.left_s()))
        _phase(running.port, taken, sessions=SESSIONS, at_work=AT_WORK, seconds=seconds)
        after = at_rest(running.pid, traces, max(before.sandboxes, 3))
        # Results of the load are kept for days: the memory of the one that answers for them is not judged by it.
        outcome.problems += judge(before, after)
        if not running.alive():
            outcome.problems.append(f"the server ended: {running.log_tail()}")
        running.stop()
    outcome.problems += [f"after the end there is still {line}" for line in traces.left()]
    outcome.problems += taken.wrong
    p99_ms = percentile(taken.add_ms, 0.99)
    if p99_ms > P99_MS:
        outcome.problems.append(f"p99 of 1+1 is {p99_ms:.0f} ms, more than {P99_MS:.0f} ms")
    outcome.figures += [
        ("sessions, at work at once, seconds", f"{SESSIONS}, {AT_WORK}, {seconds:.0f}"),
        ("executions, a second", f"{taken.runs}, {taken.runs / max(seconds, 0.001):.0f}"),
        ("`1+1`: p50 / p95 / p99 / most", f"{spread(taken.add_ms)} ({len(taken.add_ms)} samples)"),
        ("errors and wrong answers", f"{len(taken.wrong)}"),
    ]
    return outcome


def _phase(port: int, taken: Taken, *, sessions: int, at_work: int, seconds: float) -> None:
    each = sessions // at_work
    start = threading.Barrier(at_work + 1)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_work, args=(port, taken, number, each, start, stop))
        for number in range(at_work)
    ]
    for thread in threads:
        thread.start()
    try:
        start.wait(120)
        deadline_s = time.monotonic() + seconds
        while time.monotonic() < deadline_s:
            time.sleep(min(15.0, max(0.0, deadline_s - time.monotonic())))
            print(f"  {taken.runs} executions, {len(taken.wrong)} wrong", flush=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _work(
    port: int, taken: Taken, seed: int, each: int, start: threading.Barrier, stop: threading.Event
) -> None:
    """One client with `each` sessions, one of which is always at work."""
    chance = random.Random(seed)
    weights = [weight for *_, weight in CELLS]
    bodies = {name: body(code=code) for name, code, *_ in CELLS}
    with Client(port) as client:
        names = [client.post("/api/sessions", b"{}")["id"] for _ in range(each)]
        start.wait(120)
        while not stop.is_set():
            name, _, shows, _ = chance.choices(CELLS, weights)[0]
            path = f"/api/sessions/{chance.choice(names)}/execute"
            try:
                client.connect()
                started_s = time.perf_counter()
                answer = client.post(path, bodies[name])
                took_ms = (time.perf_counter() - started_s) * 1000
            except (OSError, HttpError) as error:
                with taken.lock:
                    taken.wrong.append(f"{name}: {type(error).__name__}: {error}")
                continue
            shown = answer["stdout"] + "".join(one.get("text/plain", "") for one in answer["results"])
            with taken.lock:
                taken.runs += 1
                if answer["status"] != "ok" or shows not in shown:
                    taken.wrong.append(f"{name}: {answer['status']} {shown[:200]!r}")
                if name == "add":
                    taken.add_ms.append(took_ms)
        for session in names:
            client.request("DELETE", f"/api/sessions/{session}")
