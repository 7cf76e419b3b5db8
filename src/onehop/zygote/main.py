"""The zygote: imports an environment's usual modules once, then forks sandboxes on request.

It never runs user code. It has one thread of ours; threads that libraries started on import are
checked against a list, because a thread that holds a lock during the fork would leave it locked for
ever in every sandbox. Requests come from the supervisor on descriptor 3, a SOCK_SEQPACKET socket.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from onehop.jail import enter, syscalls
from onehop.zygote import init

CONTROL_FD = 3
MESSAGE_BYTES = 65536
HUGE_PAGE_BYTES = 2 << 20


def main(code: str) -> None:
    started = time.monotonic()
    with open(f"{code}/spec.json") as file:
        spec: dict[str, Any] = json.load(file)
    control = socket.socket(fileno=CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    missing = _preload(spec)
    kernel = importlib.import_module("onehop.kernel.main")
    kernel.prepare(enter.WORKSPACE)
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
        sys.exit(f"threads that are not on the list: {unknown}")
    _serve(control, spec)


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
        syscalls.umount(code, syscalls.MNT_DETACH)
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


def _serve(control: socket.socket, spec: dict[str, Any]) -> None:
    template = init.Template(spec)
    while True:
        raw, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 8)
        if not raw:
            os._exit(0)  # the supervisor is gone
        request = json.loads(raw)
        for fd in fds:
            os.set_inheritable(fd, False)
        try:
            pid = _fork_sandbox(control, request, fds, template)
            reply = {"event": "forked", "slot": request["slot"], "pid": pid}
        except OSError as error:
            reply = {"event": "failed", "slot": request["slot"], "errno": error.errno, "detail": str(error)}
        for fd in fds:
            os.close(fd)
        control.send(json.dumps(reply).encode())


def _fork_sandbox(
    control: socket.socket, request: dict[str, Any], fds: list[int], template: init.Template
) -> int:
    """One new sandbox: its init is a child of the supervisor (CLONE_PARENT), which reaps it."""
    flags = syscalls.CLONE_PARENT
    if template.namespaces:
        flags |= (
            syscalls.CLONE_NEWUSER
            | syscalls.CLONE_NEWNS
            | syscalls.CLONE_NEWPID
            | syscalls.CLONE_NEWNET
            | syscalls.CLONE_NEWIPC
            | syscalls.CLONE_NEWUTS
        )
    pid = syscalls.clone(flags)
    if pid == 0:
        try:
            control.close()
            init.main(template, request, fds)
        except BaseException as error:  # noqa: BLE001 - the process must end here, whatever happened
            init.report_failure(fds[0], error)
        finally:
            os._exit(1)
    if template.namespaces:
        # The child waits on its control socket for "go", which the supervisor sends after our reply.
        inner = f"{init.UID} {request['id']} 1"
        for name in ("uid_map", "gid_map"):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, inner.encode())
            finally:
                os.close(fd)
    return pid
