"""`onehop usage`: what was used by day and key, from the database, whether or not a server runs."""

from __future__ import annotations

import argparse
import json

from onehop.cli import database, options
from onehop.cli.terminal import table
from onehop.errors import ConfigurationError, InvalidRequestError

PRICES = ("price_per_execution", "price_per_cpu_hour", "price_per_gb_hour", "currency")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="first", metavar="DAY", help="first day, as 2026-11-01 (default: 30 days)"
    )
    parser.add_argument("--to", dest="last", metavar="DAY", help="last day (default: today, UTC)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options.add_settings(parser, (*database.NAMES, *PRICES))


def main(arguments: argparse.Namespace) -> int:
    import msgspec

    from onehop.sessions.usage import period, usage_list
    from onehop.store import usage

    settings = options.load(arguments)
    try:
        first, last = period(arguments.first, arguments.last)
    except InvalidRequestError as error:
        raise ConfigurationError(f"--{error}") from None
    with database.opened(settings) as connection:
        found = usage_list(usage.by_day(connection, first, last, None), settings)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return 0
    rows = [("DAY", "OWNER", "KEY", "EXECUTIONS", "CPU S", "MEMORY MB S", "TOOL CALLS", "COST")]
    for one in found.usage:
        cost = "-" if one.cost is None else f"{one.cost:.4f} {found.currency}"
        rows.append(
            (
                one.day,
                one.owner or "-",
                one.key or "-",
                str(one.executions),
                f"{one.cpu_s:.3f}",
                f"{one.memory_mb_s:.1f}",
                str(one.tool_calls),
                cost,
            )
        )
    table(rows)
    return 0
