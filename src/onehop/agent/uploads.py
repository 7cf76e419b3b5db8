"""Files that clients upload for later requests: content in the state's folder, the rest in the database.

A file is there with its whole content or not at all. Its name is the client's and is never used as a path here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

from onehop.config import MIB, Settings
from onehop.errors import InvalidRequestError, QuotaExceededError, TooLargeError, UploadNotFoundError
from onehop.sessions.caller import Caller
from onehop.sessions.run import new_id
from onehop.store import Store, uploads
from onehop.store.records import UploadRow

FOLDER = "uploads"
BUFFER_BYTES = 1024 * 1024
LOOK_S = 300.0
MAX_NAME_CHARACTERS = 255
PREFIX = "file_"
OWN = "onehop."
"""In front of purposes that no client gives: such files are in no client's listing."""
Late = tuple[str, float | None]
"""Purpose, and seconds after which the file is gone."""

log = logging.getLogger("onehop.agent")


class Uploads:
    """Use as `async with uploads`: it looks for what has expired, and for files that nobody knows.

    Args:
        settings: with the limits, and where the state is.
        store: the engine's.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._folder = settings.state / FOLDER
        self._file_bytes = settings.upload_mb * MIB
        self._owner_bytes = settings.uploads_mb * MIB
        self._store = store
        self._receiving: dict[str, int] = {}
        """By owner: bytes that are not in the database yet."""
        self._under_way: set[str] = set()
        self._housekeeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Uploads:
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        self._housekeeper = asyncio.get_running_loop().create_task(self._keep_house())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeper

    async def create(
        self,
        caller: Caller,
        name: str,
        content: AsyncIterator[bytes],
        *,
        purpose: str = "",
        media_type: str = "application/octet-stream",
        ttl_s: float | None = None,
        late: Callable[[], Late] | None = None,
    ) -> UploadRow:
        """Takes a file; on any error nothing is left of it.

        Args:
            name: as the client calls it; folders in front of it are cut off.
            ttl_s: seconds after which it is gone; None for never.
            late: asked for purpose and ttl_s once the content has ended: a form may say them after the file.

        Raises:
            InvalidRequestError: it has no usable name.
            TooLargeError: it is longer than `upload_mb`.
            QuotaExceededError: the owner's files together, or the disk.
        """
        name = checked_name(name)
        upload = PREFIX + new_id("").lstrip("_")
        path = self._folder / upload
        used = await self._store.read(lambda connection: uploads.used_bytes(connection, caller.owner))
        size = 0
        self._under_way.add(upload)
        try:
            part = await asyncio.to_thread(_open_new, path)
            with part:
                waiting = bytearray()
                async for chunk in content:
                    size += len(chunk)
                    if size > self._file_bytes:
                        raise TooLargeError(
                            f"the file is longer than {self._file_bytes} bytes", limit_bytes=self._file_bytes
                        )
                    receiving = self._receiving[caller.owner] = self._receiving.get(caller.owner, 0) + len(
                        chunk
                    )
                    if used + receiving > self._owner_bytes:
                        raise QuotaExceededError(
                            f"your uploaded files would have more than {self._owner_bytes} bytes together; "
                            "delete some"
                        )
                    waiting += chunk
                    if len(waiting) >= BUFFER_BYTES:
                        await asyncio.to_thread(part.write, waiting)
                        waiting = bytearray()
                if late is not None:
                    purpose, ttl_s = late()
                await asyncio.to_thread(_finish, part, bytes(waiting))
            now = time.time()
            row = UploadRow(
                upload,
                caller.owner,
                name,
                purpose[:64],
                media_type[:255],
                size,
                now,
                None if ttl_s is None else now + ttl_s,
            )
            await self._store.commit(lambda connection: uploads.add(connection, row))
            return row
        except OSError as error:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise QuotaExceededError(f"the server has no room for the file: {error.strerror}") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            self._under_way.discard(upload)
            left = self._receiving.get(caller.owner, 0) - size
            if left > 0:
                self._receiving[caller.owner] = left
            else:
                self._receiving.pop(caller.owner, None)

    async def get(self, caller: Caller, upload: str) -> UploadRow:
        """Raises UploadNotFoundError for what is not there, has expired, or is not the caller's."""
        now = time.time()
        row = await self._store.read(lambda connection: uploads.find(connection, caller.owner, upload, now))
        if row is None:
            raise UploadNotFoundError(f"there is no file {upload[:80]!r}")
        return row

    async def list(self, caller: Caller, *, purpose: str = "") -> list[UploadRow]:
        """The caller's, oldest first: of one purpose, or of all that are no server's own."""
        now = time.time()
        rows = await self._store.read(lambda connection: uploads.all_of(connection, caller.owner, now))
        if purpose:
            return [row for row in rows if row.purpose == purpose]
        return [row for row in rows if not row.purpose.startswith(OWN)]

    async def delete(self, caller: Caller, upload: str) -> None:
        """Raises UploadNotFoundError."""
        found = await self._store.commit(lambda connection: uploads.remove(connection, caller.owner, upload))
        if not found:
            raise UploadNotFoundError(f"there is no file {upload[:80]!r}")
        await asyncio.to_thread((self._folder / upload).unlink, missing_ok=True)

    @contextlib.asynccontextmanager
    async def read(
        self, caller: Caller, upload: str
    ) -> AsyncIterator[tuple[UploadRow, AsyncIterator[bytes]]]:
        """The file and its content in chunks, to be read inside the context. Raises UploadNotFoundError."""
        row = await self.get(caller, upload)
        try:
            file = await asyncio.to_thread((self._folder / row.id).open, "rb")
        except FileNotFoundError:
            raise UploadNotFoundError(f"there is no file {upload[:80]!r}") from None
        with file:

            async def chunks() -> AsyncIterator[bytes]:
                while chunk := await asyncio.to_thread(file.read, BUFFER_BYTES):
                    yield chunk

            yield row, chunks()

    async def _keep_house(self) -> None:
        while True:
            try:
                await self._tidy()
            except Exception as error:  # noqa: BLE001 - it is tried again
                log.warning("uploaded files could not be tidied: %s", error)
            await asyncio.sleep(LOOK_S)

    async def _tidy(self) -> None:
        """Removes what has expired, and files of uploads that were broken off by the end of a gateway."""
        there = set(await asyncio.to_thread(os.listdir, self._folder))
        now = time.time()
        known = set(await self._store.commit(lambda connection: uploads.expire(connection, now)))
        for name in there - known - self._under_way:
            await asyncio.to_thread((self._folder / name).unlink, missing_ok=True)


def checked_name(name: str) -> str:
    """Without folders and not too long. Raises InvalidRequestError for what is no name."""
    name = name.replace("\\", "/").rpartition("/")[2]
    try:
        name.encode()
    except UnicodeEncodeError:
        name = ""
    if not name or name in (".", "..") or any(ord(one) < 32 or ord(one) == 127 for one in name):
        raise InvalidRequestError(
            "filename: the file needs a name without folders and control characters", field="filename"
        )
    while len(name.encode()) > MAX_NAME_CHARACTERS:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[:-1]}{dot}{suffix}" if len(stem) > 1 else name[:-1]
    return name


def _open_new(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _finish(file: BinaryIO, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())
