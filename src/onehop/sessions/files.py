"""Files of a workspace: what an execution changed, what goes in before it, what goes out after it.

A porter is a process of the sandbox: it may be stopped by hostile code at any moment, so every wait
for one is bounded here.
"""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime

from onehop.errors import (
    ConflictError,
    FileNotFoundInWorkspaceError,
    OnehopError,
    TooLargeError,
    UnavailableError,
)
from onehop.protocol import Entry
from onehop.sessions.answers import FileInfo
from onehop.supervisor.porter import Porter

UNPACK_TIMEOUT_S = 300.0
"""So long an archive may be unpacked after its last byte has come."""
LISTING_TIMEOUT_S = 1.0
"""An answer does not wait longer for its list of files; it then says `files_truncated`."""
FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0
"""The years 1 to 9999."""
STEP_TIMEOUT_S = 30.0
"""One step of a transfer."""


def info(entry: Entry) -> FileInfo:
    return FileInfo(entry.path, entry.bytes, _time(entry.modified_ns))


def _time(nanoseconds: int) -> str:
    """RFC 3339, cut to the years that it can say: user code may set any time."""
    seconds = min(max(nanoseconds / 1e9, FIRST_S), LAST_S)
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def changed(
    entries: list[Entry], before: Mapping[str, Entry] | None, *, since_s: float, leave_out: str
) -> list[FileInfo]:
    """Files that differ from `before`; without it, those modified since `since_s` (seconds since 1970)."""
    if before is None:
        since_ns = int(since_s * 1e9)
        return [
            FileInfo(e.path, e.bytes) for e in entries if e.modified_ns >= since_ns and e.path != leave_out
        ]
    return [FileInfo(e.path, e.bytes) for e in entries if before.get(e.path) != e and e.path != leave_out]


@contextlib.asynccontextmanager
async def step(what: str) -> AsyncIterator[None]:
    """Raises UnavailableError when the porter takes longer than STEP_TIMEOUT_S for it."""
    try:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            yield
    except TimeoutError:
        raise UnavailableError(f"the sandbox does not {what}") from None


async def write(porter: Porter, path: str, content: AsyncIterator[bytes]) -> Entry:
    """Creates or replaces a file whole. Raises ConflictError when a folder on the way is a file."""
    try:
        return await porter.write(path, content)
    except FileNotFoundInWorkspaceError:
        raise ConflictError(f"{path!r} cannot be made: part of its path is not a folder") from None


async def put(porter: Porter, contents: Mapping[str, bytes], known: Mapping[str, Entry]) -> list[Entry]:
    """Writes files. On an error those that were new are taken away again, and the error is raised."""
    written: list[Entry] = []
    try:
        for path, content in contents.items():
            async with step("take files"):
                written.append(await write(porter, path, _once(content)))
    except OnehopError:
        await _take_back(porter, [entry.path for entry in written if entry.path not in known])
        raise
    return written


async def _take_back(porter: Porter, paths: list[str]) -> None:
    try:
        async with asyncio.timeout(STEP_TIMEOUT_S):
            for path in paths:
                await porter.delete(path)
    except (OnehopError, TimeoutError):
        pass  # the first error is the one to tell


async def fill(porter: Porter, files: list[FileInfo], limit_bytes: int) -> None:
    """Puts contents into `files`, in order, up to `limit_bytes` in all; the rest is marked `omitted`."""
    left = limit_bytes
    for file in files:
        if file.bytes > left:
            file.omitted = True
            continue
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                _, chunks = await porter.read(file.path)
                content = b"".join([chunk async for chunk in chunks])
        except (OnehopError, TimeoutError):
            file.omitted = True
            continue
        left -= len(content)
        file.bytes = len(content)
        file.base64 = b64encode(content).decode("ascii")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content


async def at_most(content: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    """`content`, as long as it is not longer than `limit_bytes`. Raises TooLargeError."""
    total = 0
    async for chunk in content:
        total += len(chunk)
        if total > limit_bytes:
            raise TooLargeError(
                f"the file is longer than the workspace's {limit_bytes} bytes", limit_bytes=limit_bytes
            )
        yield chunk


async def patient(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`chunks`, each awaited for STEP_TIMEOUT_S at most. Raises UnavailableError."""
    while True:
        async with step("go on handing out the file"):
            chunk = await anext(chunks, b"")
        if not chunk:
            return
        yield chunk
