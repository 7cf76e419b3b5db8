"""Local files on their way to a workspace and back: bodies of requests, and trees as tar streams.

What comes back was packed by code that nobody trusts: only regular files and folders are made, below the
target and through no link. Nothing is held in memory but a piece at a time.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from onehop.client.steps import Source
from onehop.errors import InvalidPathError

CHUNK_BYTES = 256 * 1024

Data = str | bytes | Path | IO[bytes] | Iterable[bytes]


def source(data: Data) -> bytes | Source:
    """A request's body from text, bytes, the path of a file, an open file or pieces."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, Path):
        return Source(lambda: _pieces_of(data), again=True, length_bytes=data.stat().st_size)
    if hasattr(data, "read"):
        file: Any = data
        return Source(lambda: iter(lambda: _bytes(file.read(CHUNK_BYTES)), b""), again=False)
    pieces: Iterable[bytes] = data
    return Source(lambda: iter(pieces), again=False)


def _bytes(chunk: Any) -> bytes:
    if not isinstance(chunk, bytes):
        raise TypeError("the file must be opened in binary mode ('rb')")
    return chunk


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def tree(folder: Path) -> Source:
    """A folder's regular files and folders as a tar; links and everything else are left out."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{str(folder)!r} is no folder")
    return Source(lambda: _tar(folder), again=True)


class _Buffer(io.RawIOBase):
    """Takes what is written until it is asked for."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self.parts)
        self.parts.clear()
        return taken


def _tar(folder: Path) -> Iterator[bytes]:
    buffer = _Buffer()
    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted([*folders, *names]):
                path = Path(parent, name)
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    continue
                info = archive.gettarinfo(path, arcname=str(path.relative_to(folder)))
                if path.is_dir():
                    archive.addfile(info)
                    continue
                info.type, info.linkname = tarfile.REGTYPE, ""  # a hard link is a file of its own here
                info.size = path.stat().st_size
                yield from _member(archive, info, path, buffer)
            if buffer.parts:
                yield buffer.take()
    yield buffer.take()


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo, path: Path, buffer: _Buffer) -> Iterator[bytes]:
    """One file in pieces; `addfile` would take it all at once."""
    archive.addfile(info)  # the header alone: no content was given
    stream: Any = archive.fileobj
    left = info.size
    with path.open("rb") as file:
        while left:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise OSError(f"{str(path)!r} became shorter while it was read")
            left -= len(chunk)
            stream.write(chunk)
            yield buffer.take()
    stream.write(b"\0" * (-info.size % tarfile.BLOCKSIZE))
    archive.offset += info.size + (-info.size % tarfile.BLOCKSIZE)


def unpack(archive_file: IO[bytes], target: Path) -> list[Path]:
    """Unpacks a tar below `target`; existing files of the same names are replaced.

    Raises:
        InvalidPathError: a member's path leads outside, or through a link; nothing of it was written.
    """
    target.mkdir(parents=True, exist_ok=True)
    made = []
    with tarfile.open(fileobj=archive_file, mode="r|*") as archive:
        for member in archive:
            path = _below(target, member.name)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif member.isreg() and path != target:
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                write_whole(path, iter(lambda c=content: c.read(CHUNK_BYTES), b""))  # type: ignore[misc]
                made.append(path)
    return made


def _below(target: Path, name: str) -> Path:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise InvalidPathError(f"the archive holds the path {name[:200]!r}, which leads outside")
    path = target
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise InvalidPathError(f"{str(path)!r} is a link, which the archive would write through")
    return path


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file whole, or leaves what is there as it was."""
    scratch = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
