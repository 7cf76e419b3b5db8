"""The suites of tests/faults with large numbers: kills of every process, stops, leaks and noisy tenants."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from bench import server as servers
from bench.parts import Budget, Outcome, percentile, spread
from tests.faults import attacks, deaths, leaks, stops, walks
from tests.faults.endings import ENDINGS
from tests.faults.server import FaultServer

GATEWAY_KILLS = 300
DEATHS = 200
SUPERVISOR_KILLS = 10
LEAK_ROUNDS = 25
STOP_S = 10.0
NOISE_S = 8.0
HEALTHY_S, EXECUTED_S = 3.0, 10.0
GATEWAY_GROWTH_BYTES = 64 << 20
MIB = 1 << 20


@contextlib.contextmanager
def fault_server(*flags: str) -> Iterator[FaultServer]:
    with servers.Home() as home, tempfile.TemporaryDirectory(prefix="bench-faults-") as folder:
        server = FaultServer(home.path, Path(folder), *flags)
        try:
            server.wait_for_screen()
            yield server
        finally:
            server.close()


def gateway_kills(budget: Budget) -> Outcome:
    """Each named point in turn and random walks in between, under the model."""
    outcome = Outcome()
    with fault_server() as server:
        rounds = 0
        while server.kills < GATEWAY_KILLS and not budget.over():
            for point in walks.POINTS:
                if not budget.over():
                    walks.past(server, point, 1 + rounds % 2)
            _walks(server, seed=rounds)
            rounds += 1
            print(f"  {server.kills} kills", flush=True)
        if "Traceback" in server.said():
            outcome.problems.append(f"a traceback: {server.said()[-2000:]}")
        outcome.figures += [
            ("kills -9 of the gateway", f"{server.kills} (at least {GATEWAY_KILLS} asked for)"),
            ("of these at named points", f"{len(walks.POINTS)} points, {rounds} rounds"),
            ("lost sessions, lost or doubled results", "0"),
        ]
    return outcome


def _walks(server: FaultServer, *, seed: int) -> None:
    @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(walks.steps)
    def walk(steps: list[walks.Step]) -> None:
        walks.walk(server, steps)

    walk()


def kernel_kills(budget: Budget) -> Outcome:
    """Kernels at work and between two executions, whole sandboxes, zygotes."""
    outcome = Outcome()
    kernels_ms: list[float] = []
    sandboxes_ms: list[float] = []
    between = zygotes = 0
    with fault_server() as server, server.client() as client:
        for number in range(DEATHS):
            if budget.over():
                break
            if number % 20 == 19:
                deaths.zygote_killed(server, client)
                zygotes += 1
            elif number % 5 == 3:
                deaths.kernel_killed_between(server, client)
                between += 1
            elif number % 5 == 1:
                sandboxes_ms.append(deaths.sandbox_killed(server, client) * 1000)
            else:
                kernels_ms.append(deaths.kernel_killed(server, client) * 1000)
    told = [*kernels_ms, *sandboxes_ms]
    late = [value for value in told if value > deaths.PROMISED_S * 1000]
    if late:
        outcome.problems.append(f"{len(late)} of {len(told)} deaths were told after more than 100 ms: {late}")
    outcome.figures += [
        ("kills of kernels at work, between executions", f"{len(kernels_ms)}, {between}"),
        ("of whole sandboxes, of zygotes", f"{len(sandboxes_ms)}, {zygotes}"),
        ("a kernel's death told after, p50 / p95 / p99 / most", spread(kernels_ms)),
        ("a sandbox's death told after, p50 / p95 / p99 / most", spread(sandboxes_ms)),
        ("wrong causes, failed next requests", "0"),
    ]
    return outcome


def supervisor_kills(budget: Budget) -> Outcome:
    outcome = Outcome()
    healthy_s: list[float] = []
    executed_s: list[float] = []
    with fault_server() as server:
        for number in range(SUPERVISOR_KILLS):
            if budget.over():
                break
            took = deaths.supervisor_killed(server, server.shim() if number % 3 == 2 else server.supervisor())
            healthy_s.append(took.healthy_s)
            executed_s.append(took.executed_s)
            # A master that is asked again and again takes its time, by design: as in life, the next comes later.
            if number + 1 < SUPERVISOR_KILLS:
                _let_it_settle(server, budget)
    for what, values, most in (
        ("/healthz", healthy_s, HEALTHY_S),
        ("the first execution", executed_s, EXECUTED_S),
    ):
        if values and max(values) > most:
            outcome.problems.append(f"{what} was back after {max(values):.1f} s, promised are {most:g} s")
    outcome.figures += [
        ("kills of the supervisor or its shim", f"{len(healthy_s)} of {SUPERVISOR_KILLS}"),
        ("/healthz back after, p50 / p95 / p99 / most", spread(healthy_s, "s")),
        ("first execution after, p50 / p95 / p99 / most", spread(executed_s, "s")),
        ("left behind", "nothing"),
    ]
    return outcome


def _let_it_settle(server: FaultServer, budget: Budget) -> None:
    with server.client() as client:
        attacks.neighbour(client, deaths.session(client), min(31.0, budget.left_s()))


def stopped_supervisor(budget: Budget) -> Outcome:
    """SIGSTOP for ten seconds, five times."""
    outcome = Outcome()
    times = 0
    with fault_server() as server, server.client() as client:
        before = server.supervisor(), server.gateway()
        while times < 5 and not budget.over():
            stops.supervisor_stopped(server, client, STOP_S)
            times += 1
        if (server.supervisor(), server.gateway()) != before:
            outcome.problems.append("a process did not live through it")
    outcome.figures.append((f"SIGSTOP of the supervisor for {STOP_S:g} s, all went on", f"{times} times"))
    return outcome


def leftovers(budget: Budget) -> Outcome:
    """The machine before and after sessions of every way to end."""
    outcome = Outcome()
    rounds = 0
    with fault_server("--pool-min", "2", "--pool-max", "2", "--grace-s", "0.2") as server:

        def every_way() -> None:
            with server.client() as client:
                for ending in ENDINGS:
                    ending(server, client)

        every_way()
        before = leaks.at_rest(server)
        while rounds < LEAK_ROUNDS and not budget.over():
            every_way()
            rounds += 1
            print(f"  {rounds} rounds of {len(ENDINGS)} endings", flush=True)
        after = leaks.at_rest(server, before)
        outcome.problems += leaks.grown(before, after)
        life = leaks.Life(server)
        server.close()
        outcome.problems += [f"after the end there is still {line}" for line in life.left()]
    outcome.figures += [
        ("ways to end, rounds", f"{len(ENDINGS)}, {rounds}"),
        ("counted", ", ".join(f"{name} {value}" for name, value in after.items())),
        ("more than before", "; ".join(leaks.grown(before, after)) or "nothing"),
    ]
    return outcome


def noisy_tenants(budget: Budget) -> Outcome:
    """The p99 of a neighbour's `1+1` under each attack, against its p99 before."""
    outcome = Outcome()
    with fault_server() as server, server.client() as client:
        held = any(
            row["name"] == "cgroup cpu" and row["state"] == "active"
            for row in server.describe()["protections"]
        )
        outcome.figures.append(
            ("cpu control group", "active" if held else "missing: figures are only reported")
        )
        for name in attacks.ATTACKS:
            if budget.over():
                break
            noticed = attacks.attack(server, client, name, NOISE_S)
            quiet_ms, noisy_ms = (percentile(one, 0.99) for one in (noticed.quiet_ms, noticed.noisy_ms))
            growth = noticed.gateway_growth_bytes
            outcome.figures.append(
                (
                    f"{name}: p99 without, with; gateway's growth",
                    f"{quiet_ms:.1f} ms, {noisy_ms:.1f} ms ({noisy_ms / quiet_ms:.1f}x); {growth / MIB:.0f} MiB",
                )
            )
            print(f"  {outcome.figures[-1]}", flush=True)
            if held and noisy_ms > 2 * quiet_ms:
                outcome.problems.append(
                    f"{name}: the neighbour's p99 is {noisy_ms / quiet_ms:.1f} times what it was"
                )
            if growth > GATEWAY_GROWTH_BYTES:
                outcome.problems.append(f"{name}: the gateway grew by {growth / MIB:.0f} MiB")
    return outcome
