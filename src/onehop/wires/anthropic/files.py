"""Anthropic's Files API: uploads, and what code has made, by id. Source: `anthropic.types.beta.FileMetadata`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from onehop.agent.files import OCTETS, StoredFile, stored
from onehop.agent.service import Agent
from onehop.api.asgi import Call, encode_json
from onehop.api.files import attachment, send
from onehop.api.resources import Operation
from onehop.config import MIB
from onehop.errors import InvalidRequestError, UploadNotFoundError
from onehop.sessions.caller import EXECUTE, READ
from onehop.wires.multipart import Form

TAG = "Anthropic: files"
PURPOSE = "user_data"
MOST_LISTED = 1000
PAGE = "page_"
MAX_ID = 4096


class FilesApi:
    def __init__(self, agent: Agent) -> None:
        self._uploads = agent.uploads
        self._files = agent.files
        self._file_bytes = agent.engine.settings.upload_mb * MIB

    def operations(self) -> list[Operation]:
        many, one = "/anthropic/v1/files", "/anthropic/v1/files/{file_id}"
        return [
            Operation("POST", many, self.create, "anthropicCreateFile", TAG, "Upload", scope=EXECUTE),
            Operation("GET", many, self.list, "anthropicListFiles", TAG, "The uploads", scope=READ),
            Operation("GET", one, self.get, "anthropicGetFile", TAG, "One file", scope=READ),
            Operation("DELETE", one, self.delete, "anthropicDeleteFile", TAG, "Delete it", scope=EXECUTE),
            Operation(
                "GET",
                one + "/content",
                self.content,
                "anthropicGetFileContent",
                TAG,
                "Its content",
                scope=READ,
            ),
        ]

    async def create(self, call: Call) -> None:
        form = await Form.read(call, self._file_bytes)
        file = form.file
        if file is None or file.field != "file":
            raise InvalidRequestError("file: the form has no file in that field", field="file")
        row = await self._uploads.create(
            call.caller,
            file.name,
            form.content(),
            purpose=PURPOSE,
            media_type=file.media_type or OCTETS,
        )
        await call.answer(encode_json(_document(stored(row))))

    async def list(self, call: Call) -> None:
        """Newest first; ids begin with the time of their making."""
        rows = [stored(row) for row in await self._uploads.list(call.caller)]
        found = sorted(rows, key=lambda one: one.id, reverse=True)
        limit = call.query_int("limit")
        if limit is None:
            limit = 20
        if not 1 <= limit <= MOST_LISTED:
            raise InvalidRequestError(f"limit: from 1 to {MOST_LISTED}, got {limit}", field="limit")
        if before := call.query("before_id"):
            newer = [one for one in found if one.id > before]
            page, more = newer[-limit:], len(newer) > limit
        else:
            # SDKs from 2.x on turn pages by `page`, older ones by ids.
            if after := call.query("page").removeprefix(PAGE) or call.query("after_id"):
                found = [one for one in found if one.id < after]
            page, more = found[:limit], len(found) > limit
        document = {
            "data": [_document(one) for one in page],
            "has_more": more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "next_page": PAGE + page[-1].id if more and page else None,
        }
        await call.answer(encode_json(document))

    async def get(self, call: Call) -> None:
        await call.answer(encode_json(_document(await self._files.get(_id(call), call.caller))))

    async def delete(self, call: Call) -> None:
        name = _id(call)
        await self._files.delete(name, call.caller)
        await call.answer(encode_json({"id": name, "type": "file_deleted"}))

    async def content(self, call: Call) -> None:
        async with self._files.read(_id(call), call.caller) as (file, chunks):
            headers = [
                (b"content-type", OCTETS.encode()),
                attachment(file.name),
                (b"content-length", b"%d" % file.bytes),
            ]
            await send(call, 200, headers, chunks)


def _id(call: Call) -> str:
    name = call.path["file_id"]
    if len(name) > MAX_ID:
        raise UploadNotFoundError("there is no file of so long an id")
    return name


def _document(file: StoredFile) -> dict[str, Any]:
    created = datetime.fromtimestamp(file.created_at, UTC).isoformat(timespec="milliseconds")
    return {
        "id": file.id,
        "type": "file",
        "filename": file.name,
        "mime_type": file.media_type,
        "size_bytes": file.bytes,
        "created_at": created.replace("+00:00", "Z"),
        "downloadable": True,
    }
