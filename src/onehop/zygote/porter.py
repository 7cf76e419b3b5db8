"""The porter: carries files in and out of a workspace, inside the sandbox, with the session's own ids.

It opens nothing by an absolute name (see workspace.py), so a racing user program can make a transfer fail,
never make it reach something else. It never runs user code. It serves one connection and ends with it.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable

from onehop import protocol
from onehop.jail import syscalls
from onehop.protocol import PorterReply, PorterRequest
from onehop.zygote import pack, workspace
from onehop.zygote.unpack import unpack
from onehop.zygote.workspace import Refused

LISTING_BYTES = protocol.MAX_PORTER_FRAME_BYTES - 65_536


def serve(connection_fd: int, root: int) -> None:
    """Answers requests about the workspace `root` until the other side hangs up."""
    with socket.socket(fileno=connection_fd) as connection:
        connection.sendall(
            protocol.PORTER_HEADER.pack(0)
        )  # "here I am", so that the peer can start its clock
        while (frame := _receive(connection)) is not None:
            request = protocol.decode_porter_request(frame)
            match request.operation:
                case "write":
                    _take(connection, root, request, _write)
                case "unpack":
                    _take(
                        connection,
                        root,
                        request,
                        lambda body, root, request: unpack(body.read, root, request),
                    )
                case "read":
                    _hand_out_file(connection, root, request)
                case "pack":
                    _hand_out_archive(connection, root, request)
                case _:
                    _send(connection, protocol.encode(_answer(root, request)))


def _answer(root: int, request: PorterRequest) -> PorterReply:
    try:
        match request.operation:
            case "list":
                return _list(root, request)
            case "delete":
                return _delete(root, request)
            case "move":
                return _move(root, request)
            case "stat":
                workspace.check(request.path)
                fd, status = workspace.open_regular(root, request.path)
                os.close(fd)
                return PorterReply(entries=[workspace.entry(request.path, status)])
            case _:
                raise Refused("failed", f"unknown operation {request.operation!r}")
    except (OSError, Refused) as error:
        return workspace.failure(error)


# --- in ----------------------------------------------------------------------------------------


class _Body:
    """The data frames after a request, as a file is read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = memoryview(b"")
        self._ended = False
        self.cut_off = False

    def piece(self) -> bytes | memoryview:
        """The next frame, or what is left of one; empty at the end. Raises Refused when the sender is gone."""
        if self._rest:
            found, self._rest = self._rest, memoryview(b"")
            return found
        if self._ended:
            return b""
        frame = _receive(self._connection)
        if not frame:
            self._ended = True
        if frame is None:
            self.cut_off = True
        if self.cut_off:
            raise Refused("failed", "the content was cut off")
        assert frame is not None
        return frame

    def read(self, count: int) -> bytes:
        """That many bytes, fewer only at the end."""
        parts = []
        while count and (found := self.piece()):
            parts.append(found[:count])
            if len(found) > count:
                self._rest = memoryview(found)[count:]
            count -= len(parts[-1])
        return b"".join(parts)

    def drain(self) -> None:
        """So that the sender gets to the answer."""
        try:
            while self.piece():
                pass
        except Refused:
            pass  # nobody waits for an answer


def _take(
    connection: socket.socket,
    root: int,
    request: PorterRequest,
    work: Callable[[_Body, int, PorterRequest], PorterReply],
) -> None:
    body = _Body(connection)
    try:
        reply = work(body, root, request)
    except (OSError, Refused) as error:
        reply = workspace.failure(error)
    body.drain()
    if not body.cut_off:
        _send(connection, protocol.encode(reply))


def _write(body: _Body, root: int, request: PorterRequest) -> PorterReply:
    """Takes the content into a new file beside the target and renames it, so that no half file is ever seen."""
    workspace.check(request.path)
    made: list[str] = []
    parent, fd, temporary = -1, -1, ""
    try:
        parent, name = workspace.open_parent(root, request.path, made)
        _refuse_irregular(parent, name)
        temporary = workspace.own_name()
        fd = workspace.new_file(parent, temporary)
        while piece := body.piece():
            workspace.write_all(fd, piece)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        temporary = ""
        return PorterReply(entries=[workspace.entry(request.path, os.fstat(fd))])
    except BaseException:
        if temporary and fd >= 0:
            try:
                os.unlink(temporary, dir_fd=parent)
            except OSError:
                pass  # user code took it away; then there is nothing to clean
        workspace.unmake(root, made)
        raise
    finally:
        for one in (fd, parent):
            if one >= 0:
                os.close(one)


def _refuse_irregular(parent: int, name: str) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise Refused("not_regular", "something that is not a regular file has this name")


# --- out ---------------------------------------------------------------------------------------


def _hand_out_file(connection: socket.socket, root: int, request: PorterRequest) -> None:
    try:
        workspace.check(request.path)
        fd, status = workspace.open_regular(root, request.path)
    except (OSError, Refused) as error:
        _send(connection, protocol.encode(workspace.failure(error)))
        return
    try:
        _send(connection, protocol.encode(PorterReply(entries=[workspace.entry(request.path, status)])))
        size = status.st_size
        start = min(request.offset, size) if request.offset >= 0 else max(size + request.offset, 0)
        left = size - start
        if request.length >= 0:
            left = min(left, request.length)
        if start:
            os.lseek(fd, start, os.SEEK_SET)
        # At most the size that was announced: a file that grows meanwhile is cut, one that shrinks ends early.
        while left > 0:
            chunk = os.read(fd, min(left, protocol.PORTER_CHUNK_BYTES))
            if not chunk:
                break
            left -= len(chunk)
            _send(connection, chunk)
        _send(connection, b"")
    finally:
        os.close(fd)


def _hand_out_archive(connection: socket.socket, root: int, request: PorterRequest) -> None:
    folder = -1
    try:
        if request.format not in protocol.ARCHIVE_FORMATS:
            raise Refused("failed", f"unknown format {request.format!r}")
        folder = workspace.open_folder(root, request.path)
        count, names = pack.left_out(folder)
    except (OSError, Refused) as error:
        if folder >= 0:
            os.close(folder)
        _send(connection, protocol.encode(workspace.failure(error)))
        return
    try:
        _send(connection, protocol.encode(PorterReply(left_out=count, left_out_names=names)))
        end = PorterReply()
        try:
            pack.pack(folder, request.format, lambda piece: _send(connection, piece))
        except (OSError, Refused) as error:  # if it was the connection, the next line says so, too
            end = workspace.failure(error)
        _send(connection, b"")
        _send(connection, protocol.encode(end))
    finally:
        os.close(folder)


def _list(root: int, request: PorterRequest) -> PorterReply:
    """Regular files below a folder, sorted by path; what has no name in UTF-8 is marked as truncated."""
    reply = PorterReply(entries=[])
    prefix = request.path + "/" if request.path else ""
    left = LISTING_BYTES
    folder = workspace.open_folder(root, request.path)
    try:
        for path, _, _, status in workspace.walk(folder, prefix):
            if status is None:
                reply.truncated = True
            elif stat.S_ISREG(status.st_mode):
                left -= len(path) * 4 + 48
                if len(reply.entries) >= request.limit or left < 0:
                    reply.truncated = True
                    break
                reply.entries.append(workspace.entry(path, status))
    finally:
        os.close(folder)
    reply.entries.sort(key=lambda entry: entry.path)
    return reply


# --- delete and move -----------------------------------------------------------------------------


def _delete(root: int, request: PorterRequest) -> PorterReply:
    workspace.check(request.path)
    parent, name = workspace.open_parent(root, request.path)
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return PorterReply()
        if not request.recursive:
            raise Refused(
                "not_regular", "it is a folder; say recursive=true to delete it with all that is in it"
            )
        # It is gone at once for everybody, and what cannot be removed comes back.
        aside = workspace.own_name()
        os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
        try:
            workspace.remove_tree(parent, aside)
        except (OSError, Refused):
            _rename(parent, aside, parent, name, overwrite=False)
            raise
    finally:
        os.close(parent)
    return PorterReply()


def _move(root: int, request: PorterRequest) -> PorterReply:
    workspace.check(request.path)
    workspace.check(request.target)
    made: list[str] = []
    source, target = -1, -1
    try:
        source, name = workspace.open_parent(root, request.path)
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) and not (stat.S_ISREG(status.st_mode) and status.st_nlink == 1):
            raise Refused("not_regular", "it is not a regular file with one link, and not a folder")
        try:
            target, new_name = workspace.open_parent(root, request.target, made)
            _rename(source, name, target, new_name, overwrite=request.overwrite)
        except OSError as error:
            raise _move_refused(error, request) from None
    except BaseException:
        workspace.unmake(root, made)
        raise
    finally:
        for fd in (source, target):
            if fd >= 0:
                os.close(fd)
    entry = workspace.entry(request.target, status)
    if stat.S_ISDIR(status.st_mode):
        entry.bytes = 0
    return PorterReply(entries=[entry])


def _rename(source: int, name: str, target: int, new_name: str, *, overwrite: bool) -> None:
    if overwrite:
        if not stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
            _refuse_irregular(target, new_name)
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    else:
        raw = os.fsencode(name), os.fsencode(new_name)
        syscalls.renameat2(source, raw[0], target, raw[1], syscalls.RENAME_NOREPLACE)


def _move_refused(error: OSError, request: PorterRequest) -> OSError | Refused:
    match error.errno:
        case errno.EEXIST if not request.overwrite:
            return Refused("exists", "something is there already; say overwrite=true to replace a file")
        case errno.EEXIST | errno.ENOTEMPTY | errno.ENOTDIR:
            return Refused("exists", "something is there that a move does not replace")
        case errno.EINVAL:
            return Refused("exists", "a folder cannot be moved into itself")
    return error


# --- frames --------------------------------------------------------------------------------------


def _send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(protocol.PORTER_HEADER.pack(len(payload)) + payload)


def _receive(connection: socket.socket) -> bytes | None:
    """None when the other side has hung up."""
    try:
        header = _exactly(connection, protocol.PORTER_HEADER.size)
        if header is None:
            return None
        (length,) = protocol.PORTER_HEADER.unpack(header)
        if length > protocol.MAX_PORTER_FRAME_BYTES:
            raise ValueError("frame too long")
        return _exactly(connection, length) if length else b""
    except ConnectionError:
        return None


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
