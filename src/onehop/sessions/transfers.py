"""Files of sessions, in and out: each transfer has a porter of its own, and a session only so many at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from onehop import errors
from onehop.config import Settings
from onehop.sessions import files, requests
from onehop.sessions.answers import FileInfo, FileList
from onehop.sessions.caller import LOCAL, Caller
from onehop.sessions.registry import Registry
from onehop.sessions.session import Session
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.porter import Porter


class Transfers:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, settings: Settings, client: SupervisorClient, registry: Registry) -> None:
        self._settings = settings
        self._client = client
        self._registry = registry

    async def list(self, session_id: str, caller: Caller = LOCAL) -> FileList:
        async with self._transfer(session_id, caller) as (_, porter), files.step("list its files"):
            entries, truncated = await porter.list()
        return FileList([FileInfo(entry.path, entry.bytes) for entry in entries], truncated)

    @contextlib.asynccontextmanager
    async def read(
        self, session_id: str, path: str, caller: Caller = LOCAL
    ) -> AsyncIterator[tuple[FileInfo, AsyncIterator[bytes]]]:
        """The file and its content in chunks, to be read inside the context."""
        requests.check_path(path)
        async with self._transfer(session_id, caller) as (_, porter):
            async with files.step("hand out the file"):
                entry, chunks = await porter.read(path)
            yield FileInfo(entry.path, entry.bytes), files.patient(chunks)

    async def write(
        self, session_id: str, path: str, content: AsyncIterator[bytes], caller: Caller = LOCAL
    ) -> FileInfo:
        """Creates or replaces a file whole; on any error nothing has changed."""
        requests.check_path(path)
        self._registry.check_open()
        async with self._transfer(session_id, caller) as (session, porter):
            entry = await files.write(porter, path, files.at_most(content, session.workspace_bytes))
            session.knows(entry)
            return FileInfo(entry.path, entry.bytes)

    async def delete(self, session_id: str, path: str, caller: Caller = LOCAL) -> None:
        requests.check_path(path)
        async with self._transfer(session_id, caller) as (session, porter):
            async with files.step("delete the file"):
                await porter.delete(path)
            if session.listing is not None:
                session.listing.pop(path, None)

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
