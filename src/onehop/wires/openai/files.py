"""OpenAI's Files API: uploads by id, for containers and for input. Content leaves as an attachment only."""

from __future__ import annotations

from typing import Any

from onehop.agent.files import OCTETS, Files, StoredFile, stored
from onehop.agent.service import Agent
from onehop.agent.uploads import Late
from onehop.api.asgi import Call, encode_json, whole_number
from onehop.api.files import attachment, send
from onehop.api.resources import Operation
from onehop.config import MIB
from onehop.errors import InvalidRequestError, UploadNotFoundError
from onehop.sessions.caller import EXECUTE, READ
from onehop.wires.multipart import Form
from onehop.wires.openai import pages

TAG = "OpenAI: files"
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""openai.types.FilePurpose"""
DEFAULT_PURPOSE = "user_data"
"""Of files that came in by a protocol that knows no purposes."""
LEAST_S, MOST_S = 3600, 2_592_000
"""openai.types.file_create_params.ExpiresAfter"""
BATCH_S = 2_592_000.0
MOST_LISTED = 10_000


class FilesApi:
    def __init__(self, agent: Agent) -> None:
        self._uploads = agent.uploads
        self._files = agent.files
        self._file_bytes = agent.engine.settings.upload_mb * MIB

    def operations(self) -> list[Operation]:
        one = "/v1/files/{file_id}"
        return [
            Operation("POST", "/v1/files", self.create, "openaiCreateFile", TAG, "Upload", scope=EXECUTE),
            Operation("GET", "/v1/files", self.list, "openaiListFiles", TAG, "The uploads", scope=READ),
            Operation("GET", one, self.get, "openaiGetFile", TAG, "One upload", scope=READ),
            Operation("DELETE", one, self.delete, "openaiDeleteFile", TAG, "Delete it", scope=EXECUTE),
            Operation(
                "GET", one + "/content", self.content, "openaiGetFileContent", TAG, "Its content", scope=READ
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
            media_type=file.media_type or OCTETS,
            late=lambda: _wishes(form.fields),
        )
        await call.answer(encode_json(_document(stored(row))))

    async def list(self, call: Call) -> None:
        purpose = call.query("purpose")
        rows = [stored(row) for row in await self._uploads.list(call.caller)]
        found = [one for one in rows if not purpose or _purpose(one) == purpose]
        some, more = pages.page(call, found, default=MOST_LISTED, most=MOST_LISTED)
        await call.answer(encode_json(pages.document([_document(one) for one in some], more)))

    async def get(self, call: Call) -> None:
        await call.answer(encode_json(_document(await self._files.get(_id(call), call.caller))))

    async def delete(self, call: Call) -> None:
        name = _id(call)
        await self._files.delete(name, call.caller)
        await call.answer(encode_json({"id": name, "object": "file", "deleted": True}))

    async def content(self, call: Call) -> None:
        await send_content(call, self._files, _id(call))


async def send_content(call: Call, files: Files, name: str) -> None:
    """The file of that id, as an attachment."""
    async with files.read(name, call.caller) as (file, chunks):
        headers = [
            (b"content-type", OCTETS.encode()),
            attachment(file.name),
            (b"content-length", b"%d" % file.bytes),
        ]
        await send(call, 200, headers, chunks)


def _id(call: Call) -> str:
    name = call.path["file_id"]
    if len(name) > 4096:
        raise UploadNotFoundError("there is no file of so long an id")
    return name


def _wishes(fields: dict[str, str]) -> Late:
    """Purpose and lifetime out of the form."""
    purpose = fields.get("purpose")
    if purpose is None:
        raise InvalidRequestError("purpose: the form has no such field", field="purpose")
    if purpose not in PURPOSES:
        raise InvalidRequestError(
            f"purpose: one of {', '.join(PURPOSES)}, got {purpose[:40]!r}", field="purpose"
        )
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return purpose, BATCH_S if purpose == "batch" else None
    if anchor != "created_at":
        raise InvalidRequestError(
            "expires_after.anchor: created_at is the only one", field="expires_after.anchor"
        )
    ttl_s = whole_number(seconds or "", "expires_after.seconds")
    if not LEAST_S <= ttl_s <= MOST_S:
        raise InvalidRequestError(
            f"expires_after.seconds: from {LEAST_S} to {MOST_S}, got {ttl_s}", field="expires_after.seconds"
        )
    return purpose, float(ttl_s)


def _purpose(file: StoredFile) -> str:
    if file.session and not file.by_client:
        return "assistants_output"
    return file.purpose or DEFAULT_PURPOSE


def _document(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.name,
        "purpose": _purpose(file),
        "status": "processed",
        "status_details": None,
    }
