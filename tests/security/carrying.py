"""Makes archives byte by byte, hostile ones too (what tarfile and zipfile would not write), and carries them."""

from __future__ import annotations

import asyncio
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from onehop import protocol
from onehop.supervisor.porter import Porter
from tests.driver import Driver, Session

BLOCK = 512


def header(
    name: bytes,
    size: int | bytes = 0,
    *,
    kind: bytes = b"0",
    link: bytes = b"",
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    mode: bytes = b"0000644\0",
) -> bytes:
    """One header block of ustar, with a true checksum."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = name.ljust(100, b"\0") + mode + b"0000000\0" * 2 + digits + b"%011o\0" % 1_000_000_000
    block += b" " * 8 + kind + link.ljust(100, b"\0") + magic + bytes(32 + 32 + 16) + prefix.ljust(155, b"\0")
    block = block.ljust(BLOCK, b"\0")
    assert len(block) == BLOCK
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes, content: bytes = b"hostile\n", **fields: bytes) -> bytes:
    return header(name, len(content), **fields) + padded(content)


def pax(records: dict[str, bytes], kind: bytes = b"x") -> bytes:
    """An extended header; the length of a record counts itself."""
    body = b""
    for key, value in records.items():
        rest = b" " + key.encode() + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += str(length).encode() + rest
    return file(b"PaxHeader", body, kind=kind)


END = bytes(2 * BLOCK)


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + END


def plain_tar(contents: dict[str, bytes], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """As tarfile writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def plain_zip(contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As zipfile writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def zip_entry_and_record(
    name: bytes,
    content: bytes = b"hostile\n",
    *,
    offset: int = 0,
    method: int = 8,
    flags: int = 0,
    size: int | None = None,
    packed_size: int | None = None,
    crc: int | None = None,
    mode: int = 0o100644,
    central_name: bytes | None = None,
) -> tuple[bytes, bytes]:
    """A local entry and its record of the central directory, which may say something else."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(content) + packer.flush() if method == 8 else content
    crc = zlib.crc32(content) if crc is None else crc
    sizes = (len(data) if packed_size is None else packed_size, len(content) if size is None else size)
    shared = struct.pack("<HHHHLLL", flags, method, 0, 0x21, crc, *sizes)
    local = b"PK\3\4\x14\0" + shared + struct.pack("<HH", len(name), 0) + name + data
    name = name if central_name is None else central_name
    record = (
        b"PK\1\2\x14\3\x14\0" + shared + struct.pack("<HHHHHLL", len(name), 0, 0, 0, 0, mode << 16, offset)
    )
    return local, record + name


def zip_of(*entries: dict[str, object], count: int | None = None) -> bytes:
    """A whole zip from arguments of `zip_entry_and_record`."""
    body, directory = b"", b""
    for arguments in entries:
        local, record = zip_entry_and_record(**{"offset": len(body), **arguments})  # type: ignore[arg-type]
        body, directory = body + local, directory + record
    number = len(entries) if count is None else count
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, number, number, len(directory), len(body), 0)
    return body + directory + end


def gz(content: bytes) -> bytes:
    return gzip.compress(content, 1)


def with_porter(driver: Driver, session: Session, work: Callable[[Porter], Coroutine[Any, Any, Any]]) -> Any:
    """Runs `work` with a new porter of the session."""

    async def run() -> Any:
        async with asyncio.timeout(90):
            async with await driver.client.open_porter(session.id) as porter:
                return await work(porter)

    return driver.wait(run(), 100)


MIB = 1 << 20
UNPACK_S = 60.0

STATE = """
import hashlib, os
def state():
    found = []
    for folder, _, names in os.walk('.'):
        for name in [folder, *(os.path.join(folder, name) for name in names)]:
            status = os.lstat(name)
            content = hashlib.sha256(open(name, 'rb').read()).hexdigest() if os.path.isfile(name) else ''
            found.append((name, oct(status.st_mode), status.st_ino, status.st_size if content else 0, content))
    return sorted(found)
"""
"""User code's own look at its workspace: everything, also what listings do not show."""


async def pieces(archive: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(archive), size):
        yield archive[start : start + size]


def unpack(driver: Driver, session: Session, form: str, archive: bytes, folder: str = "") -> list[str]:
    """Paths of the files that were unpacked."""
    entries, _ = with_porter(
        driver, session, lambda porter: porter.unpack(folder, form, pieces(archive), timeout_s=UNPACK_S)
    )
    return [entry.path for entry in entries]


def pack(driver: Driver, session: Session, form: str, folder: str = "") -> tuple[protocol.PorterReply, bytes]:
    async def work(porter: Porter) -> tuple[protocol.PorterReply, bytes]:
        reply, chunks = await porter.pack(folder, form)
        return reply, b"".join([chunk async for chunk in chunks])

    found: tuple[protocol.PorterReply, bytes] = with_porter(driver, session, work)
    return found


def contents(session: Session) -> str:
    outcome = session.run(
        "import os\nsorted(os.path.join(f, n)[2:] for f, d, ns in os.walk('.') for n in [*d, *ns])"
    )
    return outcome.results[0]["text/plain"]
