"""The routes of LibreChat's code API."""

from __future__ import annotations

from typing import Any

import msgspec

from onehop import errors
from onehop.agent.service import Agent
from onehop.api.asgi import Call, encode_json
from onehop.api.files import attachment, send
from onehop.api.resources import Body, Operation
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import decode
from onehop.wires.librechat.files import Shelf, Shelved
from onehop.wires.librechat.programs import Exec, Program, Programmatic, Programs
from onehop.wires.multipart import Form

PREFIX = "/librechat"
TAG = "LibreChat"
OCTETS = (b"content-type", b"application/octet-stream")

_decode_exec = msgspec.json.Decoder(Exec)
_decode_programmatic = msgspec.json.Decoder(Programmatic)


def operations(agent: Agent, shelf: Shelf, programs: Programs) -> list[Operation]:
    """All of them."""
    routes = Routes(agent, shelf, programs)
    one = "/{session}/{file}"
    kept = PREFIX + "/files"
    return [
        Operation("GET", PREFIX + "/health", routes.health, "librechatHealth", TAG, "Whether it serves", scope=READ),
        Operation(
            "POST", PREFIX + "/exec", routes.run, "librechatExec", TAG, "Run a program", scope=EXECUTE,
            body=Body("The program.", Exec),
        ),
        Operation(
            "POST", PREFIX + "/exec/programmatic", routes.run_with_tools, "librechatProgrammatic", TAG,
            "Run a program that calls tools, or go on with one", scope=EXECUTE,
            body=Body("The program, or results.", Programmatic),
        ),
        Operation("POST", PREFIX + "/upload", routes.upload, "librechatUpload", TAG, "Put a file", scope=EXECUTE),
        Operation("GET", kept + "/{session}", routes.list, "librechatFiles", TAG, "The files", scope=READ),
        Operation("DELETE", kept + one, routes.delete, "librechatRemove", TAG, "Delete it", scope=EXECUTE),
        Operation("GET", PREFIX + "/download" + one, routes.download, "librechatDownload", TAG, "A file", scope=READ),
    ]  # fmt: skip


class Routes:
    def __init__(self, agent: Agent, shelf: Shelf, programs: Programs) -> None:
        self._settings = agent.engine.settings
        self._shelf = shelf
        self._programs = programs

    async def health(self, call: Call) -> None:
        await call.answer(encode_json({"status": "ok"}))

    async def run(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_exec, await call.body(self._settings.body_bytes))
        await self._answer(call, await self._programs.start(request, call.caller))

    async def run_with_tools(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_programmatic, await call.body(self._settings.body_bytes))
        if request.continuation_token is not None:
            program = await self._programs.go_on(request, call.caller)
        else:
            program = await self._programs.start_with_tools(request, call.caller)
        await self._answer(call, program)

    async def _answer(self, call: Call, program: Program) -> None:
        if await call.gone_before(program.run.turn()):
            await self._programs.stop(program, call.caller)
            return
        await call.answer(encode_json(await self._programs.told(program, call.caller)))

    async def upload(self, call: Call) -> None:
        form = await Form.read(call, self._settings.upload_mb * 1024 * 1024)
        if form.file is None:
            raise errors.InvalidRequestError("file: the form has no file", field="file")
        file = await self._shelf.put(form.file.name or "file", form.content(), call.caller)
        answer = {
            "message": "success",
            "session_id": file.session,
            "storage_session_id": file.session,
            "files": [{"fileId": file.id, "filename": file.name, "size": file.bytes}],
        }
        await call.answer(encode_json(answer))

    async def list(self, call: Call) -> None:
        """`detail=summary`: names and times; anything else: all."""
        files = await self._shelf.all(call.path["session"], call.caller)
        if call.query("detail") == "summary":
            found = [{"name": _name(one), "lastModified": one.modified_at} for one in files]
        else:
            found = [_document(one) for one in files]
        await call.answer(encode_json(found))

    async def delete(self, call: Call) -> None:
        file = await self._shelf.get(call.path["session"], call.path["file"], call.caller)
        await self._shelf.delete(file, call.caller)
        await call.answer(encode_json({"message": "success"}))

    async def download(self, call: Call) -> None:
        file = await self._shelf.get(call.path["session"], call.path["file"], call.caller)
        async with self._shelf.content(file, call.caller) as chunks:
            headers = [OCTETS, attachment(file.name), (b"content-length", b"%d" % file.bytes)]
            await send(call, 200, headers, chunks)


def _name(file: Shelved) -> str:
    """LibreChat looks for what begins with the two ids."""
    base, dot, ending = file.name.rpartition("/")[2].rpartition(".")
    return f"{file.session}/{file.id}{dot + ending if base else ''}"


def _document(file: Shelved) -> dict[str, Any]:
    return {
        "id": file.id,
        "name": _name(file),
        "session_id": file.session,
        "storage_session_id": file.session,
        "size": file.bytes,
        "lastModified": file.modified_at,
        "contentType": "application/octet-stream",
        "metadata": {"original-filename": file.name},
    }
