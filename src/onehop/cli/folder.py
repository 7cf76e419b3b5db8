"""The folder that `onehop run` writes into, and its one rule: a file that no run wrote is never replaced.

A manifest in the folder names what earlier runs wrote, with size and time. Such a file is replaced if
nobody has changed it since; anything else keeps its name, and the new file gets another ("data-1.csv").
Paths come from a sandbox: links are not followed, and nothing is written outside the folder.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from onehop.cli.terminal import printable
from onehop.errors import EngineError
from onehop.protocol import check_path

MANIFEST = ".onehop-run.json"
MAX_TRIES = 1000
_FLAGS = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """Made when the first file is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] | None = None
        self._written: list[tuple[str, str, int]] = []

    async def write(self, path: str, content: AsyncIterator[bytes]) -> None:
        """Writes a file whole, or leaves everything as it was.

        Raises:
            EngineError: it cannot be written here.
        """
        if problem := check_path(path):
            raise EngineError(f"the path {problem}")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            if self._known is None:
                self._known = self._load()
            final, size = await self._write(path, content)
        except OSError as error:
            raise EngineError(f"{self._path / path}: {error.strerror or error}") from error
        self._written.append((path, final, size))
        self._save()

    def listing(self) -> list[str]:
        """What was written, with sizes, for people."""
        if not self._written:
            return []
        width = max(len(printable(final)) for _, final, _ in self._written)
        lines = [f"onehop: written to {self._path}/"]
        for path, final, size in self._written:
            why = (
                ""
                if path == final
                else f"  (instead of {printable(path)}, which is there and not from a run)"
            )
            lines.append(f"  {printable(final):<{width}}  {_human(size):>9}{why}")
        return lines

    async def _write(self, path: str, content: AsyncIterator[bytes]) -> tuple[str, int]:
        parts = path.split("/")
        directory = os.open(self._path, _FLAGS & ~os.O_NOFOLLOW)
        try:
            for depth, part in enumerate(parts[:-1]):
                directory, parts[depth] = _enter(directory, part)
            temporary = f".onehop-{secrets.token_hex(8)}"
            file = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory
            )
            try:
                size = 0
                with os.fdopen(file, "wb") as target:
                    async for chunk in content:
                        size += target.write(chunk)
                parts[-1] = self._place(directory, temporary, parts)
            except BaseException:
                os.unlink(temporary, dir_fd=directory)
                raise
            final = "/".join(parts)
            found = os.stat(parts[-1], dir_fd=directory, follow_symlinks=False)
            assert self._known is not None
            self._known[final] = [found.st_size, found.st_mtime_ns]
            return final, size
        finally:
            os.close(directory)

    def _place(self, directory: int, temporary: str, parts: list[str]) -> str:
        """Gives the finished file the first name that may be used, and returns it."""
        for name in _names(parts[-1]):
            full = "/".join([*parts[:-1], name])
            if self._ours(directory, name, full):
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                return name
            if full == MANIFEST:
                continue
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=directory))
            except FileExistsError:
                continue
            os.replace(
                temporary, name, src_dir_fd=directory, dst_dir_fd=directory
            )  # the name is ours by O_EXCL
            return name
        raise EngineError(f"{'/'.join(parts)}: all names like it are taken in {self._path}")

    def _ours(self, directory: int, name: str, full: str) -> bool:
        assert self._known is not None
        if full not in self._known or any(full == final for _, final, _ in self._written):
            return False
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and self._known[full] == [found.st_size, found.st_mtime_ns]

    def _load(self) -> dict[str, Any]:
        try:
            known = json.loads((self._path / MANIFEST).read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _save(self) -> None:
        scratch = self._path / f"{MANIFEST}.{os.getpid()}"
        scratch.write_text(json.dumps(self._known))
        scratch.replace(self._path / MANIFEST)


def _enter(directory: int, part: str) -> tuple[int, str]:
    """A descriptor of the folder `part`, made if need be, in exchange for its parent's; and its name."""
    for name in _names(part):
        try:
            os.mkdir(name, dir_fd=directory)
        except FileExistsError:
            pass
        try:
            inner = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=directory)
        except OSError:
            continue  # a file or a link has this name
        os.close(directory)
        return inner, name
    raise EngineError(f"{part}: all names like it are taken")


def _names(name: str) -> Iterator[str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    yield name
    for number in range(1, MAX_TRIES):
        yield f"{stem}-{number}{dot}{suffix}"


def _human(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 1000 or unit == "GB":
            break
    return f"{amount:.1f} {unit}"
