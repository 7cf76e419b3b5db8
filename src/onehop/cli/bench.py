"""`onehop bench`: what this server costs its clients, measured for a few seconds from where the command runs.

Every figure includes the client and the connection. It measures with sessions of its own, which it ends.
"""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onehop.cli import connection
from onehop.errors import ConfigurationError, OnehopError

if TYPE_CHECKING:
    from onehop.client.clients import Client
    from onehop.client.results import Result

CODE = "1 + 1"
FRAME = "import pandas as pd\npd.DataFrame({'a': range(100), 'b': 1.5}).describe()"
PERCENTILES = (50, 95, 99)
WARM_UP = 3
"""Calls before anything is counted: connections are made, and a session's first code is slower."""

Do = Callable[[], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", default="2", metavar="TIME", help="for each row; most figures settle in 2 (default)"
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        default=4,
        metavar="N",
        help="sessions at once in the last row (default: 4)",
    )
    parser.add_argument("--env", metavar="NAME", help="environment of its sessions")
    connection.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    length_s = connection.seconds(arguments.seconds, "--seconds")
    if not 1 <= arguments.concurrency <= 64:
        raise ConfigurationError("--concurrency: from 1 to 64 sessions")
    with connection.client(arguments) as client:
        version = client.info()["version"]
        rows = measure(client, arguments.env, length_s, arguments.concurrency, arguments.url)
    if arguments.json:
        document = {"url": arguments.url, "version": version, "seconds": length_s, "rows": rows}
        connection.print_json(document)
    else:
        print(
            f"onehop {version} at {arguments.url}, {length_s:g} s each, times in ms with client and connection\n"
        )
        connection.print_table([_HEAD, *map(_cells, rows)])
    failed = sum(row["errors"] for row in rows)
    if failed:
        print(f"onehop: {failed} calls failed: {_first_error(rows)}", file=sys.stderr)
    return 1 if failed else 0


def measure(
    client: Client, environment: str | None, length_s: float, concurrency: int, url: str
) -> list[dict[str, Any]]:
    """All rows. Raises OnehopError when a session cannot be made at all."""
    rows = []

    def row(name: str, do: Do) -> None:
        with connection.telling(f"measuring: {name}"):
            rows.append(_row(name, [Timer(do, length_s)], length_s))

    with client.session(environment=environment) as session:
        row(f"`{CODE}` in a session", lambda: _checked(session.run(CODE)))
        if session.run("import pandas").ok:
            row("`describe()` of a DataFrame", lambda: _checked(session.run(FRAME)))
        row("a file of 1 MB sent", lambda: session.files.write("bench.bin", bytes(1_000_000)))
    row(f"`{CODE}` in a sandbox of its own", lambda: _checked(client.run(CODE, environment=environment)))

    def life() -> None:
        with client.session(environment=environment) as one:
            _checked(one.run(CODE))

    row(f"session made, `{CODE}`, ended", life)
    with connection.telling(f"measuring: {concurrency} sessions at once"):
        rows.append(_together(environment, length_s, concurrency, url))
    return rows


def _together(environment: str | None, length_s: float, concurrency: int, url: str) -> dict[str, Any]:
    """Each session has its own connection and its own thread."""
    from onehop.client.sessions import Session

    sessions = [Session(url=url, environment=environment) for _ in range(concurrency)]
    try:
        timers = [Timer(_runner(session), length_s) for session in sessions]
        return _row(f"`{CODE}` in {concurrency} sessions at once", timers, length_s)
    finally:
        for session in sessions:
            session.close()


def _runner(session: Any) -> Do:
    return lambda: _checked(session.run(CODE))


def _checked(result: Result) -> None:
    result.raise_for_error()


class Timer:
    """Calls `do` over and over for `length_s` seconds and keeps how long each call took."""

    def __init__(self, do: Do, length_s: float) -> None:
        self._do, self._length_s = do, length_s
        self.times_ms: list[float] = []
        self.errors = 0
        self.error = ""
        self.elapsed_s = 0.0

    def warm_up(self) -> None:
        for _ in range(WARM_UP):
            self._do()

    def run(self) -> None:
        began_s = time.perf_counter()
        while (started_s := time.perf_counter()) - began_s < self._length_s:
            try:
                self._do()
            except OnehopError as error:
                self.errors += 1
                self.error = self.error or str(error)
                if self.errors >= 10:  # it will not get better
                    break
            else:
                self.times_ms.append((time.perf_counter() - started_s) * 1000)
        self.elapsed_s = time.perf_counter() - began_s


def _row(name: str, timers: list[Timer], length_s: float) -> dict[str, Any]:
    for timer in timers:
        timer.warm_up()
    threads = [threading.Thread(target=timer.run, daemon=True) for timer in timers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times_ms = sorted(one for timer in timers for one in timer.times_ms)
    elapsed_s = max(timer.elapsed_s for timer in timers)
    return {
        "name": name,
        "count": len(times_ms),
        "errors": sum(timer.errors for timer in timers),
        "error": next((timer.error for timer in timers if timer.error), ""),
        "per_s": round(len(times_ms) / elapsed_s, 1) if elapsed_s else 0.0,
        **{f"p{one}_ms": percentile(times_ms, one) for one in PERCENTILES},
        "max_ms": round(times_ms[-1], 3) if times_ms else None,
    }


def percentile(times_ms: list[float], percent: float) -> float | None:
    """The smallest of the sorted times that so many percent do not exceed; None of none."""
    if not times_ms:
        return None
    return round(times_ms[max(0, math.ceil(len(times_ms) * percent / 100) - 1)], 3)


_HEAD = ("", "calls", "per s", *(f"p{one}" for one in PERCENTILES), "max")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = (row[f"p{one}_ms"] for one in PERCENTILES)
    shown = ("-" if one is None else f"{one:.2f}" for one in (*times, row["max_ms"]))
    return (row["name"], str(row["count"]), f"{row['per_s']:.0f}", *shown)


def _first_error(rows: list[dict[str, Any]]) -> str:
    return next((str(row["error"]) for row in rows if row["error"]), "")
