"""The shim between a server and its supervisor: makes the namespaces that the supervisor lives in.

The supervisor becomes PID 1 of a PID namespace, so that its end, however it comes, ends every zygote
and every sandbox. For an ordinary user it gets a user namespace as well, in which it is root. The
shim waits, passes signals on, and cleans up what outlives a kill -9: control groups and a directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from types import FrameType
from typing import Any

from onehop.jail import syscalls


def main() -> None:
    spec: dict[str, Any] = json.loads(os.environ["ONEHOP_SUPERVISOR_SPEC"])
    parent = os.getppid()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the server ended before its supervisor started")
    if spec["namespaces"]:
        flags = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS
        if os.geteuid() != 0:
            flags |= syscalls.CLONE_NEWUSER
        uid, gid = os.geteuid(), os.getegid()
        syscalls.unshare(flags)
        if flags & syscalls.CLONE_NEWUSER:
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
    child = os.fork()
    if child == 0:
        _become_supervisor(spec)
    _close_inherited(spec)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _forward(child))
    while True:
        try:
            _, status = os.waitpid(child, 0)
            break
        except InterruptedError:
            continue
    _clean_up(spec)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


def _forward(child: int) -> Any:
    def handler(number: int, frame: FrameType | None) -> None:
        os.kill(child, signal.SIGTERM)

    return handler


def _close_inherited(spec: dict[str, Any]) -> None:
    for name in ("listen_fd", "report_fd"):
        os.close(spec[name])


def _become_supervisor(spec: dict[str, Any]) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec["namespaces"]:
        # Its own once more: the shim needs the /proc that it has, to find what is left at the end.
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    else:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(spec["listen_fd"], True)
    os.set_inheritable(spec["report_fd"], True)
    os.execv(sys.executable, [sys.executable, "-c", "from onehop.supervisor.main import main; main()"])


def _clean_up(spec: dict[str, Any]) -> None:
    from onehop.jail import cgroups

    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        try:
            if cgroups.remove(spec["token"]):
                break
        except OSError:
            break
        time.sleep(0.02)  # the kernel is still at the processes that were in them
    shutil.rmtree(spec["runtime"], ignore_errors=True)


if __name__ == "__main__":
    main()
