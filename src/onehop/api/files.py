"""A session's workspace, as raw bytes. Files always leave as attachments: what is in them is not ours."""

from __future__ import annotations

from urllib.parse import quote

from starlette.convertors import PathConvertor, register_url_convertor

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import FileInfo, FileList
from onehop.sessions.caller import EXECUTE, READ

OCTETS = b"application/octet-stream"


class FileConvertor(PathConvertor):
    """The rest of a URL's path as it is: file names may hold line feeds, which `.` does not match."""

    regex = "(?s:.*)"


register_url_convertor("file", FileConvertor())

_GONE = (errors.SessionNotFoundError, errors.SessionEndedError, errors.TooManyError)
_PATH = (errors.InvalidPathError, errors.NotARegularFileError, errors.ConflictError)


class Files:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        path = "/api/sessions/{session_id}/files/{path:file}"
        return [
            Operation(
                "GET",
                "/api/sessions/{session_id}/files",
                self.list,
                "listFiles",
                "Files",
                "The workspace's files",
                scope=READ,
                answers={200: (Body("Sorted by path.", FileList, example=examples.FILE_LIST),)},
                problems=_GONE,
            ),
            Operation(
                "GET",
                path,
                self.read,
                "readFile",
                "Files",
                "Download a file",
                scope=READ,
                answers={200: (Body("The content.", media_type=OCTETS.decode()),)},
                problems=(*_GONE, *_PATH, errors.FileNotFoundInWorkspaceError),
                headers={"content-disposition": "always an attachment"},
            ),
            Operation(
                "PUT",
                path,
                self.write,
                "writeFile",
                "Files",
                "Create or replace a file",
                "Folders on the way are made. On any error nothing has changed.",
                scope=EXECUTE,
                body=Body("The content.", media_type=OCTETS.decode()),
                answers={200: (Body("The file.", FileInfo, example=examples.FILE),)},
                problems=(
                    *_GONE,
                    *_PATH,
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
                "Delete a file",
                scope=EXECUTE,
                answers={204: ()},
                problems=(*_GONE, *_PATH, errors.FileNotFoundInWorkspaceError),
            ),
        ]

    async def list(self, call: Call) -> None:
        await call.answer(encode_json(await self._engine.files.list(call.path["session_id"], call.caller)))

    async def read(self, call: Call) -> None:
        path = call.path["path"]
        async with self._engine.files.read(call.path["session_id"], path, call.caller) as (file, chunks):
            name = quote(path.rpartition("/")[2], safe="")
            headers = [
                (b"content-type", OCTETS),
                (b"content-length", str(file.bytes).encode()),
                (b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()),
            ]
            await call.send({"type": "http.response.start", "status": 200, "headers": headers})
            # A file that shrinks while it is read ends short of its length, which every client notices.
            async for chunk in chunks:
                await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
            await call.send({"type": "http.response.body", "body": b""})

    async def write(self, call: Call) -> None:
        call.require_type(OCTETS)
        session_id = call.path["session_id"]
        limit_bytes = await self._engine.files.limit_bytes(session_id, call.caller)
        call.declared_length(limit_bytes)
        file = await self._engine.files.write(
            session_id, call.path["path"], call.chunks(limit_bytes), call.caller
        )
        await call.answer(encode_json(file))

    async def delete(self, call: Call) -> None:
        await self._engine.files.delete(call.path["session_id"], call.path["path"], call.caller)
        await call.empty()
