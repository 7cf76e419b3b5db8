"""The porter: carries files in and out of a workspace, inside the sandbox, with the session's own ids.

It opens nothing by an absolute name: every path goes through openat2 below a directory descriptor
that was taken before user code ran, without symlinks, magic links or other mounts, and only regular
files with one link are touched. A racing user program can make a transfer fail, never make it reach
something else. It serves one connection and ends with it.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
from collections.abc import Iterator

from onehop import protocol
from onehop.jail import syscalls
from onehop.protocol import Entry, PorterReply, PorterRequest

RESOLVE = (
    syscalls.RESOLVE_BENEATH
    | syscalls.RESOLVE_NO_SYMLINKS
    | syscalls.RESOLVE_NO_MAGICLINKS
    | syscalls.RESOLVE_NO_XDEV
)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
MAX_DEPTH = 32
_ERRORS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ELOOP: "not_regular",
    errno.EXDEV: "not_regular",
    errno.ENXIO: "not_regular",
    errno.EISDIR: "not_regular",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.ENAMETOOLONG: "bad_path",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
}


class _Refused(Exception):
    def __init__(self, error: str, detail: str) -> None:
        super().__init__(detail)
        self.error = error


def serve(connection_fd: int, workspace: int) -> None:
    """Answers requests until the other side hangs up."""
    with socket.socket(fileno=connection_fd) as connection:
        connection.sendall(
            protocol.PORTER_HEADER.pack(0)
        )  # "here I am", so that the peer can start its clock
        while (frame := _receive(connection)) is not None:
            request = protocol.decode_porter_request(frame)
            if request.operation == "write":
                _write(connection, workspace, request)
                continue
            opened = -1
            try:
                if request.operation == "list":
                    reply = _list(workspace, request)
                elif request.operation == "delete":
                    reply = _delete(workspace, request)
                elif request.operation in ("stat", "read"):
                    opened, status = _open_regular(workspace, request.path, os.O_RDONLY)
                    reply = PorterReply(entries=[_entry(request.path, status)])
                else:
                    raise _Refused("failed", f"unknown operation {request.operation!r}")
            except (OSError, _Refused) as error:
                reply = _failure(error)
            _send(connection, protocol.encode(reply))
            if opened >= 0:
                if request.operation == "read":
                    _send_content(connection, opened, status.st_size)
                os.close(opened)


def _failure(error: OSError | _Refused) -> PorterReply:
    if isinstance(error, _Refused):
        return PorterReply(error=error.error, detail=str(error))
    return PorterReply(error=_ERRORS.get(error.errno or 0, "failed"), detail=os.strerror(error.errno or 0))


def _open_regular(workspace: int, path: str, flags: int) -> tuple[int, os.stat_result]:
    reason = protocol.check_path(path)
    if reason is not None:
        raise _Refused("bad_path", f"the path {reason}")
    # O_NONBLOCK: a FIFO must not make us wait for its other end.
    fd = syscalls.openat2(workspace, os.fsencode(path), flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0, RESOLVE)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise _Refused("not_regular", "it is not a regular file with one link")
    return fd, status


def _entry(path: str, status: os.stat_result) -> Entry:
    return Entry(path=path, bytes=status.st_size, modified_ns=status.st_mtime_ns, inode=status.st_ino)


def _open_parent(workspace: int, path: str, *, create: bool) -> tuple[int, str]:
    """A descriptor of the directory that holds `path`, and the last component."""
    *parents, name = path.split("/")
    current = os.dup(workspace)
    try:
        for part in parents:
            raw = os.fsencode(part)
            try:
                following = syscalls.openat2(current, raw, _DIRECTORY, 0, RESOLVE)
            except FileNotFoundError:
                if not create:
                    raise
                try:
                    os.mkdir(raw, 0o755, dir_fd=current)
                except FileExistsError:
                    pass
                following = syscalls.openat2(current, raw, _DIRECTORY, 0, RESOLVE)
            os.close(current)
            current = following
    except BaseException:
        os.close(current)
        raise
    return current, name


def _write(connection: socket.socket, workspace: int, request: PorterRequest) -> None:
    """Takes the content into a new file beside the target and renames it, so that no half file is ever seen."""
    parent, temporary, fd = -1, "", -1
    reply = PorterReply()
    failure: OSError | _Refused | None = None
    try:
        reason = protocol.check_path(request.path)
        if reason is not None:
            raise _Refused("bad_path", f"the path {reason}")
        parent, name = _open_parent(workspace, request.path, create=True)
        _refuse_irregular_target(parent, name)
        temporary = f".onehop-{secrets.token_hex(8)}"
        fd = syscalls.openat2(
            parent,
            os.fsencode(temporary),
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
            0o644,
            RESOLVE,
        )
    except (OSError, _Refused) as error:
        failure = error
    while True:
        chunk = _receive(connection)
        if chunk is None:  # the sender is gone in the middle: nothing half-done stays
            failure = _Refused("failed", "the content was cut off")
            break
        if not chunk:
            break
        if failure is None:
            try:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            except OSError as error:
                failure = error
    try:
        if failure is None:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            temporary = ""
            reply = PorterReply(entries=[_entry(request.path, os.fstat(fd))])
    except OSError as error:
        failure = error
    finally:
        if fd >= 0:
            os.close(fd)
        if temporary and parent >= 0:
            try:
                os.unlink(temporary, dir_fd=parent)
            except OSError:
                pass  # user code took it away; then there is nothing to clean
        if parent >= 0:
            os.close(parent)
    _send(connection, protocol.encode(reply if failure is None else _failure(failure)))


def _refuse_irregular_target(parent: int, name: str) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise _Refused("not_regular", "something that is not a regular file has this name")


def _delete(workspace: int, request: PorterRequest) -> PorterReply:
    reason = protocol.check_path(request.path)
    if reason is not None:
        raise _Refused("bad_path", f"the path {reason}")
    parent, name = _open_parent(workspace, request.path, create=False)
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise _Refused("not_regular", "it is a directory")
        os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)
    return PorterReply()


def _list(workspace: int, request: PorterRequest) -> PorterReply:
    """All regular files, sorted by path; names that are no UTF-8 are left out and marked as truncated."""
    reply = PorterReply(entries=[])
    for entry in _walk(workspace, "", 0, reply):
        if len(reply.entries) >= request.limit:
            reply.truncated = True
            break
        reply.entries.append(entry)
    reply.entries.sort(key=lambda entry: entry.path)
    return reply


def _walk(directory: int, prefix: str, depth: int, reply: PorterReply) -> Iterator[Entry]:
    if depth > MAX_DEPTH:
        reply.truncated = True
        return
    with os.scandir(directory) as found:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in names:
        path = prefix + name
        try:
            path.encode()
        except UnicodeEncodeError:
            reply.truncated = True
            continue
        try:
            if is_directory:
                child = syscalls.openat2(directory, os.fsencode(name), _DIRECTORY, 0, RESOLVE)
                try:
                    yield from _walk(child, path + "/", depth + 1, reply)
                finally:
                    os.close(child)
                continue
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue  # gone or changed meanwhile: user code runs beside us
        if stat.S_ISREG(status.st_mode) and not name.startswith(".onehop-"):
            yield _entry(path, status)


def _send_content(connection: socket.socket, fd: int, size: int) -> None:
    """At most the size that was announced; a file that grows meanwhile is cut, one that shrinks ends early."""
    left = size
    while left > 0:
        chunk = os.read(fd, min(left, protocol.PORTER_CHUNK_BYTES))
        if not chunk:
            break
        left -= len(chunk)
        _send(connection, chunk)
    _send(connection, b"")


def _send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(protocol.PORTER_HEADER.pack(len(payload)) + payload)


def _receive(connection: socket.socket) -> bytes | None:
    header = _exactly(connection, protocol.PORTER_HEADER.size)
    if header is None:
        return None
    (length,) = protocol.PORTER_HEADER.unpack(header)
    if length > protocol.MAX_PORTER_FRAME_BYTES:
        raise ValueError("frame too long")
    return _exactly(connection, length) if length else b""


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
