"""Files by id, wherever they are: uploads, and files in containers.

The id of a file in a container says where it is, so it needs no table and works as long as the container
lives. It is no permission: whose container that is gets looked at each time.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import mimetypes
from collections.abc import AsyncIterator, Iterator
from datetime import datetime

import msgspec

from onehop import protocol
from onehop.agent.memory import Memory
from onehop.agent.uploads import Uploads, checked_name
from onehop.errors import (
    FileNotFoundInWorkspaceError,
    NotARegularFileError,
    ProblemError,
    SessionNotFoundError,
    UploadNotFoundError,
)
from onehop.sessions import Engine
from onehop.sessions.answers import FileInfo
from onehop.sessions.caller import Caller
from onehop.sessions.files import info as file_info
from onehop.store.records import UploadRow

CONTAINER_FILE = "cfile_"
"""OpenAI's prefix of files in containers."""
OUTPUT_FILE = "file_w"
"""Where one prefix is for all files, as with Anthropic: no upload's id has a `w` there, but a digit."""
PUT = "container_file"
"""Kind of memory: state of a file that a client put into a container."""
OCTETS = "application/octet-stream"


class StoredFile(msgspec.Struct, kw_only=True):
    """A file that clients know by its id.

    Args:
        name: without folders.
        created_at: seconds since 1970; when it was last changed, for one in a container.
        expires_at: seconds since 1970, None when it stays until it is deleted.
        session, path: where it is, for one in a container.
        by_client: a client has put it there, and code has not changed it since.
    """

    id: str
    name: str
    bytes: int
    created_at: float
    media_type: str
    purpose: str = ""
    expires_at: float | None = None
    session: str = ""
    path: str = ""
    by_client: bool = True


def file_id(session: str, path: str, prefix: str = CONTAINER_FILE) -> str:
    """The id of a file in a session's workspace."""
    place = f"{session.removeprefix('ses_')}/{path}".encode()
    return prefix + base64.urlsafe_b64encode(place).rstrip(b"=").decode()


def place_of(name: str) -> tuple[str, str] | None:
    """Session and path of such an id; None for every other text."""
    for prefix in (CONTAINER_FILE, OUTPUT_FILE):
        if name.startswith(prefix):
            break
    else:
        return None
    coded = name.removeprefix(prefix)
    try:
        place = base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    session, _, path = place.partition("/")
    if not session or protocol.check_path(path) is not None or file_id(session, path, prefix) != name:
        return None
    return f"ses_{session}", path


class Files:
    """Methods raise ProblemError and its subclasses only.

    Args:
        engine: whose sessions the containers are.
        memory: which files clients have put there.
        uploads: the others.
    """

    def __init__(self, engine: Engine, memory: Memory, uploads: Uploads) -> None:
        self._engine = engine
        self._memory = memory
        self._uploads = uploads

    async def get(self, name: str, caller: Caller) -> StoredFile:
        """Raises UploadNotFoundError, SessionEndedError."""
        place = place_of(name)
        if place is None:
            return stored(await self._uploads.get(caller, name))
        with _one_answer(name):
            return await self.stat(*place, caller, name=name)

    @contextlib.asynccontextmanager
    async def read(self, name: str, caller: Caller) -> AsyncIterator[tuple[StoredFile, AsyncIterator[bytes]]]:
        """The file and its content in chunks, to be read inside. Raises UploadNotFoundError, SessionEndedError."""
        place = place_of(name)
        if place is None:
            async with self._uploads.read(caller, name) as (row, chunks):
                yield stored(row), chunks
            return
        async with contextlib.AsyncExitStack() as stack:
            with _one_answer(name):
                entry, chunks = await stack.enter_async_context(self._engine.files.read(*place, caller))
            yield _in_container(place[0], file_info(entry), name), chunks

    async def delete(self, name: str, caller: Caller) -> None:
        """Raises UploadNotFoundError, SessionEndedError."""
        place = place_of(name)
        if place is None:
            await self._uploads.delete(caller, name)
            return
        with _one_answer(name):
            await self._engine.files.delete(*place, caller)

    # --- in containers ------------------------------------------------------------------------------

    async def stat(self, session: str, path: str, caller: Caller, *, name: str = "") -> StoredFile:
        """A file of a container, under the id `name` if one is given. Raises FileNotFoundInWorkspaceError, …"""
        entry = await self._engine.files.stat(session, path, caller)
        file = _in_container(session, file_info(entry), name)
        file.by_client = await self._put_by_client(file, caller)
        return file

    async def of(self, session: str, caller: Caller, *, prefix: str = CONTAINER_FILE) -> list[StoredFile]:
        """All of a container, sorted by path; whose they are is not looked up."""
        found = await self._engine.files.list(session, "", caller)
        return [_in_container(session, one, file_id(session, one.path, prefix)) for one in found.files]

    async def look_up(self, files: list[StoredFile], caller: Caller) -> None:
        """Fills in `by_client`."""
        for file in files:
            file.by_client = await self._put_by_client(file, caller)

    async def put(self, session: str, name: str, content: AsyncIterator[bytes], caller: Caller) -> StoredFile:
        """Puts a client's file into a container's folder; one of that name is replaced.

        Raises:
            InvalidRequestError: it has no usable name.
            SessionNotFoundError, SessionEndedError, QuotaExceededError, TooLargeError: it cannot be taken.
        """
        info = await self._engine.files.write(session, checked_name(name), content, caller)
        file = _in_container(session, info)
        ttl_s = self._engine.settings.max_age_s
        with contextlib.suppress(ProblemError):  # the file is there; who made it is a courtesy
            await self._memory.put(caller.owner, PUT, _key(file), _state(file), ttl_s)
        return file

    async def copy(self, name: str, session: str, caller: Caller) -> StoredFile:
        """Puts a file of that id into a container. Raises what `read` and `put` raise."""
        async with self.read(name, caller) as (file, chunks):
            return await self.put(session, file.name, chunks, caller)

    async def _put_by_client(self, file: StoredFile, caller: Caller) -> bool:
        return await self._memory.get(caller.owner, PUT, _key(file)) == _state(file)


def stored(row: UploadRow) -> StoredFile:
    """An upload."""
    return StoredFile(
        id=row.id,
        name=row.name,
        bytes=row.bytes,
        created_at=row.created_at,
        media_type=row.media_type or OCTETS,
        purpose=row.purpose,
        expires_at=row.expires_at,
    )


def _in_container(session: str, info: FileInfo, name: str = "") -> StoredFile:
    base = info.path.rpartition("/")[2]
    return StoredFile(
        id=name or file_id(session, info.path),
        name=base,
        bytes=info.bytes,
        created_at=datetime.fromisoformat(str(info.modified_at)).timestamp(),
        media_type=mimetypes.guess_type(base)[0] or OCTETS,
        session=session,
        path=info.path,
        by_client=False,
    )


@contextlib.contextmanager
def _one_answer(name: str) -> Iterator[None]:
    """What is not there and what is another tenant's look the same."""
    try:
        yield
    except (SessionNotFoundError, FileNotFoundInWorkspaceError, NotARegularFileError):
        raise UploadNotFoundError(f"there is no file {name[:80]!r}") from None


def _key(file: StoredFile) -> str:
    return hashlib.sha256(f"{file.session}/{file.path}".encode()).hexdigest()


def _state(file: StoredFile) -> bytes:
    return b"%d %.3f" % (file.bytes, file.created_at)
