"""From a fork to a kernel: what a process does between the zygote's memory and the first cell.

It runs in a child of the zygote that joins a sandbox (`join`), or, where there are no namespaces, in a
child of the sandbox's init. No user code may run before `become_kernel` has dropped the last privilege.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from typing import Any

from onehop.jail import enter, landlock, syscalls

Run = Callable[[int, str, dict[str, str]], None]
"""onehop.kernel.main.run, which only a zygote has loaded."""
SHARED = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWCGROUP
)
CHANNEL_FD = 3


class Template:
    """What all sandboxes of a zygote have in common, worked out once before the first fork."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.namespaces: bool = spec["namespaces"]
        self.abi = syscalls.landlock_abi() if spec["landlock"] else 0
        self.last_capability = syscalls.last_capability()
        self.seccomp = bytes.fromhex(spec["seccomp"])
        self.run: Run | None = None


def join(template: Template, init: int, nice: int) -> None:
    """Enters the namespaces of the sandbox whose init has the pidfd `init`; its PID namespace was the fork's.

    The user namespace comes last: in any other order an ordinary user's server is refused (EPERM).
    """
    if nice:
        os.nice(nice)
    syscalls.setns(init, SHARED)
    syscalls.setns(init, syscalls.CLONE_NEWUSER)
    enter.become_user(template.last_capability)


def become_kernel(template: Template, request: dict[str, Any], fds: list[int], ruleset: int) -> None:
    """Drops every privilege and serves cells. Never returns.

    Args:
        request: `home`, `limits` and `environ` of the sandbox.
        fds: the kernel's channel, stdout and stderr.
        ruleset: a Landlock ruleset's descriptor, -1 without Landlock.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    # The exact set of descriptors a kernel starts with: 0 /dev/null, 1 and 2 pipes, 3 its channel.
    null = os.open("/dev/null", os.O_RDWR)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in (null, fds[1], fds[2], fds[0])]
    if ruleset >= 0:
        ruleset = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, 16)
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=target != CHANNEL_FD)
    if ruleset >= 0:
        ruleset = os.dup2(ruleset, CHANNEL_FD + 1, inheritable=False)
    os.closerange(CHANNEL_FD + 2, 1 << 30)
    os.chdir(request["home"])
    # Dumpable, so that /proc/self belongs to the process itself (/dev/fd, /dev/stdout).
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    write_oom_score(1000)
    if ruleset >= 0 and not template.namespaces:
        landlock.allow_reading(ruleset, "/proc/self")
    enter.drop_privileges(ruleset, template.seccomp, request["limits"])
    if ruleset >= 0:
        os.close(ruleset)
    assert template.run is not None
    template.run(CHANNEL_FD, request["home"], request["environ"])


def write_oom_score(score: int) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)
