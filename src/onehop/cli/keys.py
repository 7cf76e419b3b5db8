"""`onehop keys`: makes, lists and revokes keys in the database, whether or not a server runs.

A running server notices within a second. The key itself is printed once, on stdout, and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from onehop.cli import database, options
from onehop.cli.terminal import printable, table
from onehop.errors import ConfigurationError, InvalidRequestError, KeyNotFoundError

if TYPE_CHECKING:
    from onehop.sessions.keys import KeyInfo

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LIMITS = {
    "max_sessions": "most sessions and one-shot executions at once",
    "executions_per_minute": "most starts of executions per minute",
    "cpu_s_per_hour": "most CPU seconds per hour",
    "max_memory_mb": "most memory of a sandbox in MiB",
    "max_workspace_mb": "largest workspace in MiB",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = commands.add_parser("create", help="make a key and print it, once", allow_abbrev=False)
    create.add_argument("--name", default="", help="for people")
    create.add_argument("--owner", help="the tenant whose things it reaches (default: a new one)")
    create.add_argument(
        "--scope",
        action="append",
        choices=("execute", "read", "admin"),
        help="may be given several times (default: execute, which includes read)",
    )
    create.add_argument("--expires", metavar="TIME", help="as 90d, 12h or 30m (default: never)")
    for name, text in LIMITS.items():
        create.add_argument(
            "--" + name.replace("_", "-"),
            dest=f"limit_{name}",  # some are called like a setting
            metavar="N",
            help=text + " (default: no limit)",
        )
    create.add_argument(
        "--tools",
        dest="limit_tools",  # a setting is called like that, too
        action="append",
        metavar="PATTERN",
        help="registered tools that it may call, as weather.forecast or 'weather.*'; may be given several times, "
        "'' is none at all (default: all)",
    )
    create.add_argument("--e2b", action="store_true", help="of the form that E2B's clients insist on")
    listing = commands.add_parser("list", help="all keys, without the keys themselves", allow_abbrev=False)
    revoke = commands.add_parser("revoke", help="make a key useless", allow_abbrev=False)
    revoke.add_argument("id", help="as `onehop keys list` shows it: key_…")
    for one in (create, listing, revoke):
        one.add_argument("--json", action="store_true", help="print one JSON document")
        options.add_settings(one, database.NAMES)


def main(arguments: argparse.Namespace) -> int:
    return {"create": _create, "list": _list, "revoke": _revoke}[arguments.action](arguments)


def _create(arguments: argparse.Namespace) -> int:
    import msgspec

    from onehop.sessions.keys import KeyLimits, key_info, make_key
    from onehop.store import keys

    given: dict[str, Any] = {name: _number(getattr(arguments, f"limit_{name}"), name) for name in LIMITS}
    try:
        if arguments.limit_tools is not None:
            given["tools"] = [one for one in arguments.limit_tools if one]
        wanted = {name: value for name, value in given.items() if value is not None}
        limits = msgspec.convert(wanted, KeyLimits)
        key, row = make_key(
            name=arguments.name,
            owner=arguments.owner,
            scopes=arguments.scope or ("execute",),
            expires_in_s=None if arguments.expires is None else _seconds(arguments.expires),
            limits=limits.limits(),
            e2b=arguments.e2b,
        )
    except msgspec.ValidationError as error:
        what, _, field = str(error).rstrip("`").rpartition(" - at `$.")
        raise ConfigurationError(f"--{field.replace('_', '-')}: {what.replace('`', '')}") from None
    except InvalidRequestError as error:
        raise ConfigurationError(f"--{error}") from None
    settings = options.load(arguments)
    with database.opened(settings) as connection:
        keys.add(connection, row)
    info = key_info(row, 0.0)
    if arguments.json:
        _print({**msgspec.to_builtins(info), "key": key})
        return 0
    print(
        f"onehop: {info.id}, owner {info.owner!r}; this is the only time that the key is shown:",
        file=sys.stderr,
    )
    print(key)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    import msgspec

    from onehop.sessions.keys import KeyList, key_info
    from onehop.store import keys

    with database.opened(options.load(arguments)) as connection:
        rows = keys.changed(connection, 0)
    found = [key_info(row, row.last_used_at or 0.0) for row in sorted(rows, key=lambda row: row.created_at)]
    if arguments.json:
        _print(msgspec.to_builtins(KeyList(found)))
    elif not found:
        print("onehop: there are no keys; on this machine everybody may use the server", file=sys.stderr)
    else:
        table([_COLUMNS, *(_line(info) for info in found)])
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    from onehop.store import keys

    with database.opened(options.load(arguments)) as connection:
        found = keys.revoke(connection, arguments.id)
    if not found:
        raise KeyNotFoundError(
            f"there is no key {arguments.id[:80]!r} that is not revoked; see: onehop keys list"
        )
    if arguments.json:
        _print({"revoked": arguments.id})
    else:
        print(f"onehop: {arguments.id} is revoked", file=sys.stderr)
    return 0


_COLUMNS = ("ID", "KEY", "NAME", "OWNER", "SCOPES", "LIMITS", "EXPIRES", "LAST USED", "STATE")


def _line(info: KeyInfo) -> tuple[str, ...]:
    limits = [
        f"{name}={getattr(info.limits, name):g}" for name in LIMITS if getattr(info.limits, name) is not None
    ]
    if info.limits.tools is not None:
        limits.append(f"tools={' '.join(info.limits.tools) or 'none'}")
    return (
        info.id,
        info.prefix + "…",
        printable(info.name) or "-",
        info.owner or "(none)",
        ",".join(info.scopes),
        ",".join(limits) or "-",
        (info.expires_at or "never")[:16],
        (info.last_used_at or "never")[:16],
        info.state,
    )


def _print(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _number(text: str | None, name: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e12:
        raise ConfigurationError(f"--{name.replace('_', '-')}: expected a number above 0, got {text[:40]!r}")
    return int(value) if value.is_integer() else value


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,7})([smhdw])", text)
    if found is None or not int(found[1]):
        raise ConfigurationError(f"--expires: expected a time as 90d, 12h or 30m, got {text[:40]!r}")
    return float(int(found[1]) * UNITS_S[found[2]])
