"""Files by LibreChat's names: a session's id and a file's, both of 21 characters, as it accepts no others.

The first is a label of a session, or UPLOADS for what was uploaded and is in no session yet. The second is made
from the file's path, so that nothing has to be kept.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from onehop import errors
from onehop.agent.files import stored
from onehop.agent.service import Agent
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import Caller

LABEL = "librechat.session"
UPLOADS = "onehop-uploads-000000"
UPLOAD_TTL_S = 24 * 3600.0
"""LibreChat uploads a file anew after 23 hours."""
PURPOSE = "librechat"
ID_CHARACTERS = 21


class Shelved(msgspec.Struct, kw_only=True):
    """A file.

    Args:
        session: LibreChat's id of where it is.
        place: id of the session, or empty for an upload.
        path: in the workspace, or the upload's id.
        name: with folders, as code sees it.
        modified_at: RFC 3339.
    """

    id: str
    session: str
    place: str
    path: str
    name: str
    bytes: int
    modified_at: str


def new_label() -> str:
    """A session's id for LibreChat: 126 random bits."""
    return secrets.token_urlsafe(16)[:ID_CHARACTERS]


def file_id(path: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(path.encode()).digest()).decode()[:ID_CHARACTERS]


class Shelf:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, agent: Agent) -> None:
        self._engine = agent.engine
        self._uploads = agent.uploads

    def session(self, label: str, caller: Caller) -> SessionInfo:
        """Raises SessionNotFoundError."""
        found = self._engine.sessions.find({LABEL: label}, caller) if label else []
        if not found:
            raise errors.SessionNotFoundError(
                "there is no such session; it may have ended for not being used"
            )
        return found[0]

    async def all(self, label: str, caller: Caller) -> list[Shelved]:
        """What is there, by path. Raises SessionNotFoundError."""
        if label == UPLOADS:
            rows = [stored(row) for row in await self._uploads.list(caller) if row.purpose == PURPOSE]
            return [
                Shelved(
                    id=file_id(row.id),
                    session=UPLOADS,
                    place="",
                    path=row.id,
                    name=row.name,
                    bytes=row.bytes,
                    modified_at=_time(row.created_at),
                )
                for row in rows
            ]
        session = self.session(label, caller).id
        found = await self._engine.files.list(session, "", caller)
        return [
            Shelved(
                id=file_id(one.path),
                session=label,
                place=session,
                path=one.path,
                name=one.path,
                bytes=one.bytes,
                modified_at=str(one.modified_at),
            )
            for one in found.files
        ]

    async def get(self, label: str, name: str, caller: Caller) -> Shelved:
        """Raises SessionNotFoundError, FileNotFoundInWorkspaceError."""
        for one in await self.all(label, caller):
            if one.id == name:
                return one
        raise errors.FileNotFoundInWorkspaceError("there is no such file in that session")

    @contextlib.asynccontextmanager
    async def content(self, file: Shelved, caller: Caller) -> AsyncIterator[AsyncIterator[bytes]]:
        """Its content in chunks, to be read inside."""
        if file.place:
            async with self._engine.files.read(file.place, file.path, caller) as (_, chunks):
                yield chunks
        else:
            async with self._uploads.read(caller, file.path) as (_, chunks):
                yield chunks

    async def put(self, name: str, content: AsyncIterator[bytes], caller: Caller) -> Shelved:
        """Takes an upload."""
        row = await self._uploads.create(caller, name, content, purpose=PURPOSE, ttl_s=UPLOAD_TTL_S)
        return Shelved(
            id=file_id(row.id),
            session=UPLOADS,
            place="",
            path=row.id,
            name=row.name,
            bytes=row.bytes,
            modified_at=_time(row.created_at),
        )

    async def delete(self, file: Shelved, caller: Caller) -> None:
        if file.place:
            await self._engine.files.delete(file.place, file.path, caller)
        else:
            await self._uploads.delete(caller, file.path)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
