"""The zygote: imports an environment's usual modules once, then forks kernels into sandboxes on request.

It never runs user code. It has one thread of ours; threads that libraries started on import are
checked against a list, because a thread that holds a lock during the fork would leave it locked for
ever in every kernel. Requests come from the supervisor on a SOCK_SEQPACKET socket. It is the parent of its
kernels, so it reaps them and tells the supervisor how they ended.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from onehop.jail import enter, root, syscalls
from onehop.zygote import birth, init, launch

MESSAGE_BYTES = 65536
HUGE_PAGE_BYTES = 2 << 20


def start(control_fd: int, spec_fd: int) -> None:
    """Becomes a zygote; never returns."""
    started = time.monotonic()
    control = socket.socket(fileno=control_fd)
    spec = launch.read_spec(spec_fd)
    os.close(spec_fd)
    code = launch.write_code(spec)
    sys.path.insert(0, f"{code}/src")
    importlib.invalidate_caches()
    missing = _preload(spec)
    kernel = importlib.import_module("onehop.kernel.main")
    kernel.prepare(enter.WORKSPACE)
    template = birth.Template(spec)
    template.run = kernel.run
    _forget_code(code, spec)
    threads = _threads()
    unknown = [name for name in threads[1:] if name not in spec["allowed_threads"]]
    gc.collect()
    gc.freeze()
    huge_pages_under_heap()
    report = {
        "event": "ready",
        "seconds": round(time.monotonic() - started, 3),
        "threads": threads,
        "unknown_threads": unknown,
        "missing": missing,
        "resident_bytes": _resident(),
    }
    control.send(json.dumps(report).encode())
    if unknown:
        sys.stderr.write(f"threads that are not on the list: {unknown}\n")
        sys.stderr.flush()
        os._exit(1)
    _Zygote(control, template).serve()


def _preload(spec: dict[str, Any]) -> list[str]:
    """Imports the environment's list by its own warm-up module, which prepares fonts and the like."""
    try:
        importlib.import_module("onehop_warm").load(spec["preload"])
    except ImportError as error:
        return [str(error)]
    return []


def _forget_code(code: str, spec: dict[str, Any]) -> None:
    """Our source leaves the root before the first sandbox copies it."""
    sys.path[:] = [path for path in sys.path if not path.startswith(code)]
    sys.path_importer_cache.clear()
    if spec["namespaces"]:
        syscalls.umount(root.CODE_MOUNT, syscalls.MNT_DETACH)
    for name in [n for n in sys.modules if n == "onehop" or n.startswith("onehop.")]:
        del sys.modules[name]


def _threads() -> list[str]:
    names = []
    for task in sorted(os.listdir("/proc/self/task"), key=int):
        with open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read().strip())
    return names


def huge_pages_under_heap() -> int:
    """Gathers the heap into huge pages, so that a fork copies fewer page table entries; bytes that were gathered.

    By MADV_COLLAPSE (Linux 6.1), afterwards and once. glibc's own tunable for huge pages needs PYTHONMALLOC=malloc,
    with which a warmed-up kernel has 1 MB more of its own.
    """
    gathered = 0
    with open("/proc/self/maps") as file:
        lines = file.read().splitlines()
    for line in lines:
        fields = line.split()
        if not fields[1].startswith("rw-p") or (len(fields) > 5 and fields[5] != "[heap]"):
            continue
        first, last = (int(part, 16) for part in fields[0].split("-"))
        first, last = (
            -(-first // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES,
            last // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES,
        )
        for start in range(first, last, HUGE_PAGE_BYTES):
            try:
                syscalls.madvise(start, HUGE_PAGE_BYTES, syscalls.MADV_COLLAPSE)
            except OSError:
                continue  # nothing there yet, or an older kernel
            gathered += HUGE_PAGE_BYTES
    return gathered


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Zygote:
    def __init__(self, control: socket.socket, template: birth.Template) -> None:
        self.control = control
        self.template = template
        self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._own = [control.fileno(), self._wake, write]
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                else:
                    self._take()

    def _take(self) -> None:
        raw, fds, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, 16)
        if not raw:
            os._exit(0)  # the supervisor is gone
        request = json.loads(raw)
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            getattr(self, "on_" + request["do"])(request, fds)
        except OSError as error:
            reply = {"event": "failed", "slot": request["slot"], "do": request["do"], "detail": str(error)}
            self.control.send(json.dumps(reply).encode())
        finally:
            for fd in fds:
                os.close(fd)

    def on_sandbox(self, request: dict[str, Any], fds: list[int]) -> None:
        """Without namespaces nobody can enter a sandbox later: its init comes from here and forks its kernels."""
        pid = init.fork(self._own, request, fds, self.template)
        reply = {"event": "sandbox", "slot": request["slot"], "pid": pid}
        self.control.send(json.dumps(reply).encode())

    def on_kernel(self, request: dict[str, Any], fds: list[int]) -> None:
        """Forks a kernel into a sandbox.

        `fds` are its init's pidfd, the kernel's three, the doors of its control groups, and a Landlock ruleset.
        """
        joined, *fds = fds
        # For children only, and for good: the way back would need rights over the supervisor's namespace.
        syscalls.setns(joined, syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                doors, rest = fds[3 : 3 + request["doors"]], fds[3 + request["doors"] :]
                enter.enter_groups(doors)
                birth.join(self.template, joined, request["nice"])
                birth.become_kernel(self.template, request, fds[:3], rest[0] if rest else -1)
            except Exception as error:  # noqa: BLE001 - reported below, on the supervisor's log
                os.write(2, f"a kernel could not be started: {error!r}\n".encode())
            finally:
                os._exit(1)
        pidfd = os.pidfd_open(pid)
        try:
            reply = {"event": "kernel", "slot": request["slot"], "pid": pid}
            socket.send_fds(self.control, [json.dumps(reply).encode()], [pidfd])
        finally:
            os.close(pidfd)

    def _reap(self) -> None:
        while True:
            try:
                # Looked at before it is reaped: so long nobody else can have its number.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            try:
                os.killpg(pid, signal.SIGKILL)  # what is left of its group must not go on unseen
            except OSError:
                pass  # nothing is left, or it had no group of its own yet
            _, status = os.waitpid(pid, 0)
            message = {"event": "kernel_exit", "pid": pid, "code": os.waitstatus_to_exitcode(status)}
            self.control.send(json.dumps(message).encode())
