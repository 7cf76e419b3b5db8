"""Starts and ends the workers: the only part of the tools that may have privileges, and the one with the secrets.

The gateway asks over a socket for a source by its name and gets the worker's socket back. This process
runs no code of a source and reads nothing but names and numbers; it ends with the gateway and with the
server, and all workers end with it. It must never tell a worker a secret that is not named for its source.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from onehop.jail import syscalls
from onehop.tools.model import SourceSpec
from onehop.tools.worker import SPEC_VARIABLE

MESSAGE_BYTES = 4096
END_S = 5.0
LOOK_S = 1.0
"""How often the files of sources are looked at."""
PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PYTHONDONTWRITEBYTECODE",
)
"""All that a worker has of the operator's environment, besides the secrets named for it."""
VARIABLE = "ONEHOP_LAUNCHER_SPEC"


class Launched:
    """A started launcher, for the process that started it.

    Attributes:
        channel: the gateway's end of its socket; when that is closed everywhere, all workers end.
    """

    def __init__(self, channel: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.channel = channel
        self._process = process

    def end(self) -> None:
        """Returns when it and all workers are gone."""
        self.channel.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start(
    sources: Sequence[SourceSpec], *, first_uid: int | None, allow_no_namespaces: bool = False
) -> Launched:
    """Starts the launcher as a child of this process; it has this process's environment.

    Args:
        first_uid: host uid of the first source's worker; None where all run as this user.
        allow_no_namespaces: where they are refused, workers see every open file.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    about = {
        "sources": msgspec.to_builtins(list(sources)),
        "first_uid": first_uid,
        "allow_no_namespaces": allow_no_namespaces,
        "parent": os.getpid(),
    }
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", "onehop.tools.launcher", str(theirs.fileno())],
            env=os.environ | {VARIABLE: json.dumps(about)},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
        )
    return Launched(ours, process)


def main(arguments: list[str]) -> int:
    (fd,) = map(int, arguments)
    os.set_inheritable(fd, False)
    about = json.loads(os.environ.pop(VARIABLE))
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # its environment has the secrets
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != about["parent"]:
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(fileno=fd) as channel:
        launcher = Launcher(channel, about)
        try:
            launcher.run()
        finally:
            launcher.end_all()
    return 0


class Worker:
    """A started process, and the folder that is its home."""

    def __init__(self, number: int, source: str, process: subprocess.Popen[bytes], home: str) -> None:
        self.number = number
        self.source = source
        self.process = process
        self.home = home
        self.pidfd = os.pidfd_open(process.pid)

    def end(self) -> None:
        """Kills what is left of it and of all that it started in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.pidfd)
        shutil.rmtree(self.home, ignore_errors=True)


class Launcher:
    def __init__(self, channel: socket.socket, about: dict[str, Any]) -> None:
        self._channel = channel
        self._about = about
        self._sources = {
            one.name: (number, one)
            for number, one in enumerate(msgspec.convert(about["sources"], list[SourceSpec]))
        }
        self._workers: dict[int, Worker] = {}
        self._stamps = {name: _stamp(one) for name, (_, one) in self._sources.items()}

    def run(self) -> None:
        """Until the gateway hangs up."""
        look_s = time.monotonic() + LOOK_S
        while True:
            waits = [self._channel.fileno(), *(worker.pidfd for worker in self._workers.values())]
            ready, _, _ = select.select(waits, [], [], max(0.0, look_s - time.monotonic()))
            for number, worker in list(self._workers.items()):
                if worker.pidfd in ready:
                    self._ended(number)
            if self._channel.fileno() in ready and not self._take():
                return
            if time.monotonic() >= look_s:
                self._look()
                look_s = time.monotonic() + LOOK_S

    def _take(self) -> bool:
        try:
            message = self._channel.recv(MESSAGE_BYTES)
        except ConnectionResetError:  # it did not take all that we told it
            return False
        if not message:
            return False
        request = json.loads(message)
        if "start" in request:
            self._start(request["start"], request["source"])
        elif request.get("kill") in self._workers:
            self._workers[request["kill"]].process.kill()
        return True

    def _start(self, number: int, name: str) -> None:
        position, source = self._sources[name]
        first = self._about["first_uid"]
        uid = None if first is None else first + position
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            try:
                worker = self._spawn(number, source, uid, theirs)
            except OSError as error:
                self._tell({"ended": number, "how": str(error)})
                return
            self._workers[number] = worker
            with contextlib.suppress(OSError):
                socket.send_fds(self._channel, [json.dumps({"started": number}).encode()], [ours.fileno()])

    def _spawn(self, number: int, source: SourceSpec, uid: int | None, theirs: socket.socket) -> Worker:
        home = tempfile.mkdtemp(prefix=f"onehop-{source.name}-")
        if uid is not None:
            os.chown(home, uid, uid)
        spec = {
            "source": msgspec.to_builtins(source),
            "uid": uid,
            "parent": os.getpid(),
            "allow_no_namespaces": self._about["allow_no_namespaces"],
        }
        variables = {name: os.environ[name] for name in (*PASSED_ON, *source.secrets) if name in os.environ}
        variables |= {"HOME": home, "TMPDIR": home, SPEC_VARIABLE: json.dumps(spec), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", "onehop.tools.worker", str(theirs.fileno())],
            env=variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        return Worker(number, source.name, process, home)

    def _ended(self, number: int) -> None:
        worker = self._workers.pop(number)
        worker.end()
        code = worker.process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._tell({"ended": number, "how": how})

    def _look(self) -> None:
        for name, (_, source) in self._sources.items():
            now = _stamp(source)
            if now != self._stamps[name]:
                self._stamps[name] = now
                self._tell({"changed": name})
        # Orphans of workers are ours to reap.
        known = {worker.process.pid for worker in self._workers.values()}
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if found.si_pid in known:
                    break
                os.waitpid(found.si_pid, 0)

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(message).encode())

    def end_all(self) -> None:
        """Ends all workers, and what they have left behind outside their groups."""
        for worker in self._workers.values():
            worker.end()
        while children := Path("/proc/thread-self/children").read_text().split():
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(pid), 0)


def _stamp(source: SourceSpec) -> tuple[Any, ...]:
    """Changes with the files of a source."""
    path = source.options.get("module") or source.options.get("document")
    if not isinstance(path, str):
        return ()
    found: list[Any] = []
    paths = sorted(Path(path).rglob("*.py")) if os.path.isdir(path) else [Path(path)]
    for one in paths:
        with contextlib.suppress(OSError):
            about = one.stat()
            found.append((str(one), about.st_mtime_ns, about.st_size, about.st_ino))
    return tuple(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
