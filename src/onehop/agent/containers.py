"""Containers, as vendors call them: ordinary sessions that the model loop's code runs in.

Which one a request gets is never a surprise: one that it names has to be there, and what has expired is told
or, where that was asked for, replaced with a note to the model.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

from onehop.agent.events import Container, ContainerChoice
from onehop.agent.files import Files
from onehop.agent.memory import Memory
from onehop.agent.uploads import Uploads
from onehop.errors import (
    InvalidRequestError,
    OnehopError,
    ProblemError,
    SessionEndedError,
    SessionNotFoundError,
)
from onehop.sessions import Engine
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import Caller
from onehop.sessions.requests import SessionChange, SessionRequest

LABEL = "onehop.container"
"""Of the session's metadata; its value says what the container is for."""
CONVERSATION = "conversation"
"""Kind of memory: id of a conversation's session."""
MAX_CONVERSATION_CHARACTERS = 200
RENEWED = (
    "The Python interpreter that this conversation used before has expired. This is a new one: variables, "
    "imports and files of earlier calls are gone and have to be made again."
)


def public(session: str, prefix: str) -> str:
    """A session's id as a vendor's clients know it, `cntr_…` or `container_…`."""
    return f"{prefix}_{session.removeprefix('ses_')}"


def private(name: str) -> str:
    """The session of such an id. What is none stays unknown: nobody has a session of that name."""
    return f"ses_{name.partition('_')[2]}"


class Containers:
    """Opens and makes them.

    Args:
        engine: whose sessions they are.
        memory: which conversation uses which.
        uploads: files that go into new ones.

    Attributes:
        files: by id.
    """

    def __init__(self, engine: Engine, memory: Memory, uploads: Uploads) -> None:
        self._engine = engine
        self._memory = memory
        self.files = Files(engine, memory, uploads)
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def open(self, choice: ContainerChoice, caller: Caller) -> tuple[Container, str]:
        """The container that a request wants, and a note for the model, mostly empty.

        Raises:
            SessionNotFoundError: there is none of that id, or it is not the caller's.
            SessionEndedError: it has expired (or was deleted), and no new one was asked for.
            TooManyError, InvalidRequestError, UploadNotFoundError, …: a new one cannot be made like that.
        """
        if choice.session:
            try:
                return _container(await self._use(choice.session, caller)), ""
            except SessionEndedError:
                if not choice.restart:
                    raise
            return _container(await self.create(choice, caller), made=True), RENEWED
        if choice.conversation:
            return await self._of_conversation(choice, caller)
        return _container(await self.create(choice, caller), made=True), ""

    async def create(self, choice: ContainerChoice, caller: Caller, *, label: str = "loop") -> SessionInfo:
        """A new one, with the files that were asked for; on any error there is none."""
        request = SessionRequest(
            memory_mb=choice.memory_mb, idle_timeout_s=choice.idle_timeout_s, metadata={LABEL: label}
        )
        session = await self._engine.sessions.create(request, caller)
        try:
            for upload in choice.files:
                await self.put(session.id, upload, caller)
        except BaseException:
            with contextlib.suppress(OnehopError):
                await asyncio.shield(self._engine.sessions.delete(session.id, caller))
            raise
        return session

    async def put(self, session: str, upload: str, caller: Caller) -> str:
        """Puts an uploaded file, or one of another container, into the workspace; its path there.

        Args:
            upload: the file's id.

        Raises:
            UploadNotFoundError: there is no such file.
            SessionNotFoundError, SessionEndedError, QuotaExceededError: it cannot be taken.
        """
        return (await self.files.copy(upload, session, caller)).path

    async def _use(self, session: str, caller: Caller) -> SessionInfo:
        """It, with its time running anew: who names it uses it."""
        if not session.startswith("ses_"):
            raise SessionNotFoundError("there is no such container")
        return await self._engine.sessions.change(session, SessionChange(), caller)

    async def _of_conversation(self, choice: ContainerChoice, caller: Caller) -> tuple[Container, str]:
        name = choice.conversation
        if len(name) > MAX_CONVERSATION_CHARACTERS:
            raise InvalidRequestError(
                f"conversation: at most {MAX_CONVERSATION_CHARACTERS} characters", field="conversation"
            )
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        async with self._locked(caller.owner, key):
            known = await self._memory.get(caller.owner, CONVERSATION, key)
            note = ""
            if known is not None:
                try:
                    return _container(await self._use(known.decode(), caller)), ""
                except (SessionEndedError, SessionNotFoundError) as error:  # the latter is long gone
                    if not choice.restart:
                        reason = error.extra.get("reason", "expired")
                        raise SessionEndedError(
                            f"the container of the conversation {name[:80]!r} has ended; ask for a new one",
                            reason=reason,
                        ) from None
                    note = RENEWED
            session = await self.create(choice, caller, label=name[:MAX_CONVERSATION_CHARACTERS])
            try:
                ttl_s = self._engine.settings.retention_days * 86400
                await self._memory.put(caller.owner, CONVERSATION, key, session.id.encode(), ttl_s)
            except ProblemError:
                with contextlib.suppress(OnehopError):
                    await self._engine.sessions.delete(session.id, caller)
                raise
            return _container(session, made=True), note

    @contextlib.asynccontextmanager
    async def _locked(self, owner: str, key: str) -> AsyncIterator[None]:
        """Two first requests of a conversation make one container."""
        lock, users = self._locks.get((owner, key), (asyncio.Lock(), 0))
        self._locks[owner, key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[owner, key]
            if users == 1:
                del self._locks[owner, key]
            else:
                self._locks[owner, key] = lock, users - 1


def _container(session: SessionInfo, *, made: bool = False) -> Container:
    return Container(session=session.id, expires_at=session.expires_at, made=made)
