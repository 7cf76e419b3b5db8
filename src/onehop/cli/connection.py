"""What the commands share that talk to a server: its address, the key, and how its answers are printed.

The key comes from ONEHOP_API_KEY only: the arguments of a process can be read by everybody on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from onehop.errors import ConfigurationError, UnauthorizedError

if TYPE_CHECKING:
    from onehop.client.clients import Client

DEFAULT_URL = "http://127.0.0.1:8000"
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
TELL_EVERY_S = 1.0


def add_arguments(parser: argparse.ArgumentParser, *, inherited: bool = False) -> None:
    """--json and --url, of each command that talks to a server.

    Args:
        inherited: the parser is below one that has them as well: what was said there holds.
    """
    url = os.environ.get("ONEHOP_URL") or DEFAULT_URL
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS if inherited else False,
        help="print one JSON document",
    )
    parser.add_argument(
        "--url",
        default=argparse.SUPPRESS if inherited else url,
        metavar="URL",
        help=f"the server (default: ONEHOP_URL, or {DEFAULT_URL}); its key comes from ONEHOP_API_KEY",
    )


@contextlib.contextmanager
def client(arguments: argparse.Namespace) -> Iterator[Client]:
    """Connections to the server that the arguments name; errors get their next step."""
    from onehop.client.clients import Client

    try:
        with Client(arguments.url) as made:
            yield made
    except UnauthorizedError as error:
        raise UnauthorizedError(f"{error}; put the key into ONEHOP_API_KEY") from None


def action(
    actions: Any, name: str, text: str, *, perform: Any, aliases: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """One of a command's actions, as `list` of `onehop sessions list`."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        aliases=list(aliases),
        help=text,
        description=text[0].upper() + text[1:] + ".",
        allow_abbrev=False,
    )
    parser.set_defaults(perform=perform)
    return parser


def plain(found: Any) -> Any:
    """A record of the client as JSON has it: times as text, without what is not known."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        members = {one.name: getattr(found, one.name) for one in dataclasses.fields(found)}
        return {name: plain(value) for name, value in members.items() if value is not None}
    if isinstance(found, datetime):
        return found.isoformat().replace("+00:00", "Z")
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(one) for one in found]
    return found


def print_json(document: Any) -> None:
    print(json.dumps(plain(document), indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns with two spaces between them; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def seconds(text: str, what: str) -> float:
    """Seconds in `90`, `30m`, `12h`, `7d`. Raises ConfigurationError naming `what`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhdw]?)", text)
    if found is None or not float(found[1]):
        raise ConfigurationError(f"{what}: expected a time as 90, 30m, 12h or 7d, got {text[:40]!r}")
    return float(found[1]) * UNITS_S[found[2]]


def span(span_s: float) -> str:
    """A time for people: 45s, 12m, 3h, 2d."""
    for unit, size_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if span_s >= 2 * size_s:
            return f"{span_s / size_s:.0f}{unit}"
    return f"{max(0.0, span_s):.0f}s"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Says on a terminal's stderr, each second, that `what` goes on and for how long."""
    if not sys.stderr.isatty():
        yield
        return
    done, started_s = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(TELL_EVERY_S):
            print(
                f"\ronehop: {what}, {time.monotonic() - started_s:.0f} s", end="", file=sys.stderr, flush=True
            )

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
        if time.monotonic() - started_s >= TELL_EVERY_S:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal leave as Ctrl-D does, so that the session ends."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
