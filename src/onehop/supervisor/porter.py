"""The gateway's side of a porter: the files of one workspace, on a connection of their own.

What a porter says comes out of a sandbox: frames have a bound, replies a schema, and a porter that does not
go on within STALL_S is given up, since hostile code may have stopped it. Content is never held as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

from onehop import errors, protocol
from onehop.crash import reached
from onehop.protocol import Entry, PorterReply, PorterRequest

Entries = list[Entry]
STALL_S = 30.0
"""So long may a porter take to accept the next piece of content."""


class Porter:
    """One operation at a time. An operation that fails on the way closes it.

    Every method raises what the reply's error means: FileNotFoundInWorkspaceError, NotARegularFileError,
    ConflictError, QuotaExceededError, InvalidPathError, InvalidArchiveError; and UnavailableError when the
    porter is gone or does not speak the protocol.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def __aenter__(self) -> Porter:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the porter process, too."""
        self._writer.close()

    async def list(self, folder: str = "", limit: int = 10_000) -> tuple[Entries, bool]:
        """Regular files below a folder, sorted by path; True when some were left out."""
        reply = await self._ask(PorterRequest("list", folder, limit=limit))
        return reply.entries, reply.truncated

    async def stat(self, path: str) -> Entry:
        return _one(await self._ask(PorterRequest("stat", path)))

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """A file, or with `recursive` a folder and all that is in it."""
        await self._ask(PorterRequest("delete", path, recursive=recursive))

    async def move(self, path: str, target: str, *, overwrite: bool = False) -> Entry:
        """A file or folder. Raises ConflictError when something is there, unless a file may be overwritten."""
        return _one(await self._ask(PorterRequest("move", path, target=target, overwrite=overwrite)))

    async def read(
        self, path: str, *, offset: int = 0, length: int = -1
    ) -> tuple[Entry, AsyncIterator[bytes]]:
        """The file's entry and its content in chunks; at most `entry.bytes` come, fewer if it shrank.

        Args:
            offset: first byte, counted from the end if negative.
            length: most bytes, all if negative.
        """
        reply = await self._ask(PorterRequest("read", path, offset=offset, length=length))
        return _one(reply), self._chunks()

    async def write(self, path: str, content: AsyncIterable[bytes]) -> Entry:
        """Replaces or creates a file whole; on any error nothing has changed."""
        await self._send_all(PorterRequest("write", path), content)
        return _one(await self._reply(path))

    async def pack(self, folder: str, form: str) -> tuple[PorterReply, AsyncIterator[bytes]]:
        """What is left out of the archive (`left_out`, `left_out_names`), and the archive in chunks.

        The chunks end with ConflictError when the archive could not be made whole.
        """
        reply = await self._ask(PorterRequest("pack", folder, format=form))
        return reply, self._archive(folder)

    async def unpack(
        self, folder: str, form: str, content: AsyncIterable[bytes], *, timeout_s: float
    ) -> tuple[Entries, bool]:
        """The files that were unpacked into a folder, True when some are not named; on any error nothing has changed.

        Args:
            timeout_s: how long it may go on after the last byte was sent.
        """
        await self._send_all(PorterRequest("unpack", folder, format=form), content)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._reply(folder)
        except TimeoutError:
            self.close()
            raise errors.UnavailableError(f"the archive was not unpacked within {timeout_s:g} s") from None
        return reply.entries, reply.truncated

    async def _send_all(self, request: PorterRequest, content: AsyncIterable[bytes]) -> None:
        self._send(_encode(request))
        try:
            async for chunk in content:
                for start in range(0, len(chunk), protocol.PORTER_CHUNK_BYTES):
                    self._send(chunk[start : start + protocol.PORTER_CHUNK_BYTES])
                    await self._drain()
                    reached("file-half-written")
        except BaseException:
            self.close()  # the porter sees a cut-off body and takes away what it has written
            raise
        self._send(b"")

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(STALL_S):
                await self._writer.drain()
        except TimeoutError:
            raise errors.UnavailableError("the sandbox does not take the content") from None
        except ConnectionError as error:
            raise errors.UnavailableError("the sandbox ended while files were carried") from error

    async def _chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self._receive():
            yield chunk

    async def _archive(self, folder: str) -> AsyncIterator[bytes]:
        while chunk := await self._receive():
            yield chunk
        await self._reply(folder)

    async def _ask(self, request: PorterRequest) -> PorterReply:
        self._send(_encode(request))
        return await self._reply(request.path)

    def _send(self, payload: bytes) -> None:
        self._writer.write(protocol.PORTER_HEADER.pack(len(payload)) + payload)

    async def _receive(self) -> bytes:
        try:
            (length,) = protocol.PORTER_HEADER.unpack(
                await self._reader.readexactly(protocol.PORTER_HEADER.size)
            )
            if length > protocol.MAX_PORTER_FRAME_BYTES:
                raise errors.UnavailableError("the porter sent a frame that is too long")
            return await self._reader.readexactly(length)
        except (OSError, EOFError) as error:
            raise errors.UnavailableError("the sandbox ended while files were carried") from error

    async def _reply(self, path: str) -> PorterReply:
        try:
            reply = protocol.decode_porter_reply(await self._receive())
        except ValueError as error:
            raise errors.UnavailableError("the porter sent something else than a reply") from error
        if reply.error:
            raise _meaning(reply, path)
        return reply


def _encode(request: PorterRequest) -> bytes:
    try:
        return protocol.encode(request)
    except UnicodeEncodeError:  # a lone surrogate
        raise errors.InvalidPathError(f"{request.path!r}: the path is not valid Unicode") from None


def _one(reply: PorterReply) -> Entry:
    if not reply.entries:
        raise errors.UnavailableError("the porter sent a reply without the file that was asked for")
    return reply.entries[0]


def _meaning(reply: PorterReply, path: str) -> errors.ProblemError:
    match reply.error:
        case "not_found":
            return errors.FileNotFoundInWorkspaceError(f"there is no file {path!r} in the workspace")
        case "not_regular":
            return errors.NotARegularFileError(f"{path!r} cannot be transferred: {reply.detail}")
        case "no_space":
            return errors.QuotaExceededError(f"the workspace has no room for {path!r}: {reply.detail}")
        case "bad_path":
            return errors.InvalidPathError(f"{path!r}: {reply.detail}")
        case "bad_archive":
            return errors.InvalidArchiveError(f"the archive cannot be unpacked: {reply.detail}")
        case _:
            return errors.ConflictError(f"{path!r}: {reply.detail}")
