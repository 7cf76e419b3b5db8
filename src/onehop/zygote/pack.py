"""Packs a folder of the workspace into a tar or zip archive, as a stream, in constant memory.

Regular files with one link and folders are packed; everything else is left out and counted before the first
byte goes, so that the answer can begin with it. A file is packed with the size it has when its turn comes:
what it grows by later is cut off; if it shrinks, the archive is given up rather than filled with zeros.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import os
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator

from onehop import protocol
from onehop.zygote import workspace
from onehop.zygote.workspace import Refused

SMALL_BYTES = protocol.PORTER_CHUNK_BYTES
"""Files up to this size are read whole before their header is written, so they may shrink until then."""
LEVEL = 1
"""Of deflate: JSON goes at 209 MB/s and to 17.7 %; at the usual 6 at 77 MB/s and to 16.1 %."""
NAMED_LEFT_OUT = 20
LAST_S = 1 << 33
ZIP64_FROM_BYTES = 1 << 30


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
        _zip(folder, sink)
    elif form == "tar.gz":
        compressed = Compressed(sink)
        _tar(folder, compressed.write)
        compressed.finish()
    else:
        _tar(folder, sink.write)
    sink.end()


class Sink:
    """Gathers small pieces into frames. A file for zipfile, which then writes without going back."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._waiting = bytearray()

    def write(self, piece: bytes) -> int:
        self._waiting += piece
        while len(self._waiting) >= protocol.PORTER_CHUNK_BYTES:
            self._send(bytes(self._waiting[: protocol.PORTER_CHUNK_BYTES]))
            del self._waiting[: protocol.PORTER_CHUNK_BYTES]
        return len(piece)

    def flush(self) -> None:
        """Nothing: zipfile asks for it after every file."""

    def end(self) -> None:
        if self._waiting:
            self._send(bytes(self._waiting))
            self._waiting.clear()


class Compressed:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._state = zlib.compressobj(LEVEL, wbits=31)

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
        info = tarfile.TarInfo(path)
        info.mode = status.st_mode & 0o777
        info.mtime = min(max(status.st_mtime_ns // 1_000_000_000, 0), LAST_S)
        if content is None:
            info.type = tarfile.DIRTYPE
            write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
            continue
        info.size = status.st_size
        pieces: Iterator[bytes] = content
        if status.st_size <= SMALL_BYTES:
            whole = _whole(content)
            info.size, pieces = len(whole), iter((whole,))
        write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        for piece in pieces:
            write(piece)
        write(bytes(-info.size % tarfile.BLOCKSIZE))
    write(bytes(2 * tarfile.BLOCKSIZE))


def _whole(content: Iterator[bytes]) -> bytes:
    parts = []
    try:
        for piece in content:
            parts.append(piece)
    except Refused:
        pass  # shorter than it was: then this is what it holds now
    return b"".join(parts)


def _zip(folder: int, sink: Sink) -> None:
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:  # type: ignore[call-overload]
        for path, status, content in _found(folder):
            when = time.gmtime(min(max(status.st_mtime_ns // 1_000_000_000, 315_532_800), (1 << 32) - 1))
            info = zipfile.ZipInfo(path if content is not None else path + "/", when[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = (status.st_mode & 0o170777) << 16
            if content is None:
                info.external_attr |= 0x10  # MS-DOS's mark of a folder
                archive.writestr(info, b"", zipfile.ZIP_STORED)
                continue
            with archive.open(info, "w", force_zip64=status.st_size >= ZIP64_FROM_BYTES) as file:
                for piece in content:
                    file.write(piece)
