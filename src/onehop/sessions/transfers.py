"""Files of sessions, in and out: each transfer has a porter of its own, and a session only so many at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from onehop import errors
from onehop.config import Settings
from onehop.protocol import Entry
from onehop.sessions import bounds, files, requests
from onehop.sessions.answers import FileInfo, FileList
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.registry import Registry
from onehop.sessions.session import Session
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.porter import Porter

MAX_NAMED = 10_000
"""So many files of an archive are named in an answer."""
BYTES_PER_MEMBER = 2048
list_ = list  # a method has the name


def _check_folder(folder: str) -> None:
    if folder:
        bounds.check_path(folder)


class Transfers:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, settings: Settings, client: SupervisorClient, registry: Registry) -> None:
        self._settings = settings
        self._client = client
        self._registry = registry

    async def list(self, session_id: str, folder: str = "", caller: Caller = LOCAL) -> FileList:
        """Files of a folder and of those in it, sorted by path; of the whole workspace for an empty one."""
        _check_folder(folder)
        async with self._transfer(session_id, caller) as (_, porter), files.step("list its files"):
            entries, truncated = await porter.list(folder)
        return FileList([files.info(entry) for entry in entries], truncated)

    async def stat(self, session_id: str, path: str, caller: Caller = LOCAL) -> Entry:
        bounds.check_path(path)
        async with self._transfer(session_id, caller) as (_, porter), files.step("look at the file"):
            return await porter.stat(path)

    @contextlib.asynccontextmanager
    async def read(
        self, session_id: str, path: str, caller: Caller = LOCAL, *, offset: int = 0, length: int = -1
    ) -> AsyncIterator[tuple[Entry, AsyncIterator[bytes]]]:
        """The file and its content in chunks, to be read inside the context.

        Args:
            offset: first byte, counted from the end if negative.
            length: most bytes, all if negative.
        """
        bounds.check_path(path)
        async with self._transfer(session_id, caller) as (_, porter):
            async with files.step("hand out the file"):
                entry, chunks = await porter.read(path, offset=offset, length=length)
            yield entry, files.patient(chunks)

    async def write(
        self, session_id: str, path: str, content: AsyncIterator[bytes], caller: Caller = LOCAL
    ) -> FileInfo:
        """Creates or replaces a file whole; on any error nothing has changed."""
        bounds.check_path(path)
        self._registry.check_open()
        async with self._transfer(session_id, caller) as (session, porter):
            entry = await files.write(porter, path, files.at_most(content, session.workspace_bytes))
            session.knows(entry)
            return files.info(entry)

    async def delete(
        self, session_id: str, path: str, caller: Caller = LOCAL, *, recursive: bool = False
    ) -> None:
        """A file, or with `recursive` a folder and all that is in it."""
        bounds.check_path(path)
        async with self._transfer(session_id, caller) as (session, porter):
            async with files.step("delete it"):
                await porter.delete(path, recursive=recursive)
            session.knows_not(path)

    async def move(
        self, session_id: str, path: str, request: requests.MoveRequest, caller: Caller = LOCAL
    ) -> FileInfo:
        """A file or folder. Raises ConflictError when something is there that must not be replaced."""
        bounds.check_path(path)
        bounds.check_path(request.move_to)
        async with self._transfer(session_id, caller) as (session, porter):
            async with files.step("move it"):
                entry = await porter.move(path, request.move_to, overwrite=request.overwrite)
            session.knows_moved(path, request.move_to)
            return files.info(entry)

    # --- trees --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def pack(
        self, session_id: str, folder: str, form: str, caller: Caller = LOCAL
    ) -> AsyncIterator[tuple[int, list_[str], AsyncIterator[bytes]]]:
        """How many things are left out, some of their names, and the archive in chunks, to be read inside.

        Args:
            form: one of protocol.ARCHIVE_FORMATS.
        """
        _check_folder(folder)
        async with self._transfer(session_id, caller) as (_, porter):
            async with files.step("look through its files"):
                reply, chunks = await porter.pack(folder, form)
            yield reply.left_out, reply.left_out_names, files.patient(chunks)

    async def unpack(
        self,
        session_id: str,
        folder: str,
        form: str,
        content: AsyncIterator[bytes],
        caller: Caller = LOCAL,
    ) -> FileList:
        """The files that an archive put into a folder; on any error nothing has changed.

        Raises:
            InvalidArchiveError: it is none, or holds what is not unpacked.
            QuotaExceededError: its content does not fit.
            ConflictError: something of another kind is where a file or folder of it belongs.
        """
        _check_folder(folder)
        self._registry.check_open()
        async with self._transfer(session_id, caller) as (session, porter):
            entries, truncated = await porter.unpack(folder, form, content, timeout_s=files.UNPACK_TIMEOUT_S)
            for entry in entries:
                session.knows(entry)
            return FileList(
                [files.info(entry) for entry in entries[:MAX_NAMED]], truncated or len(entries) > MAX_NAMED
            )

    async def archive_limit_bytes(self, session_id: str, caller: Caller = LOCAL) -> int:
        """The longest archive that may hold no more than fits: headers and padding of every file come on top."""
        session = await self._registry.find(session_id, caller)
        return session.workspace_bytes + session.settings.limits.workspace_inodes * BYTES_PER_MEMBER

    async def limit_bytes(self, session_id: str, caller: Caller = LOCAL) -> int:
        """The most bytes a file of this session can have."""
        return (await self._registry.find(session_id, caller)).workspace_bytes

    @contextlib.asynccontextmanager
    async def _transfer(self, session_id: str, caller: Caller) -> AsyncIterator[tuple[Session, Porter]]:
        session = await self._registry.find(session_id, caller)
        if session.transfers >= self._settings.max_transfers:
            raise errors.TooManyError(
                f"{session.transfers} file transfers of this session are under way already"
            )
        session.transfers += 1
        try:
            async with await self._client.open_porter(session.sandbox) as porter:
                yield session, porter
        except errors.OnehopError as error:
            raise self._registry.translated(error, session) from error
        finally:
            session.transfers -= 1
            session.touch()
