"""A workspace backend of Pydantic AI: a session of onehop, made at the first use."""

from __future__ import annotations

import asyncio
import errno
import posixpath
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic_ai.workspaces import CommandResult, WorkspaceCommand, WorkspaceRef
from pydantic_ai.workspaces.protocol import (
    WorkspaceOutputLimitError,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
    validate_timeout,
)

from onehop import AsyncClient, AsyncSession, Result
from onehop.errors import SessionEndedError, SessionNotFoundError

__all__ = ["OnehopWorkspace"]

PROVIDER = "onehop"
WORKSPACE = "/workspace"
OUTPUT_BYTES = 16 * 1024 * 1024
SIGNALLED = 128
"""Shells add a signal's number to it; which one it was is not known here."""
SIGKILL = 9


class OnehopWorkspace:
    """Files and commands of one session; whoever has its `ref` goes on in it, and deletes it.

    Args:
        ref: an earlier workspace's; None for a new one.
        url, api_key: of the server, as for onehop.AsyncSession.
        options: of a new session; see onehop.SessionOptions.
    """

    def __init__(
        self,
        ref: WorkspaceRef | None = None,
        *,
        url: str | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> None:
        if ref is not None and ref.provider != PROVIDER:
            raise ValueError(f"the workspace is one of {ref.provider!r}, not of onehop")
        self._ref = ref
        self._where = (url, api_key)
        self._client: AsyncClient | None = None
        self._options = options
        self._session: AsyncSession | None = None
        self._making: asyncio.Task[AsyncSession] | None = None

    @property
    def ref(self) -> WorkspaceRef | None:
        """None until the session is made."""
        return self._ref

    async def aclose(self) -> None:
        """Closes the connections; the session lives on."""
        if self._client is not None:
            await self._client.close()
            self._client = self._session = None

    async def working_dir(self) -> str:
        await self._ready()
        return WORKSPACE

    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """See pydantic_ai.workspaces.SupportsCommands."""
        if isinstance(command, str) != shell:
            raise TypeError("a string wants shell=True, a sequence of words shell=False")
        validate_timeout(timeout)
        line = command if isinstance(command, str) else f"exec {shlex.join(command)}"
        session = await self._ready()
        try:
            # In the background: there is no limit of time but the one that is asked for.
            started = await session.commands.start(
                line, env=env, timeout_s=timeout, output_bytes=OUTPUT_BYTES
            )
            try:
                done = await started.wait()
            except asyncio.CancelledError:
                await asyncio.shield(started.kill())
                raise
        except (SessionEndedError, SessionNotFoundError) as error:
            raise WorkspaceUnavailableError(str(error)) from error
        return await self._result(session, done, timeout)

    async def realpath(self, path: str) -> str:
        """See pydantic_ai.workspaces.SupportsRealpath. Raises OSError for links that lead in circles."""
        # A missing end is kept as it is written, links on the way are followed (GNU coreutils, realpath -m).
        done = await self.run(["realpath", "-m", "-z", "--", posixpath.join(WORKSPACE, path)])
        if done.exit_code != 0:
            raise OSError(errno.ELOOP, done.stderr.strip(), path)
        return done.stdout.rstrip("\0")

    async def _result(self, session: AsyncSession, done: Result, timeout: float | None) -> CommandResult:
        if done.status == "timeout":
            raise WorkspaceTimeoutError(
                f"the command was stopped after {timeout} s", stdout=done.stdout, stderr=done.stderr
            )
        if done.truncated:
            raise WorkspaceOutputLimitError(
                f"the command wrote more than {OUTPUT_BYTES} bytes", limit=OUTPUT_BYTES, stdout=done.stdout,
                stderr=done.stderr,
            )  # fmt: skip
        if done.exit_code is None:
            await self._check(session)
        code = done.exit_code if done.exit_code is not None else SIGNALLED + SIGKILL
        return CommandResult(exit_code=code, stdout=done.stdout, stderr=done.stderr)

    async def _check(self, session: AsyncSession) -> None:
        """A command that a signal ended may have been ended with its session."""
        try:
            await session.info()
        except (SessionEndedError, SessionNotFoundError) as error:
            raise WorkspaceUnavailableError(str(error)) from error

    async def _ready(self) -> AsyncSession:
        if self._session is not None:
            return self._session
        if self._making is None:
            self._making = asyncio.ensure_future(self._make())
        making = self._making
        try:
            # Whoever is cancelled while it is made leaves it to the others.
            return await asyncio.shield(making)
        finally:
            if making.done() and self._making is making:
                self._making = None

    async def _make(self) -> AsyncSession:
        if self._client is None:
            self._client = AsyncClient(*self._where)
        if self._ref is None:
            session = self._client.session(**self._options)
            self._ref = WorkspaceRef(provider=PROVIDER, id=(await session.info()).id)
        else:
            session = self._client.attach(self._ref.id)
            await self._check(session)
        self._session = session
        return session
