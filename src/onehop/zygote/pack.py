"""Packs a folder of the workspace into a tar or zip archive, as a stream, in constant memory.

Regular files with one link and folders are packed; everything else is left out and counted before the first
byte goes, so that the answer can begin with it. A file is packed with the size it has when its turn comes:
what it grows by later is cut off; if it shrinks, the archive is given up rather than filled with zeros.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator

from onehop import protocol
from onehop.zygote import makezip, workspace
from onehop.zygote.workspace import Refused

SMALL_BYTES = protocol.PORTER_CHUNK_BYTES
"""Files up to this size are read whole before their header is written, so they may shrink until then."""
NAMED_LEFT_OUT = 20
LAST_S = 1 << 33
BLOCK_BYTES = 512
USTAR_NAME_BYTES, USTAR_SIZE = 100, 8**11


def left_out(folder: int) -> tuple[int, list[str]]:
    """How many things below `folder` will not be packed, and the first of them."""
    count = 0
    names: list[str] = []
    for path, _, _, status in workspace.walk(folder):
        if status is None or not _is_carried(status):
            count += 1
            if len(names) < NAMED_LEFT_OUT:
                names.append(os.fsencode(path).decode("utf-8", "replace")[:200])
    return count, names


def pack(folder: int, form: str, send: Callable[[bytes], None]) -> None:
    """Sends the archive of what is below `folder`, in pieces.

    Raises:
        Refused, OSError: what was sent is not a whole archive.
    """
    sink = Sink(send)
    if form == "zip":
        makezip.write(_found(folder), sink.write)
    elif form == "tar.gz":
        compressed = Compressed(sink)
        _tar(folder, compressed.write)
        compressed.finish()
    else:
        _tar(folder, sink.write)
    sink.end()


class Sink:
    """Gathers small pieces into frames."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._waiting = bytearray()

    def write(self, piece: bytes) -> None:
        self._waiting += piece
        while len(self._waiting) >= protocol.PORTER_CHUNK_BYTES:
            self._send(bytes(self._waiting[: protocol.PORTER_CHUNK_BYTES]))
            del self._waiting[: protocol.PORTER_CHUNK_BYTES]

    def end(self) -> None:
        if self._waiting:
            self._send(bytes(self._waiting))
            self._waiting.clear()


class Compressed:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._state = zlib.compressobj(makezip.LEVEL, wbits=31)

    def write(self, piece: bytes) -> None:
        self._sink.write(self._state.compress(piece))

    def finish(self) -> None:
        self._sink.write(self._state.flush())


def _is_carried(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)


def _found(folder: int) -> Iterator[tuple[str, os.stat_result, Iterator[bytes] | None]]:
    """Path, status and content (None for a folder) of all that is packed."""
    for path, directory, name, status in workspace.walk(folder):
        if status is None or not _is_carried(status):
            continue
        if stat.S_ISDIR(status.st_mode):
            yield path, status, None
            continue
        try:
            fd, status = workspace.open_regular(directory, name)
        except (OSError, Refused):
            continue  # it went or became something else since the folder was read
        try:
            yield path, status, _content(fd, path, status.st_size)
        finally:
            os.close(fd)


def _content(fd: int, path: str, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    while left:
        piece = os.read(fd, min(left, protocol.PORTER_CHUNK_BYTES))
        if not piece:
            raise Refused("failed", f"{path!r} became shorter while it was packed")
        left -= len(piece)
        yield piece


def _tar(folder: int, write: Callable[[bytes], object]) -> None:
    for path, status, content in _found(folder):
        modified_s = min(max(status.st_mtime_ns // 1_000_000_000, 0), LAST_S)
        mode = status.st_mode & 0o777
        if content is None:
            write(tar_header(path + "/", b"5", 0, mode, modified_s))
            continue
        size, pieces = status.st_size, content
        if size <= SMALL_BYTES:
            whole = _whole(content)
            size, pieces = len(whole), iter((whole,))
        write(tar_header(path, b"0", size, mode, modified_s))
        for piece in pieces:
            write(piece)
        write(bytes(-size % BLOCK_BYTES))
    write(bytes(2 * BLOCK_BYTES))


def tar_header(path: str, kind: bytes, size_bytes: int, mode: int, modified_s: int) -> bytes:
    """A ustar header; a pax header before it says what does not fit into one (POSIX.1-2017, pax)."""
    name = path.encode()
    records = {}
    if len(name) > USTAR_NAME_BYTES or not name.isascii():
        records[b"path"] = name
        name = path.encode("ascii", "replace")[:USTAR_NAME_BYTES]
    if size_bytes >= USTAR_SIZE:
        records[b"size"] = b"%d" % size_bytes
        size_bytes = 0
    if modified_s >= USTAR_SIZE:
        records[b"mtime"] = b"%d" % modified_s
        modified_s = 0
    header = _ustar(name, kind, size_bytes, mode, modified_s)
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in records.items())
    padding = bytes(-len(body) % BLOCK_BYTES)
    return _ustar(b"././@PaxHeader", b"x", len(body), 0o644, 0) + body + padding + header


def _ustar(name: bytes, kind: bytes, size_bytes: int, mode: int, modified_s: int) -> bytes:
    before = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(USTAR_NAME_BYTES, b"\0"), mode, 0, 0, size_bytes, modified_s
    )  # fmt: skip
    after = (kind + bytes(100) + b"ustar\x0000").ljust(BLOCK_BYTES - len(before) - 8, b"\0")
    return b"%s%06o\0 %s" % (before, sum(before) + sum(after) + 8 * 32, after)


def _record(key: bytes, value: bytes) -> bytes:
    """ "length key=value\\n"; the length counts its own digits."""
    rest = b" %s=%s\n" % (key, value)
    length = len(rest) + len(b"%d" % len(rest))
    if len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d%s" % (length, rest)


def _whole(content: Iterator[bytes]) -> bytes:
    parts = []
    try:
        for piece in content:
            parts.append(piece)
    except Refused:
        pass  # shorter than it was: then this is what it holds now
    return b"".join(parts)
