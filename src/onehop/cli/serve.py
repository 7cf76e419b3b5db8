"""`onehop serve`: everything embedded, until Ctrl-C.

This module prepares and tells; the processes are processes.py's. It must print nothing on stdout but
the start screen.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from onehop import __version__
from onehop.cli import engine, options
from onehop.config import Settings, is_loopback
from onehop.errors import ConfigurationError
from onehop.supervisor import lines

if TYPE_CHECKING:
    import socket

    from onehop.environments.model import Environment

EXAMPLE = '{"code": "import pandas as pd; pd.Series([3, 1, 2]).describe()"}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one line of JSON when ready, instead of the start screen"
    )
    options.add_settings(parser)


def main(arguments: argparse.Namespace) -> int:
    started_s = time.monotonic()
    settings = options.load(arguments)
    from onehop.cli import processes

    say = functools.partial(_say, log_format=settings.log_format)
    if settings.tools:
        from onehop.tools import configure

        configure.check(configure.sources(settings))
    if settings.upstreams or settings.models:
        from onehop.agent.upstreams import config

        servers = config.upstreams(settings)
        config.models(settings, servers)
        config.read_keys(servers)
    if not is_loopback(settings.host):
        _check_key(settings)
    with _only_server(settings), processes.listen(settings.host, settings.port) as listener:
        built = engine.environment(settings, say)

        def show(rows: list[dict[str, Any]], report: dict[str, Any]) -> None:
            shown = line if arguments.json else screen
            print(shown(settings, built, listener, rows, time.monotonic() - started_s), flush=True)

        processes.Master(settings, (built,), listener, show=show, say=say).run()
    say("ended")
    return 0


def _check_key(settings: Settings) -> None:
    """Raises ConfigurationError unless there is a key, before anything listens where others can reach it."""
    # In a process of its own, which becomes the service user for it: the database is none of root's business.
    done = subprocess.run(
        [sys.executable, "-m", "onehop.cli.main", "keys", "list", "--json"],
        env=os.environ | settings.environ() | {"ONEHOP_CONFIG": os.devnull},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ConfigurationError(done.stderr.strip().removeprefix("onehop: ") or "the keys cannot be read")
    if all(key["state"] == "revoked" for key in json.loads(done.stdout)["keys"]):
        home = f" --home {shlex.quote(str(settings.home))}" if settings.sources["home"] != "default" else ""
        raise ConfigurationError(
            f"host (from {settings.sources['host']}): {settings.host!r} is not a loopback address, and without "
            f"a key anybody who reaches it could run code; make one first: onehop keys create{home}"
        )


@contextlib.contextmanager
def _only_server(settings: Settings) -> Iterator[None]:
    """Two servers on one state would each take the other's sessions for lost."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        file = os.open(settings.home / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        source = settings.sources["home"]
        raise ConfigurationError(f"home (from {source}): {error}; take another with --home") from None
    with os.fdopen(file):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another onehop serve uses {settings.home}; stop it, or take another place with --home"
            ) from None
        yield


def screen(
    settings: Settings,
    built: Environment,
    listener: socket.socket,
    rows: list[dict[str, Any]],
    started_s: float,
) -> str:
    """The start screen.

    Args:
        rows: protections as in onehop.supervisor.surroundings.
        started_s: seconds that the start took.
    """
    url = _url(listener)
    packages = f"Python {built.python_version}, {len(built.packages)} packages"
    lines = [
        f"onehop {__version__} serves on {url} (ready after {started_s:.1f} s)",
        "",
        f"  API          {url}/api",
        f"  docs         {url}/docs",
        f"  state        {settings.state}",
        f"  environment  {built.name} ({packages}): {built.path}",
        "",
        *([f"  tools        {', '.join(json.loads(settings.tools))}", ""] if settings.tools else []),
        *(
            [f"  models       from {', '.join(json.loads(settings.upstreams))}", ""]
            if settings.upstreams
            else []
        ),
        *protections(rows),
        "",
        "  Try:",
        f"    {curl(url)}",
        "",
        "  Ctrl-C ends the server and all its sessions.",
    ]
    return "\n".join(lines)


def line(
    settings: Settings,
    built: Environment,
    listener: socket.socket,
    rows: list[dict[str, Any]],
    started_s: float,
) -> str:
    """What `screen` says, as one line of JSON; printed again whenever everything had to be started again."""
    document = {
        "onehop": __version__,
        "url": _url(listener),
        "pid": os.getpid(),
        "started_s": round(started_s, 3),
        "state": str(settings.state),
        "tools": list(json.loads(settings.tools or "{}")),
        "upstreams": list(json.loads(settings.upstreams or "{}")),
        "environment": {"name": built.name, "python": built.python_version, "path": str(built.path)},
        "protections": rows,
    }
    return json.dumps(document)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def protections(rows: list[dict[str, Any]]) -> list[str]:
    """The rows in short: names of what is active, and a line for each that is not."""
    by_state = {
        state: [row for row in rows if row["state"] == state] for state in ("active", "weaker", "missing")
    }
    lines = [f"  active       {', '.join(row['name'] for row in by_state['active']) or 'nothing'}"]
    for state in ("weaker", "missing"):
        lines += [f"  {state:<12} {row['name']}: {row['detail']}" for row in by_state[state]]
    if by_state["weaker"] or by_state["missing"]:
        lines.append(f"  {'':<12} (onehop doctor says how to get them)")
    return lines


def curl(url: str) -> str:
    """A command line that works when it is pasted into a shell."""
    globbing = "-g " if "[" in url else ""
    header = shlex.quote("Content-Type: application/json")
    return f"curl -s {globbing}{url}/api/execute -H {header} -d {shlex.quote(EXAMPLE)}"


def _say(text: str, log_format: str = "text") -> None:
    print(lines.line("", text, log_format), end="", file=sys.stderr, flush=True)
