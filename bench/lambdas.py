"""The row on the lambda lane: a small function with its arguments, over HTTP, one call after another.

Beside it the same function in Monty behind a plain route, without any wall of ours around it, and what
client, HTTP and JSON cost alone.
"""

from __future__ import annotations

from bench.cells import Cell, WrongAnswerError
from bench.client import Client, body
from bench.measure import ONEHOP, Contender, Row, Verdict, interleave, percentile
from bench.setup import NOOP, Setup

SANDBOX = "onehop, lambda in a fresh sandbox"
CODE = "lambda x: sum(x) if isinstance(x, list) else 0"
CALLED = f"({CODE})([1, 2, 3])"
CELL = Cell("lambda", CALLED, f"print({CALLED})", "6", packages=False)


def lane(setup: Setup) -> Row:
    row = Row("lambda", "A lambda with an argument, back to back", base=ONEHOP)
    parts_ms: list[float] = []
    contenders = []
    if setup.onehop is not None:
        contenders = [
            _lambda(setup, setup.onehop.port, ONEHOP, "auto", 400, parts_ms),
            _lambda(setup, setup.onehop.port, SANDBOX, "sandbox", 40, []),
        ]
    contenders += [setup.monty(CELL, 400), setup.noop(400)]
    interleave(row, contenders, rounds=setup.rounds)
    row.notes.append(f"{NOOP}: so much of each figure is client, HTTP and JSON.")
    ours = row.series.get(ONEHOP)
    if ours is not None and ours.samples_ms:
        p50 = ours.at(0.5)
        row.verdicts.append(Verdict("p50 ≤ 1.2 ms", f"{p50:.2f} ms", p50 <= 1.2 and not ours.errors))
        part = percentile(parts_ms, 0.5)
        row.verdicts.append(
            Verdict(
                "Monty's part, with the way to its process and back: p50 ≤ 0.5 ms",
                f"{part:.2f} ms",
                part <= 0.5,
            )
        )
    return row


def _lambda(setup: Setup, port: int, name: str, engine: str, count: int, parts_ms: list[float]) -> Contender:
    """`parts_ms` takes what the server says about each call's time in its engine."""
    connection = setup.cleanup.enter_context(Client(port))
    request = body(code=CODE, args=[[1, 2, 3]], engine=engine)
    wanted = "sandbox" if engine == "sandbox" else "monty"

    def call(client: int) -> None:
        answer = connection.post("/api/lambda", request)
        if (answer["status"], answer["value"], answer["engine"]) != ("ok", 6, wanted):
            raise WrongAnswerError(str(answer)[:500])
        parts_ms.append(answer["usage"]["wall_ms"])

    def prepare(client: int) -> None:
        connection.connect()

    return Contender(name, call, setup.count(count), prepare=prepare)
