"""The engine that this process has for itself when no server is named: a private process, started at first use.

It listens on a unix socket in a folder that nobody else may enter, keeps its state there, is shared by
everything in this process, and ends with it, however that ends: it watches us, not we it. This module
must not import the server; it only starts it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from typing import Any

from onehop import errors
from onehop.errors import EngineError, OnehopError

STOP_S = 15.0

_lock = threading.Lock()
_engine: _Engine | None = None


class _Engine:
    """A running engine. `owner` is the process that started it: a forked child has none of its own yet."""

    def __init__(self, process: subprocess.Popen[bytes], socket: str) -> None:
        self.process = process
        self.socket = socket
        self.owner = os.getpid()

    @property
    def usable(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def clear(self) -> None:
        """Removes what a killed engine could not remove itself: its folder; the rest ends with it."""
        if self.owner == os.getpid():
            shutil.rmtree(os.path.dirname(self.socket), ignore_errors=True)


def socket_path() -> str:
    """The socket of this process's engine; the first call starts it, and takes seconds.

    Raises:
        WeakIsolationError: sandboxes are impossible here; the message has the command that helps.
        EnvironmentBuildError: the packages could not be installed.
        ConfigurationError: a setting of onehop in the environment cannot be used.
        EngineError: it did not start.
    """
    global _engine
    with _lock:
        if _engine is not None and not _engine.usable:
            _engine.clear()
            _engine = None
        if _engine is None:
            _engine = _start()
        return _engine.socket


def stop() -> None:
    """Ends this process's engine, and all its sessions; the next use starts another."""
    global _engine
    with _lock:
        engine, _engine = _engine, None
    if engine is None or engine.owner != os.getpid():
        return
    engine.process.terminate()  # does nothing to one that has ended
    try:
        engine.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        engine.process.kill()
        engine.process.wait()
    engine.clear()


def _start() -> _Engine:
    read_fd, write_fd = os.pipe()
    try:
        with open(read_fd, "rb") as report:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "onehop.cli.embed", str(os.getpid()), str(write_fd)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[write_fd],
                    start_new_session=True,  # Ctrl-C is for the caller, who may want to go on
                )
            except OSError as error:
                raise EngineError(f"the engine cannot be started: {error}") from error
            finally:
                os.close(write_fd)
            try:
                return _Engine(process, _wait_ready(report, process))
            except BaseException:
                process.terminate()
                process.wait()
                raise
    finally:
        with contextlib.suppress(RuntimeError):  # at exit nothing can be registered any more
            atexit.unregister(stop)
            atexit.register(stop)


def _wait_ready(report: Any, process: subprocess.Popen[bytes]) -> str:
    """Reads what it says: lines of JSON, `say` on long work, then `socket` or `error`."""
    for line in report:
        said = json.loads(line)
        if "say" in said:
            sys.stderr.write(f"onehop: {said['say']}\n")
            sys.stderr.flush()
        elif "socket" in said:
            return str(said["socket"])
        elif "error" in said:
            raise _error(said["kind"], said["error"])
    raise EngineError(
        f"the engine ended before it served (exit code {process.wait()}); onehop doctor may say why"
    )


def _error(kind: str, text: str) -> OnehopError:
    found = getattr(errors, kind, EngineError)
    is_ours = isinstance(found, type) and issubclass(found, OnehopError)
    return found(text) if is_ours and not issubclass(found, errors.ProblemError) else EngineError(text)
