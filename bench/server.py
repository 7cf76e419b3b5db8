"""Servers under test: started on a free loopback port, waited for, stopped.

onehop gets a home of its own that shares only the built environments, so that neither a user's
config.toml nor his stored results have a part in the figures.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.client import Client, HttpError
from onehop.environments import Environment

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
NOOP_TOOLS = Path(__file__).with_name("noop_tools.py")
NOOP_MCP = Path(__file__).with_name("noop_mcp.py")


class ServerFailedError(Exception):
    """A server did not start or did not stop; the message has its last words."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server process. Use as a context manager."""

    def __init__(
        self, name: str, command: list[str], *, port: int, health: str = "", variables: dict[str, str]
    ) -> None:
        self.name = name
        self.port = port
        self.start_s = 0.0
        self._health = health
        self._log = tempfile.TemporaryFile(prefix="bench-log-")  # noqa: SIM115 - closed with this object
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=variables,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Server:
        started = time.monotonic()
        try:
            while not self._answers():
                if self._process.poll() is not None:
                    raise ServerFailedError(
                        f"{self.name} ended with {self._process.returncode}: {self.log_tail()}"
                    )
                if time.monotonic() - started > START_TIMEOUT_S:
                    raise ServerFailedError(f"{self.name} does not answer: {self.log_tail()}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with Client(self.port) as client:
                if self._health:
                    client.request("GET", self._health)
                else:
                    client.connect()
        except (OSError, HttpError):
            return False
        return True

    def alive(self) -> bool:
        return self._process.poll() is None

    def log_tail(self) -> str:
        """The last lines of what it wrote."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:]

    def stop(self) -> float:
        """SIGTERM, SIGKILL where that is not enough; returns the seconds it took."""
        started = time.monotonic()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        return time.monotonic() - started

    @property
    def returncode(self) -> int | None:
        return self._process.returncode


def real_home() -> Path:
    """Where the built environments are."""
    return Path(os.environ.get("ONEHOP_HOME") or "~/.local/share/onehop").expanduser().absolute()


class Home:
    """A folder for ONEHOP_HOME with a link to the real one's environments. Use as a context manager."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bench-home-"))
        (self.path / "environments").symlink_to(real_home() / "environments")

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        (self.path / "environments").unlink()
        shutil.rmtree(self.path, ignore_errors=True)


def onehop_server(home: Home, models: Server | None = None) -> Server:
    """`onehop serve` with its default settings, a tool for the rows on calls, and `models` for those on the loop."""
    port = free_port()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ONEHOP_")}
    variables["ONEHOP_HOME"] = str(home.path)
    command = [
        sys.executable,
        "-m",
        "onehop.cli.main",
        "serve",
        "--port",
        str(port),
        "--tools",
        str(NOOP_TOOLS),
        "--tools",
        f"noop_mcp={sys.executable} {NOOP_MCP}",
    ]
    if models is not None:
        command += ["--upstreams", f"chat=http://127.0.0.1:{models.port}/v1"]
    return Server("onehop serve", command, port=port, health="/healthz", variables=variables)


def models_server() -> Server:
    """The scripted models, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "bench.models_server", str(port)]
    checkout = str(Path(__file__).resolve().parent.parent)
    return Server("models", command, port=port, variables={**os.environ, "PYTHONPATH": checkout})


def peer_server(environment: Environment) -> Server:
    """RestrictedPython and Monty over HTTP; with pandas where it fits this interpreter."""
    port = free_port()
    site = str(environment.site_packages) if same_python(environment) else ""
    command = [sys.executable, "-m", "bench.peer_server", str(port), site]
    # The package `bench` is found from the checkout, wherever the command was started.
    checkout = str(Path(__file__).resolve().parent.parent)
    return Server("peers", command, port=port, variables={**os.environ, "PYTHONPATH": checkout})


def same_python(environment: Environment) -> bool:
    """Whether packages of the environment can be imported here: compiled ones need this minor version."""
    return environment.python_version.split(".")[:2] == [str(part) for part in sys.version_info[:2]]
