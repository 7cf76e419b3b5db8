"""Usage as it is answered: by day and key, and what it costs where prices are set."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec

from onehop.config import Settings
from onehop.errors import InvalidRequestError
from onehop.store import UsageRow

DAYS = 30
"""A question that names no first day gets so many days."""
MAX_DAYS = 400
_EPOCH = date(1970, 1, 1)


class Usage(msgspec.Struct, kw_only=True):
    """What was used on one day (UTC) with one key.

    Args:
        day: of the executions' ends, as YYYY-MM-DD.
        key: id of the key, empty for what was asked for without one.
        owner: the tenant.
        cpu_s: CPU seconds.
        memory_mb_s: MiB of peak memory times seconds, of each execution.
        cost: null where the server has no prices.
    """

    day: str
    key: str
    owner: str
    executions: int
    cpu_s: float
    memory_mb_s: float
    tool_calls: int
    cost: float | None


class UsageList(msgspec.Struct):
    """By day and key, oldest first. `currency` is empty where the server has no prices."""

    usage: list[Usage]
    currency: str


def period(first: str | None, last: str | None) -> tuple[int, int]:
    """Two days since 1970, both included, from YYYY-MM-DD. Raises InvalidRequestError."""
    end = _day(last, "to") if last else datetime.now(UTC).date()
    begin = _day(first, "from") if first else end - timedelta(days=DAYS - 1)
    if not 0 <= (end - begin).days < MAX_DAYS:
        raise InvalidRequestError(
            f"from: expected a day up to {MAX_DAYS} days before {end.isoformat()}", field="from"
        )
    return (begin - _EPOCH).days, (end - _EPOCH).days


def usage_list(rows: list[UsageRow], settings: Settings) -> UsageList:
    """The answer for stored rows by day."""
    return UsageList([_usage(row, settings) for row in rows], settings.currency)


def _usage(row: UsageRow, settings: Settings) -> Usage:
    cost = (
        row.executions * settings.price_per_execution
        + row.cpu_ms / 3_600_000 * settings.price_per_cpu_hour
        + row.memory_mb_s / 1024 / 3600 * settings.price_per_gb_hour
    )
    return Usage(
        day=(_EPOCH + timedelta(days=row.period)).isoformat(),
        key=row.key,
        owner=row.owner,
        executions=row.executions,
        cpu_s=round(row.cpu_ms / 1000, 6),
        memory_mb_s=round(row.memory_mb_s, 3),
        tool_calls=row.tool_calls,
        cost=round(cost, 9) if settings.currency else None,
    )


def _day(text: str, field: str) -> date:
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"{field}: expected a day as YYYY-MM-DD", field=field) from None
