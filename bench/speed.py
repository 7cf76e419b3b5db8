"""The rows on time: a fresh sandbox per request, alone and by eight clients, and a live session."""

from __future__ import annotations

from bench import processes
from bench.cells import ADD, DESCRIBE, IMPORTS, Cell
from bench.measure import ONEHOP, Contender, Row, Verdict, interleave
from bench.setup import CLIENTS, JUPYTER_LIVE, JUPYTER_NEW, LIVE, MONTY, NOOP, RESTRICTED, Setup

PACE_S = 0.05
NO_SESSION = "a process per request keeps no variables"
NO_PACKAGES = "Monty is an interpreter of its own and cannot import numpy or pandas"


def fresh_add(setup: Setup) -> Row:
    row = Row("fresh-add", "Fresh sandbox per request, requests 50 ms apart: `1+1`")
    return _fresh(setup, row, ADD, count=80, peers=20, kernels=2)


def fresh_describe(setup: Setup) -> Row:
    row = Row(
        "fresh-describe", "Fresh sandbox per request, requests 50 ms apart: pandas `describe()` printed"
    )
    return _fresh(setup, row, DESCRIBE, count=80, peers=3, kernels=1)


def _fresh(setup: Setup, row: Row, cell: Cell, *, count: int, peers: int, kernels: int) -> Row:
    contenders = [
        *setup.fresh(cell, count, pace_s=PACE_S),
        *setup.live(cell, count, pace_s=PACE_S),
        setup.process(setup.python, cell, peers, pace_s=PACE_S),
        *_bwrap(setup, row, cell, peers, pace_s=PACE_S),
        setup.new_kernels(cell, kernels),
        setup.live_kernel(cell, 20, pace_s=PACE_S),
    ]
    contenders += _in_process(setup, row, cell, 20, pace_s=PACE_S)
    interleave(row, contenders, rounds=setup.rounds)
    fresh, live = row.series.get(ONEHOP), row.series.get(LIVE)
    if fresh and live and fresh.samples_ms and live.samples_ms:
        for share, most in ((0.5, 1.5), (0.99, 4.0)):
            name = f"p{round(share * 100)}"
            ratio = fresh.at(share) / live.at(share)
            row.verdicts.append(
                Verdict(
                    f"{name} ≤ {most:g}x {name} of the live session at the same pace",
                    f"{ratio:.2f}x ({fresh.at(share):.2f} ms against {live.at(share):.2f} ms)",
                    ratio <= most and not fresh.errors,
                )
            )
        row.notes.append(
            f"p99 of the fresh sandbox is {fresh.at(0.99) / live.at(0.5):.2f}x the live session's p50."
        )
    if row.series[JUPYTER_NEW].samples_ms:
        row.notes.append(
            "A new Jupyter kernel's time ends with its answer; its shutdown, as onehop's, is not counted."
        )
    return row


def imports(setup: Setup) -> Row:
    """numpy and pandas imported in a fresh sandbox, against a process that starts from nothing."""
    row = Row("imports", "Fresh sandbox with numpy and pandas imported, requests 50 ms apart")
    contenders = [
        *setup.fresh(IMPORTS, 40, pace_s=PACE_S),
        setup.process(setup.python, IMPORTS, 3),
        *_bwrap(setup, row, IMPORTS, 4),
        setup.new_kernels(IMPORTS, 1),
        *_in_process(setup, row, IMPORTS, 20, pace_s=PACE_S),
    ]
    interleave(row, contenders, rounds=setup.rounds)
    if ONEHOP in row.series and processes.BWRAP in row.series:
        ratio = row.ratio(processes.BWRAP)
        if ratio is not None:
            row.verdicts.append(
                Verdict("≥ 100x faster than bwrap + python (p50)", f"{ratio:.0f}x", ratio >= 100)
            )
    elif ONEHOP in row.series:
        row.verdicts.append(Verdict("≥ 100x faster than bwrap + python (p50)", str(setup.bwrap), None))
    return row


def live_add(setup: Setup) -> Row:
    row = Row("live-add", "Cell `1+1` in a live session, back to back")
    contenders = [
        *setup.live(ADD, 400, name=ONEHOP),
        setup.live_kernel(ADD, 60),
        setup.restricted(ADD, 400, live=True),
        setup.monty(ADD, 400, live=True),
        setup.noop(400),
    ]
    row.unable |= {processes.PYTHON: NO_SESSION, processes.BWRAP: NO_SESSION}
    interleave(row, contenders, rounds=setup.rounds)
    row.notes.append(
        f"{NOOP}: the same client asks a Starlette route of the peers' server that runs nothing; "
        "so much of each figure over HTTP is client, HTTP and JSON."
    )
    if row.series.get(ONEHOP) and row.series[ONEHOP].samples_ms:
        ours = row.series[ONEHOP]
        row.verdicts.append(
            Verdict("p50 ≤ 1.2 ms", f"{ours.at(0.5):.2f} ms", ours.at(0.5) <= 1.2 and not ours.errors)
        )
        ratio = row.ratio(JUPYTER_LIVE)
        if ratio is not None:
            row.verdicts.append(Verdict("≥ 6x faster than jupyter_client (p50)", f"{ratio:.1f}x", ratio >= 6))
    return row


def throughput(setup: Setup) -> Row:
    row = Row("throughput", f"Fresh sandbox per request, {CLIENTS} clients back to back: `1+1`", rate=True)
    contenders = [
        *setup.fresh(ADD, 300, clients=CLIENTS),
        setup.process(setup.python, ADD, 120, clients=CLIENTS),
        *_bwrap(setup, row, ADD, 120, clients=CLIENTS),
        setup.new_kernels(ADD, 4, clients=4),
        *_in_process(setup, row, ADD, 800, clients=CLIENTS),
    ]
    row.notes.append("New Jupyter kernels are asked for by 4 clients, and their shutdown counts here.")
    interleave(row, contenders, rounds=setup.rounds)
    ours = row.series.get(ONEHOP)
    if ours is not None:
        row.verdicts.append(
            Verdict(
                "≥ 80 a second, no error",
                f"{ours.per_second:.0f} a second, {ours.errors} errors",
                ours.per_second >= 80 and not ours.errors,
            )
        )
    return row


def _bwrap(
    setup: Setup, row: Row, cell: Cell, count: int, *, pace_s: float = 0, clients: int = 1
) -> list[Contender]:
    if isinstance(setup.bwrap, str):
        row.unable[processes.BWRAP] = setup.bwrap
        return []
    return [setup.process(setup.bwrap, cell, count, pace_s=pace_s, clients=clients)]


def _in_process(
    setup: Setup, row: Row, cell: Cell, count: int, *, pace_s: float = 0, clients: int = 1
) -> list[Contender]:
    """RestrictedPython and Monty, where they can run the cell."""
    found = []
    reason = setup.packages_in_peer_server() if cell.packages else ""
    if reason:
        row.unable[RESTRICTED] = reason
    else:
        found.append(setup.restricted(cell, count, pace_s=pace_s, clients=clients))
    if cell.packages:
        row.unable[MONTY] = NO_PACKAGES
    else:
        found.append(setup.monty(cell, count, pace_s=pace_s, clients=clients))
    return found
