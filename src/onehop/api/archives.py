"""Trees of a session's workspace as tar or zip, streamed; packed and unpacked inside the sandbox, never here."""

from __future__ import annotations

from urllib.parse import quote

from onehop import errors
from onehop.api import examples
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.files import FOLDER, GONE, NOT_THERE, PATH, attachment, parameter, send
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import FileList
from onehop.sessions.caller import EXECUTE, READ

TYPES = {"tar": "application/x-tar", "tar.gz": "application/gzip", "zip": "application/zip"}
"""Media type of each format of protocol.ARCHIVE_FORMATS."""
NAMES_BYTES = 2048


class Archives:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        path = "/api/sessions/{session_id}/archive"
        first, *others = TYPES.values()
        return [
            Operation(
                "GET",
                path,
                self.read,
                "readArchive",
                "Files",
                "Download a folder as an archive",
                "Regular files with one link and folders are packed, as they are when their turn comes. What is "
                "left out (symlinks, hard links, devices, what lies more than 32 folders deep) is counted in a "
                "header. If the archive cannot be made whole, the answer breaks off.",
                scope=READ,
                parameters=(
                    FOLDER,
                    parameter("format", "Of the archive.", enum=list(TYPES), default="tar"),
                ),
                answers={200: tuple(Body("", media_type=kind) for kind in TYPES.values())},
                problems=(*GONE, *PATH, NOT_THERE, errors.InvalidRequestError),
                headers={
                    "content-disposition": "always an attachment",
                    "onehop-left-out": "how many things are not in it",
                    "onehop-left-out-names": "some of them, percent-encoded, separated by commas",
                },
            ),
            Operation(
                "PUT",
                path,
                self.write,
                "writeArchive",
                "Files",
                "Unpack an archive into a folder",
                "All of it or nothing: on any error nothing has changed. The folder is made if need be; folders are "
                "merged, files of the same names replaced. An archive that holds anything but files and folders, or "
                "a path that is absolute or climbs out, is refused.",
                scope=EXECUTE,
                parameters=(FOLDER,),
                body=Body("The archive.", media_type=first, other_types=tuple(others)),
                answers={200: (Body("The files that were in it.", FileList, example=examples.FILE_LIST),)},
                problems=(
                    *GONE,
                    *PATH,
                    errors.InvalidArchiveError,
                    errors.TooLargeError,
                    errors.UnsupportedMediaTypeError,
                    errors.QuotaExceededError,
                ),
            ),
        ]

    async def read(self, call: Call) -> None:
        folder = call.query("path").removesuffix("/")
        form = call.query("format") or "tar"
        if form not in TYPES:
            raise errors.InvalidRequestError(
                f"format: expected one of {', '.join(TYPES)}, got {form[:40]!r}", field="format"
            )
        packing = self._engine.files.pack(call.path["session_id"], folder, form, call.caller)
        async with packing as (left_out, names, chunks):
            headers: list[Header] = [
                (b"content-type", TYPES[form].encode()),
                attachment(f"{folder.rpartition('/')[2] or 'workspace'}.{form}"),
                (b"onehop-left-out", b"%d" % left_out),
            ]
            if names:
                headers.append((b"onehop-left-out-names", _joined(names)))
            await send(call, 200, headers, chunks)

    async def write(self, call: Call) -> None:
        session_id = call.path["session_id"]
        kind = call.header(b"content-type").partition(b";")[0].strip().lower().decode("latin-1")
        form = next((name for name, wanted in TYPES.items() if wanted == kind), None)
        if form is None:
            raise errors.UnsupportedMediaTypeError(
                f"send the archive with one of these as its Content-Type: {', '.join(TYPES.values())}"
            )
        limit_bytes = await self._engine.files.archive_limit_bytes(session_id, call.caller)
        call.declared_length(limit_bytes)
        folder = call.query("path").removesuffix("/")
        found = await self._engine.files.unpack(
            session_id, folder, form, call.chunks(limit_bytes), call.caller
        )
        await call.answer(encode_json(found))


def _joined(names: list[str]) -> bytes:
    text = ""
    for name in names:
        more = ("," if text else "") + quote(name, safe="/")
        if len(text) + len(more) > NAMES_BYTES:
            break
        text += more
    return text.encode()
