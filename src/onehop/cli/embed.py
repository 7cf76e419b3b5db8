"""The private engine of one process that uses the SDK: `onehop serve` on a unix socket, for as long as that lives.

Started by onehop.client.embed as `python -m onehop.cli.embed PID REPORT_FD`. All it keeps is in a temporary
folder that goes with it. It must never listen on a port, and never outlive the process that it is for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from onehop import config
from onehop.cli import engine, processes
from onehop.config import Settings
from onehop.errors import EngineError, OnehopError

if TYPE_CHECKING:
    from onehop.environments.model import Environment

LOG_LINES = 10


def main(arguments: list[str]) -> int:
    parent, report_fd = map(int, arguments)
    os.set_inheritable(report_fd, False)
    with os.fdopen(report_fd, "w") as report:
        try:
            parent_fd = os.pidfd_open(parent)
        except ProcessLookupError:
            return 1
        if os.getppid() != parent:
            return 1  # it ended, and the number may be another's by now
        try:
            settings = config.load()
            built = engine.environment(settings, lambda line: _tell(report, say=line))
            with processes.Interrupts(also=parent_fd) as interrupts:
                with tempfile.TemporaryDirectory(prefix="onehop-sdk-") as folder:
                    _serve(settings, (built,), Path(folder), interrupts, report)
        except OnehopError as error:
            _tell(report, kind=type(error).__name__, error=str(error))
            return 1
    return 0


def _serve(
    settings: Settings,
    environments: tuple[Environment, ...],
    folder: Path,
    interrupts: processes.Interrupts,
    report: TextIO,
) -> None:
    own = dataclasses.replace(settings, home=folder / "home", database_url="", host="127.0.0.1")
    log = _log_into(folder / "log")
    with _listen(folder / "socket") as listener:

        def show(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
            if not report.closed:
                _tell(report, socket=str(folder / "socket"))
                report.close()

        try:
            processes.Master(own, environments, listener, show=show, say=_say, interrupts=interrupts).run()
        except EngineError as error:
            raise EngineError(f"{error}\n{_last_words(log)}".strip()) from error


def _listen(path: Path) -> socket.socket:
    """The folder is closed to others; the socket itself may be used by the gateway's service user."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise EngineError(f"cannot listen on {path}: {error}; set TMPDIR to a shorter path") from error
    return listener


def _log_into(path: Path) -> Path:
    """What the engine has to say goes into a file: the terminal is the caller's."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    return path


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def _say(line: str) -> None:
    print(f"onehop: {line}", file=sys.stderr, flush=True)


def _tell(report: TextIO, **what: Any) -> None:
    try:
        print(json.dumps(what), file=report, flush=True)
    except BrokenPipeError:
        os.kill(os.getpid(), signal.SIGTERM)  # nobody waits for us any more


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
