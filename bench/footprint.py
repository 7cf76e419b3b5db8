"""The rows on what is occupied: a session's memory, five hundred sessions, and the import of the SDK."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from bench import jupyter, processes, system
from bench.cells import ADD, DESCRIBE, WrongAnswerError
from bench.client import Client, body, text_of
from bench.measure import Row, Series, Verdict
from bench.setup import CLIENTS, MONTY, RESTRICTED, Setup

MIB = 1024 * 1024
MEMORY_SESSIONS = 20
MANY = 500
GONE_TIMEOUT_S = 30.0
T = TypeVar("T")
WHO = "import os; os.readlink('/proc/self/ns/net')"
"""A cell that names its sandbox as the host sees it."""


class Sessions:
    """Sessions that were made here, and the sandbox of each as the host sees it."""

    def __init__(self, port: int, server_pid: int) -> None:
        self.port = port
        self.server_pid = server_pid
        self.ids: list[str] = []
        self.sandboxes: dict[str, str] = {}

    def create(self, client: Client) -> None:
        self.ids.append(client.post("/api/sessions", b"{}")["id"])

    def run(self, client: Client, session: str, code: str) -> str:
        return text_of(client.post(f"/api/sessions/{session}/execute", body(code=code)))

    def delete(self, client: Client, session: str) -> None:
        client.request("DELETE", f"/api/sessions/{session}")

    def mine(self) -> list[list[int]]:
        """The pids of each sandbox that said who it is."""
        known = {name.strip("'") for name in self.sandboxes.values()}
        every = system.sandboxes(self.server_pid)
        return [pids for init, pids in every.items() if system.namespace(init) in known]


def memory(setup: Setup) -> Row:
    """Private memory of idle sessions, from outside, after nothing and after some cells ran in them."""
    row = Row("memory", "Private memory of an idle session (MiB)", unit="MiB", base="onehop, idle, warmed up")
    started = time.monotonic()
    if setup.onehop is not None:
        _onehop_memory(setup, row)
    kernel = setup.kernels.start()
    try:
        row.series[f"{jupyter.NAME}, kernel started"] = _mib([[kernel.pid, *system.descendants(kernel.pid)]])
        kernel.run(DESCRIBE)
        row.series[f"{jupyter.NAME}, after describe()"] = _mib(
            [[kernel.pid, *system.descendants(kernel.pid)]]
        )
    finally:
        kernel.close()
    workers = [pid for pid in system.descendants(setup.peers.pid) if "monty" in system.command_line(pid)]
    if workers:
        row.series[f"{MONTY}, worker"] = _mib([[pid] for pid in workers])
    row.unable[RESTRICTED] = "its sessions are dictionaries in the server's process"
    row.unable |= {processes.PYTHON: "no session stays", processes.BWRAP: "no session stays"}
    row.notes.append(
        "Private_Clean, Private_Dirty and Private_Hugetlb of /proc/PID/smaps_rollup, summed over the init "
        "and the kernel of a sandbox. Pages that only these two share are in neither sum; what one costs in "
        f"all is in the row on {MANY} sessions. Each sample is a sandbox."
    )
    row.seconds = time.monotonic() - started
    return row


def _onehop_memory(setup: Setup, row: Row) -> None:
    assert setup.onehop is not None
    sessions = Sessions(setup.onehop.port, setup.onehop.pid)
    with Client(setup.onehop.port, timeout_s=120) as client:
        try:
            for _ in range(MEMORY_SESSIONS):
                _wait_until_warm(client)
                sessions.create(client)
            _wait_until_warm(client)
            idle = _mib(list(system.sandboxes(setup.onehop.pid).values()))
            row.series["onehop, idle, warmed up"] = idle
            for session in sessions.ids:
                sessions.sandboxes[session] = sessions.run(client, session, WHO)
            for cell in (ADD, DESCRIBE):
                for session in sessions.ids:
                    cell.check(sessions.run(client, session, cell.code))
                row.series[f"onehop, after {cell.name}"] = _mib(sessions.mine())
        finally:
            for session in sessions.ids:
                sessions.delete(client, session)
    _memory_verdicts(row, idle)


def _wait_until_warm(client: Client) -> None:
    """Every waiting sandbox has run its warm-up cells: a pool in a hurry hands out cold ones, which are smaller."""
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        pool = client.request("GET", "/api/info")["environments"]["default"]
        if pool["warm"] and pool["warm"] == pool["ready"] and not pool["starting"]:
            return
        time.sleep(0.05)
    raise TimeoutError(f"the pool did not get warm: {pool}")


def _memory_verdicts(row: Row, idle: Series) -> None:
    if not idle.samples_ms:
        row.verdicts.append(Verdict("≤ 12 MiB, warm-up included", "closed to this user; run as root", None))
        return
    value = idle.at(0.5)
    row.verdicts.append(
        Verdict("≤ 12 MB, warm-up included (p50)", f"{value * MIB / 1e6:.1f} MB", value * MIB <= 12e6)
    )
    from bench import engine

    cold = engine.cold_memory()
    if isinstance(cold, str):
        row.verdicts.append(Verdict("≤ 5 MB before the warm-up", cold, None))
        return
    row.series["onehop, before warm-up"] = Series([value / MIB for value in cold])
    value = row.series["onehop, before warm-up"].at(0.5)
    row.verdicts.append(
        Verdict("≤ 5 MB before the warm-up (p50)", f"{value * MIB / 1e6:.1f} MB", value * MIB <= 5e6)
    )


def _mib(sandboxes: list[list[int]]) -> Series:
    series = Series()
    for pids in sandboxes:
        try:
            series.samples_ms.append(system.memory(pids).private / MIB)
        except PermissionError as error:  # an init is not dumpable: for its own user it is closed
            series.errors += 1
            series.first_error = series.first_error or str(error)
    return series


# --- many sessions ------------------------------------------------------------------------------------


def many_sessions(setup: Setup) -> Row:
    """Makes them all, asks each, deletes them all, and looks for what is left."""
    count = setup.count(MANY)
    row = Row("sessions", f"{count} live sessions at once", base="create")
    if setup.onehop is None:
        return row
    started = time.monotonic()
    server = setup.onehop
    supervisor = system.supervisor_of(server.pid)
    before_mounts = len(system.mounts(supervisor))
    traces = system.Traces.of(server.pid)
    available = system.available_bytes()
    sessions = Sessions(server.port, server.pid)
    row.series["create"] = _by_clients(
        server.port, list(range(count)), lambda client, _: sessions.create(client)
    )
    row.series["first cell"] = _by_clients(
        server.port, sessions.ids, lambda c, session: _ask(sessions, c, session)
    )
    used = available - system.available_bytes()
    at_once = sessions.mine()
    row.series["delete"] = _by_clients(server.port, sessions.ids, sessions.delete)
    errors = sum(series.errors for series in row.series.values())
    distinct = len(set(sessions.sandboxes.values()))
    left = _wait_until_gone(sessions, traces)
    grown = len(system.mounts(supervisor)) - before_mounts
    if grown > 0:
        left.append(f"{grown} mounts of the supervisor")
    answered = len(row.series["first cell"].samples_ms)
    row.verdicts.append(
        Verdict(
            f"{count} created, each answers, all deleted, nothing left",
            f"{len(row.series['create'].samples_ms)} created, {answered} answered from {distinct} different "
            f"sandboxes, {len(row.series['delete'].samples_ms)} deleted; {errors} errors; "
            f"left: {'; '.join(left) if left else 'nothing'}",
            # That the host shows as many sandboxes is the control for "nothing left"; as an ordinary user it
            # shows none.
            None
            if not at_once and os.geteuid() != 0
            else not left and not errors and len(at_once) == distinct == answered == count,
        )
    )
    for name, series in row.series.items():
        row.notes.append(
            f"{name}: {series.wall_s:.1f} s for all, {series.per_second:.0f} a second, {CLIENTS} clients."
        )
    per_session = used / MIB / count
    row.notes.append(
        f"At once: {sum(map(len, at_once))} processes of {len(at_once)} sandboxes; MemAvailable fell by "
        f"{used / MIB:.0f} MiB, {per_session:.1f} MiB a session, with page tables and kernel memory."
    )
    row.seconds = time.monotonic() - started
    return row


def _ask(sessions: Sessions, client: Client, session: str) -> None:
    sessions.sandboxes[session] = sessions.run(client, session, WHO)
    if "net:[" not in sessions.sandboxes[session]:
        raise WrongAnswerError(sessions.sandboxes[session])


def _wait_until_gone(sessions: Sessions, traces: system.Traces) -> list[str]:
    """What is left of the sessions after a while; empty as soon as nothing is."""
    deadline_s = time.monotonic() + GONE_TIMEOUT_S
    while True:
        left = [f"sandbox of {len(pids)} processes" for pids in sessions.mine()]
        left += [f"empty control group {path}" for path in traces.empty_groups()]
        if not left or time.monotonic() > deadline_s:
            return left
        time.sleep(0.1)


def _by_clients(port: int, items: list[T], work: Callable[[Client, T], None]) -> Series:
    """Each item once, by several clients."""
    todo: queue.SimpleQueue[T] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    series = Series()
    lock = threading.Lock()

    def loop() -> None:
        with Client(port, timeout_s=120) as client:
            while True:
                try:
                    item = todo.get_nowait()
                except queue.Empty:
                    return
                begun = time.perf_counter()
                try:
                    work(client, item)
                except Exception as error:  # noqa: BLE001 - counted and shown
                    with lock:
                        series.errors += 1
                        series.first_error = series.first_error or f"{type(error).__name__}: {error}"
                else:
                    with lock:
                        series.samples_ms.append((time.perf_counter() - begun) * 1000)

    threads = [threading.Thread(target=loop) for _ in range(CLIENTS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    series.wall_s = time.perf_counter() - begun
    return series


# --- the SDK --------------------------------------------------------------------------------------------


def sdk_import(setup: Setup) -> Row:
    """`import onehop` in a new interpreter, its own start not included."""
    row = Row("import", "`import onehop` in a new interpreter", base="import onehop")
    started = time.monotonic()
    code = "import time; a = time.perf_counter(); import onehop; print(time.perf_counter() - a)"
    series = row.series["import onehop"] = Series()
    whole = row.series["the whole process"] = Series()
    for number in range(setup.count(40) + 3):
        begun = time.perf_counter()
        printed = subprocess.check_output([sys.executable, "-c", code], text=True, env=dict(os.environ))
        if number >= 3:
            whole.samples_ms.append((time.perf_counter() - begun) * 1000)
            series.samples_ms.append(float(printed) * 1000)
    row.verdicts.append(Verdict("p50 ≤ 150 ms", f"{series.at(0.5):.2f} ms", series.at(0.5) <= 150))
    row.seconds = time.monotonic() - started
    return row
