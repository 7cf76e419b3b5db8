"""Reads a tar archive from a stream, strictly: regular files and folders, everything else is refused.

The formats are ustar and pax (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header") and
GNU's long names (GNU tar manual, "Basic Tar Format"). Nothing is taken on trust: every number has a bound,
no header makes it hold more than HEADER_BYTES in memory, and it never writes anything.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from onehop import protocol
from onehop.zygote.workspace import Refused

BLOCK_BYTES = 512
HEADER_BYTES = 64 * 1024
"""The longest extended header or long name that is read."""
PIECE_BYTES = protocol.PORTER_CHUNK_BYTES
AFTER_END_BYTES = 16 * 1024 * 1024
"""So much may follow the end of an archive, unpacked: padding."""

Read = Callable[[int], bytes]
"""Like a file's read: that many bytes, fewer only at the end."""

REFUSED_TYPES = {
    b"1": "a hard link",
    b"2": "a symlink",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
}


class Member(NamedTuple):
    """One thing of an archive.

    Args:
        path: as it stands in the archive, without "./" before and "/" behind; not checked otherwise.
        modified_s: seconds since 1970, or None.
        size_bytes: of the content as it was announced.
        content: must be read to its end before the next member is asked for.
    """

    path: str
    folder: bool
    executable: bool
    modified_s: int | None
    size_bytes: int
    content: Iterator[bytes]


def bad(detail: str) -> Refused:
    return Refused("bad_archive", detail)


def text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise bad(f"{what} {raw[:100]!r} is not valid UTF-8") from None


def relative(path: str) -> str:
    """`path` as archivers mean it: without leading "./" and trailing "/"; empty for the archive's own folder."""
    while path.startswith("./"):
        path = path[2:]
    path = path[:-1] if path.endswith("/") else path
    return "" if path == "." else path


class Gunzipped:
    """Takes the gzip layer (RFC 1952) off, also of several gzip members in a row. Raises Refused while it reads."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._state = zlib.decompressobj(31)
        self._waiting = b""
        self._rest = b""

    def __call__(self, count: int) -> bytes:
        parts = []
        while count:
            found = self._rest or self._piece(count)
            if not found:
                break
            parts.append(found[:count])
            self._rest = found[count:]
            count -= len(parts[-1])
        return b"".join(parts)

    def _piece(self, count: int) -> bytes:
        """Some bytes, at most `count`; none at the end."""
        while True:
            if self._state.eof and not self._next_member():
                return b""
            fed = self._waiting or self._read(PIECE_BYTES)
            try:
                found = self._state.decompress(fed, count)
            except zlib.error as error:
                raise bad(f"it is no gzip data, or damaged: {error}") from None
            self._waiting = self._state.unconsumed_tail or self._state.unused_data
            if found:
                return found
            if not fed and not self._state.eof:
                raise bad("the compressed data is cut off")

    def _next_member(self) -> bool:
        """False when nothing but padding follows."""
        while found := self._waiting or self._read(PIECE_BYTES):
            self._waiting = found.lstrip(b"\0")
            if self._waiting:
                self._state = zlib.decompressobj(31)
                return True
        return False


def members(read: Read) -> Iterator[Member]:
    """All of an archive, in order. Raises Refused for what is no tar, or holds what is not carried."""
    extended: dict[str, str] = {}
    long_name: str | None = None
    while True:
        block = read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise bad("it is cut off: the end of the archive is missing" if block else "its end is missing")
        if not any(block):
            return
        _check_sum(block)
        kind = block[156:157]
        size_bytes = _number(block[124:136], "size")
        if kind in (b"x", b"g"):
            records = _records(_header(read, size_bytes))
            if kind == b"x":
                if extended:
                    raise bad("two extended headers follow each other")
                extended = records
            elif records.keys() & {"path", "size", "linkpath"}:
                raise bad("a global header would rename every file")
            continue
        if kind == b"L":
            long_name = text(_header(read, size_bytes).rstrip(b"\0"), "the name")
            continue
        name = extended.get("path") or long_name
        if name is None:
            prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
            raw = block[:100].split(b"\0")[0]
            name = text(prefix + b"/" + raw if prefix else raw, "the name")
        if kind not in (b"0", b"\0", b"7", b"5"):
            what = REFUSED_TYPES.get(kind, f"of the type {kind.decode('latin-1')!r}, which is not known")
            raise bad(f"{name[:200]!r} is {what}; only files and folders are unpacked")
        folder = kind == b"5" or (kind == b"\0" and name.endswith("/"))
        if "size" in extended:
            size_bytes = _decimal(extended["size"], "size")
        if folder and size_bytes:
            raise bad(f"the folder {name[:200]!r} has content")
        if not folder and name.endswith("/"):
            raise bad(f"the file {name[:200]!r} has the name of a folder")
        modified = extended.get("mtime")
        yield Member(
            relative(name),
            folder,
            bool(_number(block[100:108], "mode") & 0o100),
            _decimal(modified.partition(".")[0], "mtime") if modified is not None else _time(block[136:148]),
            size_bytes,
            _content(read, size_bytes),
        )
        extended, long_name = {}, None


def finish(read: Read) -> None:
    """Reads what follows the end: there a cut-off sender or a wrong checksum of gzip is found. Raises Refused."""
    left = AFTER_END_BYTES
    while found := read(PIECE_BYTES):
        left -= len(found)
        if left < 0:
            raise bad("too much follows its end")


def _content(read: Read, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    while left:
        found = read(min(left, PIECE_BYTES))
        if not found:
            raise bad("it is cut off in the middle of a file")
        left -= len(found)
        yield found
    padding = -size_bytes % BLOCK_BYTES
    if len(read(padding) if padding else b"") != padding:
        raise bad("it is cut off in the middle of a file")


def _header(read: Read, size_bytes: int) -> bytes:
    if size_bytes > HEADER_BYTES:
        raise bad(f"a header of {size_bytes} bytes is longer than {HEADER_BYTES}")
    return b"".join(_content(read, size_bytes))


def _records(raw: bytes) -> dict[str, str]:
    """The `path`, `size`, `mtime` and `linkpath` of a pax header: "length key=value\\n" each."""
    found: dict[str, str] = {}
    position = 0
    while position < len(raw):
        digits, space, _ = raw[position : position + 8].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        record = raw[position + len(digits) + 1 : position + length]
        key, equals, value = record[:-1].partition(b"=")
        if length < 5 or position + length > len(raw) or record[-1:] != b"\n" or not equals:
            raise bad("an extended header is broken")
        position += length
        if key.startswith(b"GNU.sparse"):
            raise bad("it holds a sparse file; only plain files are unpacked")
        if key in (b"path", b"size", b"mtime", b"linkpath"):
            if key.decode() in found:
                raise bad(f"an extended header has two times {key.decode()!r}")
            found[key.decode()] = text(value, f"the {key.decode()}")
    return found


def _check_sum(block: bytes) -> None:
    """Of all bytes of the header, its own field taken as spaces; old archivers summed signed bytes."""
    summed = block[:148] + b" " * 8 + block[156:]
    digits = block[148:156].split(b"\0")[0].strip(b" ")
    wanted = int(digits, 8) if digits and not digits.strip(b"01234567") else -1
    if wanted != sum(summed) and wanted != sum(byte - 256 if byte > 127 else byte for byte in summed):
        raise bad("it is no tar archive, or damaged: a header's checksum is wrong")


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's base 256 for what is too large for them. Raises Refused, also for less than 0."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise bad(f"a header's {what} is no number")
    return int(digits or b"0", 8)


def _time(field: bytes) -> int | None:
    return None if field[0] == 0xFF else _number(field, "mtime")  # before 1970


def _decimal(digits: str, what: str) -> int:
    if what == "mtime" and digits.startswith("-"):
        return 0
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise bad(f"an extended header's {what} is no number")
    return int(digits)
