"""Rows, percentiles, and rounds that let every contender meet the same moods of the machine."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SETTLE_S = 0.15
"""Between two contenders, so that what one left running does not fall into the other's time."""

ONEHOP = "onehop"


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


@dataclass
class Series:
    """What one contender did in one row."""

    samples_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    errors: int = 0
    first_error: str = ""

    @property
    def per_second(self) -> float:
        return len(self.samples_ms) / self.wall_s if self.wall_s else 0.0

    def at(self, share: float) -> float:
        return percentile(self.samples_ms, share)


@dataclass(frozen=True)
class Verdict:
    """A target of the row. `reached` is None where it could not be measured."""

    target: str
    measured: str
    reached: bool | None


@dataclass
class Row:
    """One row of the report.

    Args:
        key: for --only.
        rate: executions per second matter, not the time of one.
        base: the series that ratios are to.
        unable: contender to the reason why it has no figure here.
    """

    key: str
    title: str
    rate: bool = False
    base: str = ONEHOP
    unit: str = "ms"
    series: dict[str, Series] = field(default_factory=dict)
    unable: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def ratio(self, name: str) -> float | None:
        """How many times slower than the base: by rate or by p50."""
        ours, theirs = self.series.get(self.base), self.series[name]
        if ours is None or not ours.samples_ms or not theirs.samples_ms:
            return None
        if self.rate:
            return ours.per_second / theirs.per_second
        return theirs.at(0.5) / ours.at(0.5)


@dataclass(frozen=True)
class Contender:
    """Who takes part in a row.

    Args:
        call: one execution, checked; with the number of the client that makes it.
        count: executions per round.
        pace_s: from one start to the next, 0 for back to back.
        prepare: before the clock runs, per client.
        after: after the clock has stopped, per execution.
    """

    name: str
    call: Callable[[int], None]
    count: int
    pace_s: float = 0.0
    clients: int = 1
    prepare: Callable[[int], None] = lambda client: None
    after: Callable[[int], None] = lambda client: None


def interleave(row: Row, contenders: Sequence[Contender], *, rounds: int) -> None:
    """One short round that does not count, then `rounds` that do, each beginning with another contender."""
    started = time.monotonic()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for contender in contenders:
            batch(contender, Series(), max(contender.clients, -(-contender.count // 5)))
        for number in range(rounds):
            first = number % len(contenders)
            for contender in [*contenders[first:], *contenders[:first]]:
                time.sleep(SETTLE_S)
                batch(contender, row.series.setdefault(contender.name, Series()), contender.count)
    finally:
        gc.enable()
        row.seconds += time.monotonic() - started


def batch(contender: Contender, series: Series, count: int) -> None:
    """`count` executions by all its clients, on the clock."""
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        todo.put(number)
    results = [Series() for _ in range(contender.clients)]
    for client in range(contender.clients):
        contender.prepare(client)
    started = time.perf_counter()
    if contender.clients == 1:
        _work(contender, 0, todo, results[0])
    else:
        threads = [
            threading.Thread(target=_work, args=(contender, client, todo, results[client]))
            for client in range(contender.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    series.wall_s += time.perf_counter() - started
    for result in results:
        series.samples_ms += result.samples_ms
        series.errors += result.errors
        series.first_error = series.first_error or result.first_error


def _work(contender: Contender, client: int, todo: queue.SimpleQueue[int], series: Series) -> None:
    clock = time.perf_counter
    while True:
        try:
            todo.get_nowait()
        except queue.Empty:
            return
        begun = clock()
        try:
            contender.call(client)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and shown as the peer's error
            series.errors += 1
            series.first_error = series.first_error or f"{type(error).__name__}: {error}"
        else:
            series.samples_ms.append((clock() - begun) * 1000)
        contender.after(client)
        rest_s = contender.pace_s - (clock() - begun)
        if rest_s > 0:
            time.sleep(rest_s)
