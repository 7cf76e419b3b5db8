"""Zygote processes as the supervisor sees them: started, watched, asked to fork, replaced when dead."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from onehop.environments.model import ALLOWED_THREADS
from onehop.errors import EngineError
from onehop.jail import enter, seccomp
from onehop.supervisor.children import Children

MESSAGE_BYTES = 65536
WALL_MARK = "# runs inside the wall:"
"""Modules with this line go into the zygote's memory; their files are unmounted before the first sandbox exists."""


class Zygote:
    """One environment's zygote, replaced by a new process whenever it dies.

    `on_forked(slot, pid)` and `on_failed(slot, detail)` answer each `fork`, on the loop.
    """

    def __init__(
        self,
        environment: dict[str, Any],
        settings: dict[str, Any],
        *,
        cgroup_memory: bool,
        on_forked: Callable[[int, int], None],
        on_failed: Callable[[int, str], None],
        on_ready: Callable[[], None],
        children: Children,
        log: Callable[[str], None],
    ) -> None:
        self.environment = environment
        self.report: dict[str, Any] = {}
        self.pid = -1
        self.ready = False
        self.restarts = 0
        self.broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the first process ended before it was ready; then nothing can be served."""
        self._settings = settings
        self._seccomp = seccomp.compile_policy(
            cgroup_memory=cgroup_memory, network_namespace=settings["namespaces"]
        )
        self._on_forked, self._on_failed, self._on_ready, self._log = on_forked, on_failed, on_ready, log
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._control: socket.socket | None = None
        self._pending: set[int] = set()
        self._closing = False
        self._problem = ""
        self._was_ever_ready = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Launches the process; `on_ready` follows when its imports are done."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as spec:
            spec.write(json.dumps(self._spec()).encode())
            spec.flush()
            spec.seek(0)
            control = theirs.fileno()
            source = str(Path(str(resources.files("onehop"))).parent)
            start = (
                f"import os, sys; os.dup2({control}, 3, inheritable=True); sys.path.insert(0, {source!r}); "
                "from onehop.zygote.launch import main; main()"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", start, str(spec.fileno())],
                pass_fds=(control, spec.fileno()),
                env={},
                stdin=subprocess.DEVNULL,
            )
        self.pid = self._process.pid
        self._children.watch(self.pid, self._died)
        ours.setblocking(False)
        self._control = ours
        self._loop.add_reader(ours, self._on_message)

    def _spec(self) -> dict[str, Any]:
        settings, environment = self._settings, self.environment
        code = _wall_code()
        single = not settings["namespaces"] or settings["user"] != 0
        return {
            "namespaces": settings["namespaces"],
            "landlock": settings["landlock"],
            "single_id": single,
            "staging": f"{settings['runtime']}/root",
            "environment": environment["path"],
            "base_prefix": environment["base_prefix"],
            "python": environment["python"],
            "version": environment["version"],
            "preload": environment["preload"],
            "id_map": "0 0 1" if single else f"0 {settings['uid_base']} 65535",
            "allowed_threads": list(ALLOWED_THREADS),
            "seccomp": self._seccomp.hex(),
            "code": code,
            "variables": self._variables(),
        }

    def _variables(self) -> dict[str, str]:
        path = "/opt/env" if self._settings["namespaces"] else self.environment["path"]
        own = {} if self._settings["namespaces"] else enter.own_places(f"{self._settings['runtime']}/root")
        return {
            "PATH": f"{path}/bin:/usr/bin:/bin",
            "VIRTUAL_ENV": path,
            "HOME": "/workspace",
            "USER": "sandbox",
            "LOGNAME": "sandbox",
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "SHELL": "/bin/bash",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environment["variables"],
            **own,
        }

    def fork(self, slot: int, uid: int, fds: list[int]) -> None:
        """Asks for a sandbox's init; `fds` are its control socket and its first kernel's descriptors.

        Raises:
            EngineError: the zygote is not ready.
        """
        if not self.ready or self._control is None:
            raise EngineError("the zygote is starting")
        request = json.dumps({"slot": slot, "id": uid}).encode()
        try:
            socket.send_fds(self._control, [request], fds)
        except OSError as error:
            raise EngineError(f"the zygote does not take requests: {error}") from error
        self._pending.add(slot)

    def _on_message(self) -> None:
        assert self._control is not None
        while True:
            try:
                raw = self._control.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                raw = b""
            if not raw:
                self._loop.remove_reader(self._control)
                return
            message = json.loads(raw)
            match message["event"]:
                case "forked":
                    self._pending.discard(message["slot"])
                    self._on_forked(message["slot"], message["pid"])
                case "failed":
                    self._pending.discard(message["slot"])
                    self._on_failed(message["slot"], message["detail"])
                case "ready":
                    self.report = message
                    if message["unknown_threads"]:
                        # It ends by itself now.
                        self._problem = (
                            f"it has threads that are not on the list: {message['unknown_threads']}"
                        )
                        continue
                    self.ready = self._was_ever_ready = True
                    self._on_ready()

    def _died(self, code: int) -> None:
        """Everything that was asked for is refused, a new process is started."""
        if self._control is not None:
            self._on_message()  # what it said before its end
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None
        was_ready, self.ready = self.ready, False
        if self._process is not None:
            self._process.returncode = code  # reaped by us, not by subprocess
        pending, self._pending = self._pending, set()
        for slot in pending:
            self._on_failed(slot, "the zygote died")
        if self._closing:
            return
        if not self._was_ever_ready and not self.broken.done():
            problem = self._problem or f"it ended with code {code} while it was starting"
            self.broken.set_result(f"the zygote of {self.environment['name']}: {problem}")
        self.restarts += 1
        self._log(f"zygote {self.environment['name']} ended with {code}; starting another")
        self._loop.call_later(0 if was_ready else min(30.0, 0.5 * 2**self.restarts), self.start)

    def close(self) -> None:
        self._closing = True
        if self._control is not None:
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None
        if self.pid > 0:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@functools.cache
def _wall_code() -> dict[str, str]:
    """Path → source of what runs inside the wall; packages get an empty `__init__`."""
    root = resources.files("onehop")
    code = {"onehop/__init__.py": "", "onehop/protocol.py": root.joinpath("protocol.py").read_text()}
    for package in ("jail", "zygote", "kernel"):
        code[f"onehop/{package}/__init__.py"] = ""
        for file in root.joinpath(package).iterdir():
            if (
                file.name.endswith(".py")
                and file.name != "__init__.py"
                and WALL_MARK in (text := file.read_text())
            ):
                code[f"onehop/{package}/{file.name}"] = text
    return code
