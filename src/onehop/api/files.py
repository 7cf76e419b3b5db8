"""A session's workspace, file by file, as raw bytes. Files always leave as attachments: what is in them is not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import quote

import msgspec
from starlette.convertors import PathConvertor, register_url_convertor

from onehop import errors
from onehop.api import examples, ranges
from onehop.api.asgi import JSON, Call, Header, encode_json
from onehop.api.resources import Body, Operation
from onehop.protocol import Entry
from onehop.sessions import Engine
from onehop.sessions.answers import FileInfo, FileList
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import MoveRequest, decode

OCTETS = b"application/octet-stream"
BODY_BYTES = 65_536


class FileConvertor(PathConvertor):
    """The rest of a URL's path as it is: file names may hold line feeds, which `.` does not match."""

    regex = "(?s:.*)"


register_url_convertor("file", FileConvertor())

GONE = (errors.SessionNotFoundError, errors.SessionEndedError, errors.TooManyError)
PATH = (errors.InvalidPathError, errors.NotARegularFileError, errors.ConflictError)
NOT_THERE = errors.FileNotFoundInWorkspaceError

_decode_move = msgspec.json.Decoder(MoveRequest)


def parameter(name: str, description: str, *, place: str = "query", **schema: object) -> dict[str, object]:
    """As OpenAPI writes it; a string unless `schema` says otherwise."""
    return {"name": name, "in": place, "description": description, "schema": {"type": "string", **schema}}


FOLDER = parameter("path", "A folder of the workspace; the whole workspace when left out.")


class Files:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        path = "/api/sessions/{session_id}/files/{path:file}"
        reading = {
            "content-disposition": "always an attachment",
            "etag": "names this state of the file",
            "accept-ranges": "`bytes`",
            "content-range": "which bytes these are, with status 206",
        }
        conditions = (
            parameter("Range", "One range of bytes, for a part of the file.", place="header"),
            parameter("If-Range", "The ETag that the range is meant for.", place="header"),
            parameter("If-None-Match", "ETags of what the client has already.", place="header"),
        )
        content = Body("The content.", media_type=OCTETS.decode())
        return [
            Operation(
                "GET",
                "/api/sessions/{session_id}/files",
                self.list,
                "listFiles",
                "Files",
                "The workspace's files",
                "Regular files of a folder and of the folders in it, with size and time of modification. What "
                "has no name in UTF-8 or lies more than 32 folders deep is left out; `truncated` says so.",
                scope=READ,
                parameters=(FOLDER,),
                answers={200: (Body("Sorted by path.", FileList, example=examples.FILE_LIST),)},
                problems=(*GONE, *PATH, NOT_THERE),
            ),
            Operation(
                "GET",
                path,
                self.read,
                "readFile",
                "Files",
                "Download a file",
                "Streamed. A file that shrinks meanwhile ends short of its length.",
                scope=READ,
                parameters=conditions,
                answers={200: (content,), 206: (content,), 304: ()},
                problems=(*GONE, *PATH, NOT_THERE, errors.RangeNotSatisfiableError),
                headers=reading,
            ),
            Operation(
                "HEAD",
                path,
                self.head,
                "statFile",
                "Files",
                "Size and ETag of a file",
                scope=READ,
                answers={200: ()},
                problems=(*GONE, *PATH, NOT_THERE),
                headers={name: meaning for name, meaning in reading.items() if name != "content-range"},
            ),
            Operation(
                "PUT",
                path,
                self.write,
                "writeFile",
                "Files",
                "Create or replace a file",
                "Streamed. Folders on the way are made. On any error nothing has changed.",
                scope=EXECUTE,
                body=content,
                answers={200: (Body("The file.", FileInfo, example=examples.FILE),)},
                problems=(
                    *GONE,
                    *PATH,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.QuotaExceededError,
                ),
            ),
            Operation(
                "POST",
                path,
                self.move,
                "moveFile",
                "Files",
                "Move a file or a folder",
                "At once: nobody sees it half-done, and on any error nothing has changed.",
                scope=EXECUTE,
                body=Body("Where to.", MoveRequest, example=examples.MOVE),
                answers={200: (Body("The file at its new path.", FileInfo, example=examples.FILE),)},
                problems=(
                    *GONE,
                    *PATH,
                    NOT_THERE,
                    errors.InvalidRequestError,
                    errors.InvalidJsonError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.QuotaExceededError,
                ),
            ),
            Operation(
                "DELETE",
                path,
                self.delete,
                "deleteFile",
                "Files",
                "Delete a file, or a folder with all that is in it",
                "A symlink is deleted itself, never what it leads to.",
                scope=EXECUTE,
                parameters=(
                    parameter("recursive", "A folder may be deleted, too.", type="boolean", default=False),
                ),
                answers={204: ()},
                problems=(*GONE, *PATH, NOT_THERE, errors.InvalidRequestError),
            ),
        ]

    async def list(self, call: Call) -> None:
        folder = call.query("path").removesuffix("/")
        found = await self._engine.files.list(call.path["session_id"], folder, call.caller)
        await call.answer(encode_json(found))

    async def read(self, call: Call) -> None:
        files, session_id, path = self._engine.files, call.path["session_id"], call.path["path"]
        part = ranges.parse(call.header(b"range"))
        has, meant = call.header(b"if-none-match"), call.header(b"if-range")
        if has or (part and meant):
            tag = ranges.etag(await files.stat(session_id, path, call.caller))
            if has and ranges.matches(has, tag):
                await call.empty(304, headers=[(b"etag", tag)])
                return
            if meant and meant.strip() != tag:
                part = None
        reading = files.read(
            session_id,
            path,
            call.caller,
            offset=part.first if part else 0,
            length=part.length if part else -1,
        )
        async with reading as (entry, chunks):
            headers = _headers(entry)
            status, count = 200, entry.bytes
            if part is not None:
                start, count = part.within(entry.bytes)
                status = 206
                headers.append(
                    (b"content-range", b"bytes %d-%d/%d" % (start, start + count - 1, entry.bytes))
                )
                if meant and meant.strip() != ranges.etag(entry):
                    raise errors.ConflictError(f"{path!r} was changed while it was looked at; ask again")
            await send(call, status, [*headers, (b"content-length", b"%d" % count)], chunks)

    async def head(self, call: Call) -> None:
        entry = await self._engine.files.stat(call.path["session_id"], call.path["path"], call.caller)
        await call.empty(200, headers=[*_headers(entry), (b"content-length", b"%d" % entry.bytes)])

    async def write(self, call: Call) -> None:
        call.require_type(OCTETS)
        session_id = call.path["session_id"]
        limit_bytes = await self._engine.files.limit_bytes(session_id, call.caller)
        call.declared_length(limit_bytes)
        file = await self._engine.files.write(
            session_id, call.path["path"], call.chunks(limit_bytes), call.caller
        )
        await call.answer(encode_json(file))

    async def move(self, call: Call) -> None:
        call.require_type(JSON[1])
        request = decode(_decode_move, await call.body(BODY_BYTES))
        file = await self._engine.files.move(call.path["session_id"], call.path["path"], request, call.caller)
        await call.answer(encode_json(file))

    async def delete(self, call: Call) -> None:
        await self._engine.files.delete(
            call.path["session_id"], call.path["path"], call.caller, recursive=call.query_flag("recursive")
        )
        await call.empty()


def _headers(entry: Entry) -> list[Header]:
    return [
        (b"content-type", OCTETS),
        attachment(entry.path.rpartition("/")[2]),
        (b"etag", ranges.etag(entry)),
        (b"accept-ranges", b"bytes"),
    ]


def attachment(name: str) -> Header:
    return b"content-disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}".encode()


async def send(call: Call, status: int, headers: list[Header], chunks: AsyncIterator[bytes]) -> None:
    """Streams; with a length, what ends short of it is noticed by every client."""
    await call.send({"type": "http.response.start", "status": status, "headers": headers})
    async for chunk in chunks:
        await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
    await call.send({"type": "http.response.body", "body": b""})
