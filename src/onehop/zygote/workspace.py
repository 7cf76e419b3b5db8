"""Paths of a workspace that hostile code changes meanwhile: opened below a descriptor, or not at all.

Nothing here uses an absolute name. Every path goes through openat2 below a directory descriptor that was
taken before user code ran, without symlinks, magic links or other mounts; files are regular ones with one
link. A race can make an operation fail, never make it reach something else.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from onehop import protocol
from onehop.jail import syscalls
from onehop.protocol import Entry, PorterReply

RESOLVE = (
    syscalls.RESOLVE_BENEATH
    | syscalls.RESOLVE_NO_SYMLINKS
    | syscalls.RESOLVE_NO_MAGICLINKS
    | syscalls.RESOLVE_NO_XDEV
)
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
OWN = ".onehop-"
"""How the names of our temporary files and folders begin; nobody is told of them."""
MAX_DEPTH = 32
"""So many folders deep listings and archives go."""
MAX_REMOVALS = 20
"""So often a folder is looked through again while user code keeps filling it."""
TIMES_NS = (-(1 << 63), (1 << 63) - 1)

_ERRORS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ELOOP: "not_regular",
    errno.EXDEV: "not_regular",
    errno.ENXIO: "not_regular",
    errno.EISDIR: "not_regular",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "exists",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.ENAMETOOLONG: "bad_path",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
}


class Refused(Exception):
    """`error` as in PorterReply; the message is for people."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error


def failure(error: OSError | Refused) -> PorterReply:
    if isinstance(error, Refused):
        return PorterReply(error=error.error, detail=str(error))
    return PorterReply(error=_ERRORS.get(error.errno or 0, "failed"), detail=os.strerror(error.errno or 0))


def check(path: str) -> None:
    reason = protocol.check_path(path)
    if reason is not None:
        raise Refused("bad_path", f"the path {reason}")


def entry(path: str, status: os.stat_result) -> Entry:
    """User code may set any time, also one that no frame can carry."""
    modified_ns = min(max(status.st_mtime_ns, TIMES_NS[0]), TIMES_NS[1])
    return Entry(path=path, bytes=status.st_size, modified_ns=modified_ns, inode=status.st_ino)


# --- opening -----------------------------------------------------------------------------------


def open_regular(directory: int, path: str, flags: int = os.O_RDONLY) -> tuple[int, os.stat_result]:
    """A regular file with one link below `directory`. Raises Refused, OSError."""
    # O_NONBLOCK: a FIFO must not make us wait for its other end.
    fd = syscalls.openat2(directory, os.fsencode(path), flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0, RESOLVE)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise Refused("not_regular", "it is not a regular file with one link")
    return fd, status


def open_folder(workspace: int, path: str) -> int:
    """A folder's descriptor; the workspace's own for an empty path. Raises Refused, OSError."""
    if not path:
        return os.dup(workspace)
    check(path)
    try:
        return syscalls.openat2(workspace, os.fsencode(path), DIRECTORY, 0, RESOLVE)
    except NotADirectoryError:
        raise Refused("not_folder", "it is not a folder") from None


def open_parent(workspace: int, path: str, made: list[str] | None = None) -> tuple[int, str]:
    """A descriptor of the folder that holds `path`, and the last component.

    Args:
        made: folders that had to be made are appended; without it none is made.
    """
    *parents, name = path.split("/")
    current = os.dup(workspace)
    try:
        for depth, part in enumerate(parents, 1):
            raw = os.fsencode(part)
            try:
                following = syscalls.openat2(current, raw, DIRECTORY, 0, RESOLVE)
            except FileNotFoundError:
                if made is None:
                    raise
                try:
                    os.mkdir(raw, 0o755, dir_fd=current)
                    made.append("/".join(parents[:depth]))
                except FileExistsError:
                    pass
                following = syscalls.openat2(current, raw, DIRECTORY, 0, RESOLVE)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current, name


def unmake(workspace: int, made: list[str]) -> None:
    """Takes folders away again that were made on the way, unless somebody has put something into them."""
    for path in reversed(made):
        try:
            parent, name = open_parent(workspace, path)
        except OSError:
            continue
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            pass
        finally:
            os.close(parent)


def new_file(directory: int, name: str, mode: int = 0o644) -> int:
    """Raises FileExistsError when there is anything of that name, a dangling symlink too."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return syscalls.openat2(directory, os.fsencode(name), flags, mode, RESOLVE)


def own_name() -> str:
    return OWN + os.urandom(8).hex()


def write_all(fd: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


# --- looking through ---------------------------------------------------------------------------


def walk(
    directory: int, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, int, str, os.stat_result | None]]:
    """All that is below `directory`, a folder before what it holds, names of one folder in order.

    Yields:
        Path, the descriptor of the folder it is in, name, and status; None instead of a status for what
        cannot be carried: a name that is no UTF-8, a folder that is too deep or closed to us.
    """
    with os.scandir(directory) as found:
        names = sorted([(one.name, one.is_dir(follow_symlinks=False)) for one in found])
    for name, is_folder in names:
        if name.startswith(OWN):
            continue
        path = prefix + name
        try:
            path.encode()
        except UnicodeEncodeError:
            yield path, directory, name, None
            continue
        try:
            if not is_folder:
                yield path, directory, name, os.stat(name, dir_fd=directory, follow_symlinks=False)
                continue
            if depth >= MAX_DEPTH:
                yield path, directory, name, None
                continue
            child = syscalls.openat2(directory, os.fsencode(name), DIRECTORY, 0, RESOLVE)
        except PermissionError:
            yield path, directory, name, None
            continue
        except OSError:
            continue  # gone or changed meanwhile: user code runs beside us
        try:
            yield path, directory, name, os.fstat(child)
            yield from walk(child, path + "/", depth + 1)
        finally:
            os.close(child)


# --- removing ----------------------------------------------------------------------------------


def remove_tree(parent: int, name: str) -> None:
    """Removes a folder with all that is in it, however deep, with three descriptors.

    Folders below it are moved up into it before they are emptied, so that no path gets long and nothing is
    recursive. Raises OSError when it cannot be done; what is left then is still there under its name.
    """
    top = _enter(parent, name)
    try:
        for _ in range(MAX_REMOVALS):
            _empty(top)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return
    finally:
        os.close(top)
    raise Refused("failed", "it is filled again while it is removed")


def _empty(top: int) -> None:
    waiting = _unlink_files(top)
    while waiting:
        name = waiting.pop()
        try:
            os.rmdir(name, dir_fd=top)
            continue
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            if error.errno != errno.ENOTEMPTY:
                raise
        child = _enter(top, name)
        try:
            for inner in _unlink_files(child):
                higher = own_name()
                _rename_up(inner, child, higher, top)
                waiting.append(higher)
        finally:
            os.close(child)
        try:
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise


def _enter(directory: int, name: str) -> int:
    """The folder's descriptor, with the right to change it: the folder's owner is us, whatever its mode says."""
    raw = os.fsencode(name)
    try:
        fd = syscalls.openat2(directory, raw, DIRECTORY, 0, RESOLVE)
    except PermissionError:
        _open_up(directory, raw)
        fd = syscalls.openat2(directory, raw, DIRECTORY, 0, RESOLVE)
    if os.fstat(fd).st_mode & 0o300 != 0o300:
        os.fchmod(fd, 0o700)
    return fd


def _rename_up(name: str, directory: int, higher: str, top: int) -> None:
    try:
        os.rename(name, higher, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:  # moving a folder changes its "..", so it must be writable itself
        _open_up(directory, os.fsencode(name))
        os.rename(name, higher, src_dir_fd=directory, dst_dir_fd=top)


def _open_up(directory: int, name: bytes) -> None:
    syscalls.fchmodat2(directory, name, 0o700, syscalls.AT_SYMLINK_NOFOLLOW)


def _unlink_files(directory: int) -> list[str]:
    """Unlinks what is no folder; the names of those that are."""
    folders = []
    with os.scandir(directory) as found:
        names = [(one.name, one.is_dir(follow_symlinks=False)) for one in found]
    for name, is_folder in names:
        if is_folder:
            folders.append(name)
            continue
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            folders.append(name)
        except FileNotFoundError:
            pass
    return folders
