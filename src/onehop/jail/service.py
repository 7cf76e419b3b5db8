"""A user and a view of the file system of its own for the gateway, where the server was started by root.

`enter` runs first thing in the gateway's process, with one thread and before the API is imported. What
is closed to the service user (/root, say) is covered by an empty directory into which only the paths
that the gateway needs are bound. It must never leave a way back: afterwards there is no capability, no
set-user-id, and nothing below a covered directory but those paths.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from onehop.errors import JailError
from onehop.jail import syscalls

MAX_LINKS = 40
"""As many symlinks as the kernel follows in one path (MAXSYMLINKS, linux/namei.h)."""


def interpreter_paths() -> list[str]:
    """What this interpreter loads code from: its prefixes, and all of sys.path (onehop itself, too)."""
    candidates = [sys.prefix, sys.base_prefix, *sys.path]
    return list(dict.fromkeys(path for path in candidates if path and os.path.exists(path)))


def own_directory(path: Path, uid: int) -> None:
    """Makes `path` a private directory of `uid`, with everything that an earlier start as root left in it.

    Links are neither followed nor handed over: who may write above `path` must not be able to aim this
    at another file.

    Raises:
        OSError: it cannot be made, or is no directory.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(directory).st_uid == uid:
            return
        for name in os.listdir(directory):
            with contextlib.suppress(OSError):
                _own_file(directory, name, uid)
        os.fchown(directory, uid, uid)
        os.fchmod(directory, 0o700)
    finally:
        os.close(directory)


def _own_file(directory: int, name: str, uid: int) -> None:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            os.fchown(file, uid, uid)
    finally:
        os.close(file)


def enter(
    *,
    uid: int,
    readable: Sequence[str],
    writable: Sequence[str],
    parent: int,
    allow_no_namespaces: bool = False,
) -> list[str] | None:
    """Becomes the service user in a mount namespace of its own.

    Args:
        uid: of the service user, its gid as well; it needs no entry in /etc/passwd.
        readable: paths that must stay usable, read-only where they lie below a covered directory.
        writable: directories that belong to `uid` already.
        parent: pid of the process that must not outlive us; we end when it does.
        allow_no_namespaces: where they are refused, go on without covering anything.

    Returns:
        The directories that were covered; None when namespaces are refused.

    Raises:
        JailError: the kernel refuses a step, or a path stays closed to the service user.
    """
    os.umask(0o022)  # what is made below must be passable for the service user
    covered: list[str] | None = None
    try:
        if _unshare(allow_no_namespaces):
            covered = _cover(uid, readable, writable)
        syscalls.drop_bounding_set(syscalls.last_capability())
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        hint = f"; set --uid-base so that {uid} exists here" if error.errno == errno.EINVAL else ""
        raise JailError(f"the gateway cannot become its service user (uid {uid}): {error}{hint}") from error
    confine(parent=parent)
    for path in (*readable, *writable):
        if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            raise JailError(
                f"{path} is closed to the gateway's service user (uid {uid}); run: {_opener(path, uid)}"
            )
    return covered


def _unshare(allow_failure: bool) -> bool:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
    except OSError:
        if not allow_failure:
            raise
        return False
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    return True


def _opener(path: str, uid: int) -> str:
    closed = _closed_above(os.path.realpath(path), uid)
    return f"chmod o+x {closed}" if closed else f"chmod -R go+rX {path}"


def confine(*, parent: int) -> None:
    """What an ordinary user's gateway can give up as well: capabilities, new privileges, its parent's death.

    Raises:
        JailError: the parent has ended already.
    """
    syscalls.drop_capabilities()
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    # After the change of user, which clears it (prctl(2)).
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise JailError("the server ended before its gateway started")
    os.umask(0o077)


def _cover(uid: int, readable: Iterable[str], writable: Iterable[str]) -> list[str]:
    keep: dict[str, bool] = {}
    links: dict[str, str] = {}
    for path in readable:
        real, passed = _resolve(path)
        keep.setdefault(real, False)
        links |= passed
    for path in writable:
        real, passed = _resolve(path)
        keep[real] = True
        links |= passed
    tops = sorted({top for path in (*keep, *links) if (top := _closed_above(path, uid))})
    inside: dict[str, bool] = {}
    for path, allowed in sorted(keep.items()):
        if _is_below(path, tops) and (allowed or not _is_below(path, inside)):
            inside[path] = allowed
    # Descriptors, because the covers hide the paths themselves.
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in inside}
    kinds = {path: os.path.isdir(path) for path in inside}
    for top in tops:
        syscalls.mount(
            "tmpfs",
            top,
            "tmpfs",
            syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC,
            "size=1m,nr_inodes=1024,mode=755",
        )
    for path, target in links.items():
        if _is_below(path, tops) and not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            os.symlink(target, path)
    for path, allowed in inside.items():
        _bind(path, sources[path], directory=kinds[path], allowed=allowed)
        os.close(sources[path])
    for top in tops:
        syscalls.mount_setattr(top, syscalls.MOUNT_ATTR_RDONLY)
    return tops


def _bind(path: str, source: int, *, directory: bool, allowed: bool) -> None:
    if not os.path.exists(path):
        os.makedirs(path if directory else os.path.dirname(path), mode=0o755, exist_ok=True)
        if not directory:
            Path(path).touch(mode=0o644)
    syscalls.mount(f"/proc/self/fd/{source}", path, "", syscalls.MS_BIND | syscalls.MS_REC)
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    syscalls.mount_setattr(path, attributes | (0 if allowed else syscalls.MOUNT_ATTR_RDONLY), recursive=True)


def _is_below(path: str, directories: Iterable[str]) -> bool:
    return any(path.startswith(directory + "/") for directory in directories)


def _closed_above(path: str, uid: int) -> str | None:
    """The topmost directory above `path` that `uid` may not pass, or None."""
    for ancestor in reversed(Path(path).parents):
        found = os.stat(ancestor)
        shift = 6 if found.st_uid == uid else 3 if found.st_gid == uid else 0
        if not found.st_mode >> shift & 1:
            return str(ancestor)
    return None


def _resolve(path: str) -> tuple[str, dict[str, str]]:
    """The real path, and every symlink passed on the way with its target."""
    links: dict[str, str] = {}
    here, rest = "/", list(reversed(Path(os.path.abspath(path)).parts[1:]))
    while rest:
        part = rest.pop()
        if part == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, part)
        if not os.path.islink(there):
            here = there
            continue
        if len(links) >= MAX_LINKS:
            raise OSError(f"too many links in {path}")
        links[there] = os.readlink(there)
        if links[there].startswith("/"):
            here = "/"
        rest += [piece for piece in reversed(links[there].split("/")) if piece not in ("", ".")]
    return here, links
