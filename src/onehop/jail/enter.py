"""Raises the walls around a sandbox, from the inside: first by its init, then by each process it starts.

`enter_sandbox` runs once, in the sandbox's first process, which keeps its capabilities over the
sandbox's own namespaces; `drop_privileges` runs in every process that may touch user code or user
files, and after it nothing can be regained. No user code may run before both.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct

from onehop.jail import landlock
from onehop.jail import syscalls as sys

UID = 1000
"""The uid and gid of user code, inside."""
WORKSPACE = "/workspace"
READ_WRITE = (WORKSPACE, "/tmp", "/dev/shm")
DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
UNLIMITED = resource.RLIM_INFINITY


def enter_sandbox(
    *,
    workspace_bytes: int,
    workspace_inodes: int,
    tmp_bytes: int,
    shm_bytes: int,
    abi: int,
    last_capability: int,
) -> tuple[int, int]:
    """Mounts, network, names and ids of a new sandbox whose namespaces exist already.

    Returns:
        The workspace's directory descriptor and a Landlock ruleset's (-1 without Landlock).

    Raises:
        OSError: the kernel refuses a step; the sandbox must be given up.
    """
    sys.write_file("/proc/self/oom_score_adj", "0")
    # A second wall behind seccomp: even with a hole in the filter no user namespace can be made here.
    sys.write_file("/proc/sys/user/max_user_namespaces", "0")
    sys.unshare(sys.CLONE_NEWCGROUP)
    flags = sys.MS_NOSUID | sys.MS_NODEV
    # subset=pid leaves nothing but the process directories: kcore, keys, sys, sysrq-trigger, timer_list,
    # meminfo and the rest do not exist at all, so there is nothing to mask.
    sys.mount("proc", "/proc", "proc", flags | sys.MS_NOEXEC, "subset=pid,hidepid=invisible")
    for path, size, inodes, mode in (
        ("/tmp", tmp_bytes, 16384, "1777"),
        ("/dev/shm", shm_bytes, 1024, "1777"),
        (WORKSPACE, workspace_bytes, workspace_inodes, "755"),
    ):
        sys.mount(
            "tmpfs", path, "tmpfs", flags, f"size={size},nr_inodes={inodes},mode={mode},uid={UID},gid={UID}"
        )
    _loopback_up()
    sys.sethostname("sandbox")
    become_user(last_capability)
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    workspace = os.open(WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    ruleset = landlock.ruleset(abi, ["/"], list(READ_WRITE), list(DEVICES)) if abi else -1
    return workspace, ruleset


def enter_groups(doors: list[int]) -> None:
    """Goes into control groups by the descriptors that cgroups.Group.doors gave, and closes them."""
    for fd in doors:
        os.write(fd, b"0")
        os.close(fd)


def become_user(last_capability: int) -> None:
    """The uid and gid of user code; what is left of the capabilities goes with `drop_privileges`."""
    sys.drop_bounding_set(last_capability)
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def resize_workspace(workspace_bytes: int, workspace_inodes: int) -> None:
    """Changes the quota of a sandbox that has not been handed out yet."""
    sys.mount(
        "tmpfs",
        WORKSPACE,
        "tmpfs",
        sys.MS_REMOUNT | sys.MS_NOSUID | sys.MS_NODEV,
        f"size={workspace_bytes},nr_inodes={workspace_inodes}",
    )


def set_limits(limits: dict[str, int]) -> None:
    """rlimits by the resource module's names without RLIMIT_, soft and hard alike."""
    for name, value in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        value = UNLIMITED if value < 0 else value
        _, hard = resource.getrlimit(number)
        if hard != UNLIMITED and (value == UNLIMITED or value > hard):
            value = hard
        resource.setrlimit(number, (value, value))


def drop_privileges(ruleset: int, seccomp: bytes, limits: dict[str, int]) -> None:
    """No capabilities, no new privileges, rlimits, Landlock, seccomp: in this order, for good."""
    set_limits(limits)
    sys.drop_capabilities()
    sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)
    if ruleset >= 0:
        sys.landlock_restrict_self(ruleset)
    sys.load_seccomp(seccomp)


def _loopback_up() -> None:
    # struct ifreq of netdevice(7): name[16], short flags. 0x8913 SIOCGIFFLAGS, 0x8914 SIOCSIFFLAGS, 1 IFF_UP.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = fcntl.ioctl(s, 0x8913, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack("16sh22x", request)[1]
        fcntl.ioctl(s, 0x8914, struct.pack("16sh22x", b"lo", flags | 1))


def enter_without_namespaces(directory: str, environment: str, base_prefix: str, abi: int) -> tuple[int, int]:
    """The weaker wall for machines that refuse namespaces, used only where the operator asked for it by name.

    Landlock alone says what can be opened: the system's programs and libraries and the environment to
    read, `workspace` and `tmp` below `directory` (on the host's disk) and nothing else to write.

    Raises:
        OSError: there is no Landlock; then nothing would be left to hold user code.
    """
    if abi < landlock.MINIMUM_ABI:
        raise OSError(95, "without namespaces and without Landlock no wall is left")
    os.setsid()
    sys.prctl(sys.PR_SET_CHILD_SUBREAPER, 1)
    sys.prctl(sys.PR_SET_DUMPABLE, 1)  # otherwise root owns the files below /proc/self
    sys.write_file("/proc/self/oom_score_adj", "0")
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    workspace = os.open(f"{directory}/workspace", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    system = [
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/usr/share",
        "/bin",
        "/lib",
        "/lib64",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/alternatives",
        "/etc/mime.types",
    ]
    readable = [*system, environment, f"{base_prefix}/lib", f"{base_prefix}/bin"]
    writable = [f"{directory}/workspace", f"{directory}/tmp"]
    return workspace, landlock.ruleset(abi, readable, writable, list(DEVICES), block_tcp=True)


def own_places(directory: str) -> dict[str, str]:
    """Variables that keep libraries out of /tmp, which other users of the machine share."""
    return {
        "TMPDIR": directory,
        "XDG_CACHE_HOME": f"{directory}/.cache",
        "MPLCONFIGDIR": f"{directory}/.cache/matplotlib",
        "IPYTHONDIR": f"{directory}/.ipython",
    }
