"""Seeds and zygotes as the supervisor sees them: started, watched, asked to fork, replaced when dead."""

from __future__ import annotations

import asyncio
import contextlib
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
from typing import Any, Protocol

from onehop.environments.model import ALLOWED_THREADS
from onehop.errors import EngineError
from onehop.jail import enter, seccomp
from onehop.supervisor.children import Children

MESSAGE_BYTES = 65536
WALL_MARK = "# runs inside the wall:"
"""Modules with this line go into the zygote's memory; their files are unmounted before the first sandbox exists."""


class KernelRequest(Protocol):
    """Who wants a kernel in a sandbox; exactly one of `started` and `failed` is called, then perhaps `exited`."""

    what: dict[str, Any]
    """What a kernel is told at its birth; see zygote/birth.py."""

    def fds(self) -> list[int]:
        """What zygote/main.py wants; none when it is too late."""

    def sent(self) -> None:
        """The descriptors are on their way."""

    def started(self, pid: int, pidfd: int) -> None:
        """`pidfd` is the receiver's to close."""

    def failed(self, detail: str) -> None: ...
    def exited(self, code: int) -> None: ...


class Zygote:
    """One environment's seed and zygote; a zygote that dies is replaced by a new process from the same seed.

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
        self._seed: subprocess.Popen[bytes] | None = None
        self._seed_control: socket.socket | None = None
        self._control: socket.socket | None = None
        self._pending: set[int] = set()
        self._kernels = 0
        self._asked: dict[int, KernelRequest] = {}
        self._alive: dict[int, KernelRequest] = {}
        self._closing = False
        self._problem = ""
        self._was_ever_ready = False

    def start(self) -> None:
        """Starts the process, and its seed if there is none; `on_ready` follows when its imports are done."""
        if self._closing:
            return
        if self._seed is None:
            self._launch_seed()
        assert self._seed_control is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._seed_control, [b'{"do": "zygote"}'], [theirs.fileno()])
            except OSError as error:
                ours.close()
                self._log(f"the seed of {self.environment['name']} does not take requests: {error}")
                return  # its end is being reported, and brings us here again
        self._control = _listen(self._loop, ours, self._on_message)

    def _launch_seed(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as spec:
            spec.write(json.dumps(self._spec()).encode())
            spec.flush()
            control = theirs.fileno()
            source = str(Path(str(resources.files("onehop"))).parent)
            start = (
                f"import os, sys; os.dup2({control}, 3, inheritable=True); sys.path.insert(0, {source!r}); "
                "from onehop.zygote.launch import main; main()"
            )
            self._seed = subprocess.Popen(
                [sys.executable, "-I", "-c", start, str(spec.fileno())],
                pass_fds=(control, spec.fileno()),
                env={},
                stdin=subprocess.DEVNULL,
            )
        self._children.watch(self._seed.pid, self._seed_died)
        self._seed_control = _listen(self._loop, ours, self._on_seed_message)

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

    def fork(self, slot: int, uid: int, go: dict[str, Any], fds: list[int]) -> None:
        """Asks for a sandbox's init, which is told `go`; `fds` are its control socket, and its first kernel's without
        namespaces.

        Raises:
            EngineError: the zygote is not ready.
        """
        source = self._seed_control if self._settings["namespaces"] else self._control
        if not self.ready or source is None:
            raise EngineError("the zygote is starting")
        request = json.dumps({"do": "sandbox", "slot": slot, "id": uid, "go": go}).encode()
        try:
            socket.send_fds(source, [request], fds)
        except OSError as error:
            raise EngineError(f"the zygote does not take requests: {error}") from error
        self._pending.add(slot)

    def fork_kernel(self, request: KernelRequest) -> None:
        """Asks for a kernel in a sandbox; while a dead zygote is being replaced the request waits."""
        self._kernels += 1
        self._asked[self._kernels] = request
        if self.ready:
            self._send_kernel(self._kernels, request)

    def _send_kernel(self, number: int, request: KernelRequest) -> None:
        fds = request.fds()
        if not fds:
            del self._asked[number]  # its sandbox has ended meanwhile
            return
        assert self._control is not None
        message = json.dumps({"do": "kernel", "slot": number, **request.what}).encode()
        try:
            socket.send_fds(self._control, [message], fds)
            request.sent()
        except OSError as error:
            request.sent()
            del self._asked[number]
            request.failed(f"the zygote does not take requests: {error}")

    def _on_seed_message(self) -> None:
        assert self._seed_control is not None
        while (message := _receive(self._loop, self._seed_control)) is not None:
            match message[0]["event"]:
                case "zygote":
                    self.pid = message[0]["pid"]
                    self._children.watch(self.pid, self._died)
                case "failed" if message[0]["slot"] is None:
                    self._problem = message[0]["detail"]
                    self._kill(self._seed.pid if self._seed is not None else -1)
                case _:
                    self._answered(message[0])

    def _answered(self, message: dict[str, Any]) -> None:
        slot = message["slot"]
        self._pending.discard(slot)
        if message["event"] == "sandbox":
            self._on_forked(slot, message["pid"])
        else:
            self._on_failed(slot, message["detail"])

    def _on_message(self) -> None:
        while self._control is not None and (received := _receive(self._loop, self._control)) is not None:
            message, fds = received
            match message["event"]:
                case "kernel":
                    self._alive[message["pid"]] = request = self._asked.pop(message["slot"])
                    request.started(message["pid"], fds.pop())
                case "failed" if message["do"] == "kernel":
                    self._asked.pop(message["slot"]).failed(message["detail"])
                case "kernel_exit":
                    self._alive.pop(message["pid"]).exited(message["code"])
                case "ready":
                    self._take_report(message)
                case _:
                    self._answered(message)
            for fd in fds:
                os.close(fd)

    def _take_report(self, report: dict[str, Any]) -> None:
        self.report = report
        if report["unknown_threads"]:
            # It ends by itself now.
            self._problem = f"it has threads that are not on the list: {report['unknown_threads']}"
            return
        self.ready = self._was_ever_ready = True
        for number, request in list(self._asked.items()):
            self._send_kernel(number, request)
        self._on_ready()

    def _died(self, code: int) -> None:
        """What it was asked for is refused, except for kernels: a new process is started, which makes them."""
        if self._control is not None:
            self._on_message()  # what it said before its end
            self._loop.remove_reader(self._control)
            self._control.close()
            self._control = None
        was_ready, self.ready = self.ready, False
        self.pid = -1
        # Its kernels live on, as our children now.
        orphans, self._alive = self._alive, {}
        for pid, request in orphans.items():
            with contextlib.suppress(ProcessLookupError):
                self._children.watch(pid, request.exited)
        if not self._settings["namespaces"]:
            self._refuse("the zygote died")
        if self._closing:
            return
        if not self._was_ever_ready and not self.broken.done():
            problem = self._problem or f"it ended with code {code} while it was starting"
            self.broken.set_result(f"the zygote of {self.environment['name']}: {problem}")
        self.restarts += 1
        self._log(f"zygote {self.environment['name']} ended with {code}; starting another")
        self._loop.call_later(0 if was_ready else min(30.0, 0.5 * 2**self.restarts), self.start)

    def _seed_died(self, code: int) -> None:
        """Nobody can enter the sandboxes that it made any more; those that need a kernel are told so."""
        if self._seed_control is not None:
            self._on_seed_message()
            self._loop.remove_reader(self._seed_control)
            self._seed_control.close()
            self._seed_control = None
        if self._seed is not None:
            self._seed.returncode = code  # reaped by us, not by subprocess
            self._seed = None
        self._refuse("the seed died")
        asked, self._asked = self._asked, {}
        for request in asked.values():
            request.failed("the seed of its environment died")
        if self.pid > 0:
            self._kill(self.pid)  # which brings us to `_died`
        else:
            self._died(code)

    def _refuse(self, detail: str) -> None:
        pending, self._pending = self._pending, set()
        for slot in pending:
            self._on_failed(slot, detail)

    def close(self) -> None:
        self._closing = True
        for control in (self._control, self._seed_control):
            if control is not None:
                self._loop.remove_reader(control)
                control.close()
        self._control = self._seed_control = None
        for pid in (self.pid, self._seed.pid if self._seed is not None else -1):
            self._kill(pid)

    @staticmethod
    def _kill(pid: int) -> None:
        if pid > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _listen(
    loop: asyncio.AbstractEventLoop, control: socket.socket, reader: Callable[[], None]
) -> socket.socket:
    control.setblocking(False)
    loop.add_reader(control, reader)
    return control


def _receive(
    loop: asyncio.AbstractEventLoop, control: socket.socket
) -> tuple[dict[str, Any], list[int]] | None:
    """The next message with its descriptors; None when there is none now, or the other side has ended."""
    try:
        raw, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
    except BlockingIOError:
        return None
    except OSError:
        raw, fds = b"", []
    if not raw:
        loop.remove_reader(control)
        return None
    return json.loads(raw), fds


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
