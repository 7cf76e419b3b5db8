"""Contents of files, in and out, and whether the sandbox lives: the part of E2B's daemon that speaks plain HTTP."""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import AsyncIterator

from onehop import errors
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.files import OCTETS, attachment, send
from onehop.api.resources import Operation
from onehop.sessions import Engine
from onehop.sessions.caller import EXECUTE, READ, Caller
from onehop.wires.e2b.access import Access
from onehop.wires.e2b.errors import UnsupportedError
from onehop.wires.e2b.paths import HOME, in_workspace
from onehop.wires.multipart import Form, is_form

TAG = "E2B"
METADATA = b"x-metadata-"
PIECE_BYTES = 256 * 1024
GZIP = 16 + zlib.MAX_WBITS
"""zlib's way to say that the data has gzip's header (https://zlib.net/manual.html, inflateInit2)."""


class Files:
    def __init__(self, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    def operations(self, prefix: str) -> list[Operation]:
        """Those for `prefix`; with an empty one the addresses that are signed."""
        of = "" if prefix else "Signed"
        path = prefix + "/files"
        found = [
            Operation("GET", path, self.read, f"e2bRead{of}", TAG, "A file's content", scope=READ),
            Operation("POST", path, self.write, f"e2bWrite{of}", TAG, "Write files", scope=EXECUTE),
        ]
        if prefix:
            found.append(
                Operation(
                    "GET", prefix + "/health", self.health, "e2bHealth", TAG, "Whether it lives", scope=READ
                )
            )
        return found

    async def health(self, call: Call) -> None:
        await self._engine.sessions.get(*self._access.sandbox(call))
        await call.empty()

    async def read(self, call: Call) -> None:
        sandbox, caller = self._access.sandbox(call)
        path = in_workspace(call.query("path"))
        async with self._engine.files.read(sandbox, path, caller) as (entry, chunks):
            name = attachment(posixpath.basename(path))
            headers: list[Header] = [
                (b"content-type", OCTETS),
                name,
                (b"content-length", b"%d" % entry.bytes),
            ]
            await send(call, 200, headers, chunks)

    async def write(self, call: Call) -> None:
        if any(name.startswith(METADATA) for name, _ in call.scope["headers"]):
            raise UnsupportedError("metadata: files have no metadata of their own here")
        sandbox, caller = self._access.sandbox(call)
        limit_bytes = await self._engine.files.limit_bytes(sandbox, caller)
        path = call.query("path")
        if is_form(call):
            form = await Form.read(call, limit_bytes)
            written = [
                await self._write(sandbox, path or part.name, content, caller)
                async for part, content in form.files()
            ]
            if not written:
                raise errors.InvalidRequestError("file: the form has no file", field="file")
        else:
            call.require_type(OCTETS)
            content = call.chunks(limit_bytes)
            encoding = call.header(b"content-encoding").strip().lower()
            if encoding == b"gzip":
                content = _gunzip(content)
            elif encoding not in (b"", b"identity"):
                raise errors.UnsupportedMediaTypeError("send the content as it is, or with gzip")
            written = [await self._write(sandbox, path, content, caller)]
        await call.answer(encode_json(written))

    async def _write(
        self, sandbox: str, path: str, content: AsyncIterator[bytes], caller: Caller
    ) -> dict[str, str]:
        place = in_workspace(path)
        await self._engine.files.write(sandbox, place, content, caller)
        return {"name": posixpath.basename(place), "path": f"{HOME}/{place}", "type": "file"}


async def _gunzip(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """In pieces, so that a small body cannot become a large one in memory. Raises InvalidRequestError."""
    inflate = zlib.decompressobj(GZIP)
    try:
        async for chunk in chunks:
            while chunk:
                piece = inflate.decompress(chunk, PIECE_BYTES)
                if piece:
                    yield piece
                chunk = inflate.unconsumed_tail
                if not chunk and len(piece) == PIECE_BYTES:
                    continue
                if inflate.eof:
                    break
        rest = inflate.flush()
    except zlib.error as error:
        raise errors.InvalidRequestError(f"the body is not gzip: {error}") from None
    if rest:
        yield rest
    if not inflate.eof:
        raise errors.InvalidRequestError("the body ends in the middle of its gzip stream")
