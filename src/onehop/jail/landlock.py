"""Landlock, the second wall: what a sandbox may open, whatever the mounts and permissions say.

Constants are from linux/landlock.h. It never loosens: a ruleset handles every right that the
running kernel's ABI knows, so a right that is not granted below is refused.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import os
import struct

from onehop.jail import syscalls

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << n for n in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << n for n in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # ABI 2, 3, 5
SCOPE_ABSTRACT_UNIX_SOCKET, SCOPE_SIGNAL = 1, 2  # ABI 6
NET_BIND_TCP, NET_CONNECT_TCP = 1, 2  # ABI 4

READ_ONLY = EXECUTE | READ_FILE | READ_DIR
READ_WRITE = (
    READ_ONLY
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
)
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE
_FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
MINIMUM_ABI = 1
STRICT_ABI = 3  # TRUNCATE: before it, a file that may not be written could still be emptied


def handled(abi: int) -> int:
    """All filesystem rights that ABI version `abi` can refuse."""
    rights = (1 << 13) - 1
    if abi >= 2:
        rights |= REFER
    if abi >= 3:
        rights |= TRUNCATE
    if abi >= 5:
        rights |= IOCTL_DEV
    return rights


def allow_reading(descriptor: int, path: str) -> None:
    """Adds one rule to a ruleset: for what exists only in the process that is about to restrict itself."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.landlock_add_path_rule(descriptor, READ_FILE | READ_DIR, fd)
    finally:
        os.close(fd)


def ruleset(
    abi: int, read_only: list[str], read_write: list[str], devices: list[str], *, block_tcp: bool = False
) -> int:
    """A ruleset as a descriptor; paths that do not exist are left out (nothing is granted for them).

    Args:
        abi: what `landlock_abi()` said, at least 1.
        block_tcp: refuse TCP bind and connect too (where there is no network namespace).
    """
    rights = handled(abi)
    # A program may signal only itself and its own children: not its init, not a porter.
    scoped = SCOPE_SIGNAL | SCOPE_ABSTRACT_UNIX_SOCKET if abi >= 6 else 0
    net = NET_BIND_TCP | NET_CONNECT_TCP if block_tcp and abi >= 4 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("QQQ", rights, net, scoped)[:size]
    descriptor = syscalls.landlock_create_ruleset(attributes)
    try:
        for paths, allowed in ((read_only, READ_ONLY), (read_write, READ_WRITE), (devices, DEVICE)):
            for path in paths:
                try:
                    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                try:
                    grant = allowed if os.path.isdir(path) else allowed & _FILE_ONLY
                    syscalls.landlock_add_path_rule(descriptor, grant & rights, fd)
                finally:
                    os.close(fd)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
