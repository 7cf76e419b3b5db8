"""The Linux system calls that Python 3.11 has no function for, with their errno as OSError.

Numbers and constants are from the kernel's uapi headers (linux/sched.h, linux/mount.h,
linux/landlock.h, linux/prctl.h, linux/capability.h). It must never be imported by user code's side
of the kernel after the walls are up, and it does nothing on its own.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import ctypes
import os
import platform
import struct

# PyDLL keeps the GIL during the call: after a raw clone() the child's only thread then holds it, too.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]

_NUMBERS = {
    "x86_64": {"clone": 56, "pivot_root": 155, "capset": 126, "seccomp": 317, "umount2": 166, "mount": 165}
    | {"renameat2": 316},
    "aarch64": {"clone": 220, "pivot_root": 41, "capset": 91, "seccomp": 277, "umount2": 39, "mount": 40}
    | {"renameat2": 276},
}
_MACHINE = platform.machine()
_NR = _NUMBERS.get(_MACHINE, _NUMBERS["x86_64"]) | {
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "openat2": 437,
    "fchmodat2": 452,
}

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000
SIGCHLD = 17

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
AT_RECURSIVE = 0x8000
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
MADV_COLLAPSE = 25

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_THP_DISABLE = 41

CAP_SYS_ADMIN = 21
CAP_LAST = 40  # CAP_CHECKPOINT_RESTORE; a later one is asked for from /proc/sys/kernel/cap_last_cap

RENAME_NOREPLACE, RENAME_EXCHANGE = 0x1, 0x2

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x01, 0x02, 0x04, 0x08


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    converted = [
        ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) if isinstance(a, bytes) else a
        for a in arguments
    ]
    return _check(_libc.syscall(ctypes.c_long(_NR[name]), *converted), name)


def clone(flags: int) -> int:
    """fork() with namespace flags: 0 in the child, its pid in the parent.

    It bypasses glibc's fork handlers, so the caller must have one thread only, and the child must
    os.fork() before it runs anything that depends on the cached thread id.
    """
    return _syscall("clone", flags, 0, 0, 0, 0)


def setns(pidfd: int, flags: int) -> None:
    """Enters the namespaces `flags` of a process (Linux 5.8); CLONE_NEWPID counts for children only."""
    _check(_libc.setns(ctypes.c_int(pidfd), ctypes.c_int(flags)), "setns")


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    try:
        _syscall("mount", os.fsencode(source), os.fsencode(target), kind.encode(), flags, options.encode())
    except OSError as error:
        raise OSError(
            error.errno, f"mount {kind or 'bind'} on {target}: {os.strerror(error.errno or 0)}"
        ) from None


def umount(target: str, flags: int = 0) -> None:
    _syscall("umount2", os.fsencode(target), flags)


def mount_setattr(path: str, attributes: int, *, recursive: bool = False) -> None:
    """Adds mount attributes (needs Linux 5.12); unlike a bind remount it keeps the flags it does not name."""
    attr = struct.pack("QQQQ", attributes, 0, 0, 0)
    _syscall(
        "mount_setattr",
        AT_FDCWD,
        os.fsencode(path),
        AT_RECURSIVE if recursive else 0,
        ctypes.create_string_buffer(attr, len(attr)),
        len(attr),
    )


def pivot_root(new_root: str, put_old: str) -> None:
    _syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old))


def madvise(address: int, length: int, advice: int) -> None:
    """`length` in bytes, `address` at a page's beginning."""
    _check(_libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), ctypes.c_int(advice)), "madvise")


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    return _check(_prctl(option, a, b, c, d), "prctl")


def prctl_name(name: str) -> None:
    """What ps shows of this thread, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def sethostname(name: str) -> None:
    raw = name.encode()
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), "sethostname")


def last_capability() -> int:
    try:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            return int(file.read())
    except OSError:
        return CAP_LAST


def drop_bounding_set(last: int) -> None:
    for capability in range(last + 1):
        if _prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            _check(-1, "PR_CAPBSET_DROP")


def drop_capabilities() -> None:
    """Clears the ambient, effective, permitted and inheritable sets of this thread."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    empty = bytes(24)
    _syscall(
        "capset",
        ctypes.create_string_buffer(header, len(header)),
        ctypes.create_string_buffer(empty, len(empty)),
    )


def load_seccomp(program: bytes) -> None:
    """Installs a BPF program (array of struct sock_filter, 8 bytes each) for this thread and its children."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _syscall("seccomp", 1, 0, ctypes.create_string_buffer(fprog, len(fprog)))  # SECCOMP_SET_MODE_FILTER


def landlock_abi() -> int:
    """The Landlock ABI version of the running kernel, 0 where there is none."""
    try:
        return _syscall("landlock_create_ruleset", None, 0, 1)  # LANDLOCK_CREATE_RULESET_VERSION
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    return _syscall(
        "landlock_create_ruleset",
        ctypes.create_string_buffer(attributes, len(attributes)),
        len(attributes),
        0,
    )


def landlock_add_path_rule(ruleset: int, allowed: int, path_fd: int) -> None:
    rule = struct.pack("=Qi", allowed, path_fd)  # struct landlock_path_beneath_attr is packed
    _syscall("landlock_add_rule", ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0)


def landlock_restrict_self(ruleset: int) -> None:
    _syscall("landlock_restrict_self", ruleset, 0)


def openat2(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """open() below a directory descriptor with RESOLVE_* restrictions; returns a descriptor."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _syscall("openat2", directory, path, ctypes.create_string_buffer(how, len(how)), len(how))


def renameat2(from_directory: int, name: bytes, to_directory: int, to_name: bytes, flags: int) -> None:
    """rename() between directory descriptors; RENAME_NOREPLACE fails with EEXIST, RENAME_EXCHANGE swaps."""
    _syscall("renameat2", from_directory, name, to_directory, to_name, flags)


def fchmodat2(directory: int, name: bytes, mode: int, flags: int) -> None:
    """chmod() that does not follow a symlink, with AT_SYMLINK_NOFOLLOW; ENOSYS before Linux 6.6."""
    _syscall("fchmodat2", directory, name, mode, flags)


def write_file(path: str, text: str) -> None:
    """One write, as files of /proc and of control groups want it. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
