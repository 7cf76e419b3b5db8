"""What was used, by hour, key and owner. Counted in the transaction that stores the result, so exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from onehop.store.records import Finished, UsageRow
from onehop.store.tables import usage

HOUR_S = 3600
HOURS_PER_DAY = 24
_COUNTED = ("executions", "cpu_ms", "memory_mb_s", "tool_calls")


def count(connection: Connection, records: Iterable[Finished]) -> None:
    """Adds what these executions used; one statement per hour, key and owner."""
    sums: dict[tuple[int, str, str], list[float]] = {}
    for record in records:
        total = sums.setdefault((int(record.ended_at // HOUR_S), record.key, record.owner), [0, 0.0, 0.0, 0])
        for place, value in enumerate((1, record.cpu_ms, record.memory_mb_s, record.tool_calls)):
            total[place] += value
    add(connection, sums)


def add(connection: Connection, sums: Mapping[tuple[int, str, str], Sequence[float]]) -> None:
    """Adds executions, CPU milliseconds, MiB seconds and tool calls by hour, key and owner."""
    for (hour, key, owner), total in sums.items():
        where = {"hour": hour, "key": key, "owner": owner}
        values: dict[str, Any] = dict(zip(_COUNTED, total, strict=True))
        more = {name: usage.c[name] + value for name, value in values.items()}
        # Not an upsert: that is written differently for every database, and only one thread writes here.
        if not connection.execute(update(usage).filter_by(**where).values(more)).rowcount:
            connection.execute(insert(usage).values(**where, **values))


def by_day(connection: Connection, first: int, last: int, owner: str | None) -> list[UsageRow]:
    """Sums by day since 1970, from `first` to `last`, of one owner or (None) of all; oldest first."""
    day = usage.c.hour // HOURS_PER_DAY
    query = (
        select(day, usage.c.key, usage.c.owner, *(func.sum(usage.c[name]) for name in _COUNTED))
        .where(usage.c.hour >= first * HOURS_PER_DAY, usage.c.hour < (last + 1) * HOURS_PER_DAY)
        .group_by(day, usage.c.key, usage.c.owner)
        .order_by(day, usage.c.key, usage.c.owner)
    )
    if owner is not None:
        query = query.where(usage.c.owner == owner)
    return [UsageRow(*row) for row in connection.execute(query)]


def cpu_since(connection: Connection, hour: int) -> list[tuple[int, str, float]]:
    """Hour, key and CPU milliseconds from `hour` on."""
    query = select(usage.c.hour, usage.c.key, func.sum(usage.c.cpu_ms)).where(usage.c.hour >= hour)
    return [
        (at, key, cpu_ms) for at, key, cpu_ms in connection.execute(query.group_by(usage.c.hour, usage.c.key))
    ]
