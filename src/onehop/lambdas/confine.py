"""The walls around a Monty worker, raised by itself before it has seen any code, and inherited by its child.

No capabilities, no new privileges; seccomp as for a sandbox without a network of its own, so no sockets but
those it has; Landlock lets it read and execute Monty's own program and the C library, nothing else, and
signal nobody outside; rlimits on memory, files and descriptors. It must never run with less than that:
where Landlock or seccomp cannot be had, there is no worker, and the lane runs everything in sandboxes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal

from onehop.errors import JailError
from onehop.jail import enter, landlock, seccomp, syscalls

ADDRESS_BYTES = 1024 * 1024 * 1024
LIMITS = {"AS": ADDRESS_BYTES, "NOFILE": 64, "CORE": 1, "MEMLOCK": 0, "MSGQUEUE": 0}
_LIBRARIES = ("libgcc_s.so.1", "libpthread.so.0", "libm.so.6", "libdl.so.2", "libc.so.6")


def confine(binary: str, *, parent: int) -> None:
    """For good.

    Args:
        binary: Monty's program, the one thing that may be executed.
        parent: pid of the gateway, with which this process ends.

    Raises:
        JailError: a wall cannot be raised, or the gateway has ended.
    """
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"800")  # before the gateway, when memory is short
        finally:
            os.close(fd)
    program = seccomp.compile_policy(cgroup_memory=False, network_namespace=False)
    abi = syscalls.landlock_abi()
    if abi < landlock.MINIMUM_ABI:
        raise JailError("the lambda lane's workers need Landlock")
    # On a symlink Landlock asks about its target, so every path is the real one.
    readable = [os.path.realpath(binary), *_libraries()]
    ruleset = landlock.ruleset(abi, readable, [], [], block_tcp=True)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise JailError("the gateway ended before its worker started")
    try:
        enter.drop_privileges(ruleset, program, LIMITS)
    except OSError as error:
        raise JailError(f"the walls of a lambda worker cannot be raised: {error}") from error
    finally:
        os.close(ruleset)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] <= ADDRESS_BYTES


def _libraries() -> list[str]:
    """Files of the C library, which the loader maps into Monty's program."""
    for name in _LIBRARIES:
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
    found = {"/etc/ld.so.cache"}
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            name = path.rpartition("/")[2]
            if name.startswith(("ld-linux", "ld-musl", "libc.", "libc-")) or name in _LIBRARIES:
                found.add(f"/{path}")
    return sorted(found)
