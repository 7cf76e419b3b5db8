"""`onehop sessions`: the sessions of a server that belong to the key, one line each."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from onehop.cli import connection
from onehop.cli.terminal import printable
from onehop.errors import ConfigurationError

if TYPE_CHECKING:
    from onehop.client.clients import Client
    from onehop.client.records import SessionInfo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = connection.action(actions, "list", "all sessions (also without an ACTION)", perform=list_all)
    showing = connection.action(actions, "show", "everything about a session", perform=show)
    deleting = connection.action(actions, "delete", "end sessions; nothing is left of them", perform=delete)
    extending = connection.action(actions, "extend", "change how long a session lives", perform=extend)
    for one in (showing, extending):
        one.add_argument("session", metavar="ID", help="as `onehop sessions list` shows it, or how it begins")
    deleting.add_argument("sessions", nargs="*", metavar="ID")
    deleting.add_argument("--all", action="store_true", help="all that the key may see")
    extending.add_argument(
        "time", nargs="?", metavar="TIME", help="it ends so long from now, as 90, 30m, 12h or 7d"
    )
    extending.add_argument("--idle", metavar="TIME", help="it ends after so long without use")
    extending.add_argument(
        "--pin", dest="pinned", action=argparse.BooleanOptionalAction, help="it does not end for being idle"
    )
    parser.set_defaults(perform=list_all)
    connection.add_arguments(parser)
    for one in (listing, showing, deleting, extending):
        connection.add_arguments(one, inherited=True)


def main(arguments: argparse.Namespace) -> int:
    with connection.client(arguments) as client:
        arguments.perform(client, arguments)
    return 0


def list_all(client: Client, arguments: argparse.Namespace) -> None:
    found = client.sessions()
    if arguments.json:
        connection.print_json({"sessions": found})
    elif not found:
        print("onehop: there are no sessions", file=sys.stderr)
    else:
        connection.print_table([_HEAD, *map(_row, found)])


_HEAD = ("ID", "STATUS", "ENVIRONMENT", "AGE", "ENDS IN", "METADATA")


def _row(info: SessionInfo) -> tuple[str, ...]:
    now = datetime.now(UTC)
    left = connection.span((info.expires_at - now).total_seconds())
    return (
        info.id,
        info.status,
        info.environment,
        connection.span((now - info.created_at).total_seconds()),
        f"{left}, pinned" if info.pinned else left,
        printable(", ".join(f"{name}={value}" for name, value in info.metadata.items()))[:60] or "-",
    )


def show(client: Client, arguments: argparse.Namespace) -> None:
    info = client.attach(found(client, arguments.session)).info()
    if arguments.json:
        connection.print_json(info)
        return
    for name, value in connection.plain(info).items():
        text = ", ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else value
        print(f"{name:<16}{printable(str(text)) if text not in ('', []) else '-'}")


def delete(client: Client, arguments: argparse.Namespace) -> None:
    if bool(arguments.sessions) == arguments.all:
        raise ConfigurationError("name the sessions to delete, or all of them with --all")
    names = (
        [info.id for info in client.sessions()]
        if arguments.all
        else [found(client, name) for name in arguments.sessions]
    )
    for name in names:
        client.attach(name).close()
    if arguments.json:
        connection.print_json({"deleted": names})
    else:
        print("\n".join(names) or "onehop: there are no sessions", file=sys.stdout if names else sys.stderr)


def extend(client: Client, arguments: argparse.Namespace) -> None:
    given = (arguments.time, arguments.idle, arguments.pinned)
    if all(one is None for one in given):
        raise ConfigurationError("say how long with TIME or --idle TIME, or --pin or --no-pin")
    ends_in_s = None if arguments.time is None else connection.seconds(arguments.time, "TIME")
    idle_s = None if arguments.idle is None else connection.seconds(arguments.idle, "--idle")
    session = client.attach(found(client, arguments.session))
    info = session.change(idle_timeout_s=idle_s)
    if arguments.pinned is not None:
        info = session.pin(arguments.pinned)
    if ends_in_s is not None:
        info = session.extend(ends_in_s)
    if arguments.json:
        connection.print_json(info)
    else:
        connection.print_table([_HEAD, _row(info)])


def found(client: Client, name: str) -> str:
    """The whole id of a session from its beginning; a whole one is not looked for."""
    if len(name) >= 40:
        return name
    names = [info.id for info in client.sessions() if info.id.startswith(name)]
    if len(names) == 1 and name:
        return names[0]
    how_many = "several sessions begin" if names else "no session begins"
    raise ConfigurationError(f"{how_many} with {name[:60]!r}; onehop sessions list shows all")
