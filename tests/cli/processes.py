"""Starts `onehop` and looks at what it starts: processes, control groups, temporary files."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

START_S = 60.0
END_S = 40.0
ONEHOP = [sys.executable, "-m", "onehop.cli.main"]


def variables(**more: str) -> dict[str, str]:
    """This process's environment without settings of onehop."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ONEHOP_")} | more


def onehop(
    *arguments: str, cwd: Path, code: int = 0, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end and checks its exit code."""
    done = subprocess.run(
        [*ONEHOP, *arguments],
        cwd=cwd,
        env=variables(**more),
        input=stdin,
        text=True,
        capture_output=True,
        timeout=90,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
    """Looks every 20 ms; fails after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def only(find: Callable[[], list[int]]) -> int:
    """The only pid that `find` finds. Lists of children may miss some while others come and go (proc(5))."""
    deadline_s = time.monotonic() + END_S
    while len(found := find()) != 1:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.01)
    return found[0]


class Server:
    """`onehop serve` on a free port."""

    command: Sequence[str] = ONEHOP

    def __init__(self, home: Path, folder: Path, flags: Sequence[str] = (), **more: str) -> None:
        self.home = home
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.log = folder / "serve.log"
        self.screen = ""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "serve", "--home", str(home), "--port", "0", *flags],
                env=variables(TMPDIR=str(self.temporary), **more),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def wait_for_screen(self) -> None:
        self.screen = ""
        deadline_s = time.monotonic() + START_S
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while "Ctrl-C" not in self.screen:
                assert selector.select(deadline_s - time.monotonic()), f"no start screen: {self.said()}"
                chunk = os.read(self.process.stdout.fileno(), 65536)
                assert chunk, f"ended before it served: {self.said()}"
                self.screen += chunk.decode()

    @property
    def url(self) -> str:
        found = re.search(r"serves on (\S+)", self.screen)
        assert found is not None
        return found[1]

    def said(self) -> str:
        return self.log.read_text()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer of a request; a connection that breaks is an OSError."""
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as response:
            raw = response.read()
        return json.loads(raw) if raw else None

    def execute(self, session: str, code: str) -> Any:
        return self.call("POST", f"/api/sessions/{session}/execute", {"code": code})

    def healthy(self) -> bool:
        try:
            return bool(self.call("GET", "/healthz") == {"status": "ok"})
        except OSError:
            return False

    def children(self, part: str) -> list[int]:
        """Children of the master whose command line holds `part`."""
        found = []
        for pid in children(self.process.pid):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if part in line:
                found.append(pid)
        return found

    def gateway(self) -> int:
        return only(lambda: self.children("onehop.cli.gateway"))

    def shim(self) -> int:
        return only(lambda: self.children("onehop.supervisor.launch"))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        assert self.process.stdout is not None
        self.process.stdout.close()


def children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        pass
    return found


class Started(Protocol):
    """A process with a folder of its own for temporary files."""

    temporary: Path
    process: Any


class Traces:
    """What exists because of a server: processes, their control groups, temporary files and mounts."""

    def __init__(self, server: Started) -> None:
        self._temporary = server.temporary
        self.processes: set[tuple[int, str]] = set()
        self.groups: set[Path] = set()
        unseen = [server.process.pid]
        while unseen:
            pid = unseen.pop()
            unseen += children(pid)
            self.processes.add((pid, started(pid)))
            self.groups |= _groups(pid)

    def left(self) -> list[str]:
        """What of it is still there."""
        found = [f"process {pid}" for pid, since in self.processes if since and started(pid) == since]
        found += [str(group) for group in self.groups if group.exists()]
        found += [str(path) for path in self._temporary.iterdir()]
        found += [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if str(self._temporary) in line
        ]
        return found


def started(pid: int) -> str:
    """Its start time in clock ticks, which tells it from a later one of the same number; "" if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _groups(pid: int) -> set[Path]:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "onehop-" not in path:
            continue
        top = path[: path.index("onehop-")] + path[path.index("onehop-") :].split("/")[0]
        for name in (*controllers.split(","), "", "unified"):
            if (place := Path("/sys/fs/cgroup", name, top.lstrip("/"))).exists():
                found.add(place)
    return found
