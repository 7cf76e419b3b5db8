"""Reads a zip archive from a file descriptor, strictly: stored or deflated files and folders.

The format is PKWARE's APPNOTE 6.3 (section 4.3), with Zip64. What the central directory says is believed
only as far as the data agrees: names, sizes and checksums are compared, and nothing is read twice. No more
than one entry of the directory is in memory at a time, and it never writes anything.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

from onehop.zygote.untar import PIECE_BYTES, Member, bad, relative, text

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_COMMENT_BYTES = 65_535

ENCRYPTED = 0x1 | 0x40 | 0x2000
UTF8 = 0x800
STORED, DEFLATED = 0, 8
ZIP64_FIELD, TIME_FIELD = 0x0001, 0x5455


def members(fd: int) -> Iterator[Member]:
    """All of an archive, in the directory's order. Raises Refused for what is no zip, or holds what is not carried."""
    size_bytes = os.fstat(fd).st_size
    count, position, end = _directory(fd, size_bytes)
    first = position
    for _ in range(count):
        fixed = _read(fd, position, _CENTRAL.size, end)
        fields = _CENTRAL.unpack(fixed)
        if fields[0] != b"PK\x01\x02":
            raise bad("its directory is damaged")
        flags, method, time, date, checksum = fields[5:10]
        packed, size, name_length, extra_length, comment_length, disk = fields[10:16]
        attributes, offset = fields[17:19]
        raw_name = _read(fd, position + _CENTRAL.size, name_length, end)
        extra = _extra(_read(fd, position + _CENTRAL.size + name_length, extra_length, end))
        position += _CENTRAL.size + name_length + extra_length + comment_length
        if position > end:
            raise bad("its directory is damaged")
        name = text(raw_name, "the name") if flags & UTF8 else raw_name.decode("cp437")
        size, packed, offset = _large(extra.get(ZIP64_FIELD, b""), size, packed, offset)
        if flags & ENCRYPTED:
            raise bad(f"{name[:200]!r} is encrypted")
        if method not in (STORED, DEFLATED):
            raise bad(f"{name[:200]!r} is compressed by method {method}; only deflate is read")
        if disk:
            raise bad("it is split into several files")
        if "\\" in name:
            raise bad(f"{name[:200]!r} has a backslash in its name")
        mode = attributes >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise bad(f"{name[:200]!r} is a link or special file; only files and folders are unpacked")
        folder = name.endswith("/")
        if stat.S_ISDIR(mode) and not folder:
            raise bad(f"the folder {name[:200]!r} has the name of a file")
        if folder and size:
            raise bad(f"the folder {name[:200]!r} has content")
        begin = _begin(fd, offset, raw_name, method, first)
        if begin + packed > first:
            raise bad(f"the content of {name[:200]!r} lies outside of it")
        yield Member(
            relative(name),
            folder,
            bool(mode & 0o100),
            _modified(extra.get(TIME_FIELD, b""), date, time),
            size,
            iter(()) if folder else _content(fd, name, method, begin, packed, size, checksum),
        )
    if position != end:
        raise bad("its directory is longer than it says")


def _directory(fd: int, size_bytes: int) -> tuple[int, int, int]:
    """How many entries the central directory has, and where it begins and ends."""
    tail_bytes = min(size_bytes, _END.size + _COMMENT_BYTES)
    tail = os.pread(fd, tail_bytes, size_bytes - tail_bytes)
    found = tail.rfind(b"PK\x05\x06")
    while found >= 0:
        if len(tail) - found >= _END.size and tail[found + 20 : found + 22] == struct.pack(
            "<H", len(tail) - found - _END.size
        ):
            break
        found = tail.rfind(b"PK\x05\x06", 0, found)
    if found < 0:
        raise bad("it is no zip archive, or cut off: it has no end")
    _, disk, its_disk, here, count, length, offset, _ = _END.unpack_from(tail, found)
    end = size_bytes - tail_bytes + found
    if end >= _LOCATOR.size and os.pread(fd, 4, end - _LOCATOR.size) == b"PK\x06\x07":
        _, _, end64, _ = _LOCATOR.unpack(os.pread(fd, _LOCATOR.size, end - _LOCATOR.size))
        raw = os.pread(fd, _END64.size, end64) if end64 < end else b""
        if len(raw) < _END64.size or raw[:4] != b"PK\x06\x06":
            raise bad("its end is damaged")
        _, _, _, _, disk, its_disk, here, count, length, offset = _END64.unpack(raw)
        end = end64
    if disk or its_disk or here != count:
        raise bad("it is split into several files")
    if offset + length != end:
        raise bad("something stands before it or its directory is damaged")
    return count, offset, end


def _read(fd: int, position: int, count: int, end: int) -> bytes:
    if position + count > end:
        raise bad("its directory is damaged")
    found = os.pread(fd, count, position)
    if len(found) != count:
        raise bad("its directory is damaged")
    return found


def _extra(raw: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(raw):
        field, length = struct.unpack_from("<2H", raw, position)
        found.setdefault(field, raw[position + 4 : position + 4 + length])
        position += 4 + length
    return found


def _large(field: bytes, *values: int) -> list[int]:
    """Size, packed size and offset: those that are 0xFFFFFFFF stand in the Zip64 field, in this order."""
    position, found = 0, []
    for value in values:
        if value == 0xFFFFFFFF:
            if len(field) < position + 8:
                raise bad("its directory is damaged")
            (value,) = struct.unpack_from("<Q", field, position)
            position += 8
        found.append(value)
    return found


def _begin(fd: int, offset: int, name: bytes, method: int, limit: int) -> int:
    """Where an entry's data begins: behind its local header, which must tell the same as the directory."""
    fixed = _read(fd, offset, _LOCAL.size, limit)
    fields = _LOCAL.unpack(fixed)
    if fields[0] != b"PK\x03\x04":
        raise bad("it is damaged: an entry is not where the directory says")
    if fields[3] & ENCRYPTED or fields[4] != method:
        raise bad("an entry and the directory contradict each other")
    if _read(fd, offset + _LOCAL.size, fields[10], limit) != name:
        raise bad("an entry and the directory have different names")
    return offset + _LOCAL.size + int(fields[10]) + int(fields[11])


def _content(
    fd: int, name: str, method: int, begin: int, packed: int, size: int, checksum: int
) -> Iterator[bytes]:
    lies = bad(f"{name[:200]!r} does not have the size or checksum that the directory says")
    total, crc = 0, 0
    for piece in _stored(fd, begin, packed) if method == STORED else _inflated(fd, name, begin, packed):
        total += len(piece)
        if total > size:
            raise lies
        crc = zlib.crc32(piece, crc)
        yield piece
    if total != size or crc != checksum:
        raise lies


def _stored(fd: int, begin: int, packed: int) -> Iterator[bytes]:
    end = begin + packed
    while begin < end:
        found = os.pread(fd, min(PIECE_BYTES, end - begin), begin)
        if not found:
            raise bad("it is cut off")
        begin += len(found)
        yield found


def _inflated(fd: int, name: str, begin: int, packed: int) -> Iterator[bytes]:
    state = zlib.decompressobj(-15)
    longer = bad(f"{name[:200]!r} is longer than it says")
    for piece in _stored(fd, begin, packed):
        if state.eof:
            raise longer
        waiting = piece
        while waiting and not state.eof:
            found = _inflate(state, waiting, name)
            waiting = state.unconsumed_tail
            if found:
                yield found
        if state.unused_data:
            raise longer
    while found := _inflate(state, b"", name):
        yield found
    if not state.eof:
        raise bad(f"{name[:200]!r} is cut off")


def _inflate(state: zlib._Decompress, piece: bytes, name: str) -> bytes:
    try:
        return state.decompress(piece, PIECE_BYTES)
    except zlib.error as error:
        raise bad(f"{name[:200]!r} is damaged: {error}") from None


def _modified(field: bytes, date: int, time: int) -> int | None:
    """From Info-ZIP's extended timestamp (seconds since 1970), else from MS-DOS's local time, taken as UTC."""
    if len(field) >= 5 and field[0] & 1:
        (found,) = struct.unpack_from("<i", field, 1)
        return max(int(found), 0)
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    try:
        moment = datetime(year, month, day, time >> 11, time >> 5 & 63, (time & 31) * 2, tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp())
