"""Otari's code-execution protocol, contract version 1: sessions, one call of a tool, files.

Source: https://github.com/mozilla-ai/otari, docs/code-execution-protocol.md. Code that fails is a successful
request here: `return_code` and `stderr` tell. It must never answer 2xx for what did not run.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from onehop import errors
from onehop.agent.editor import Editor, EditorError, described
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.mounts import Mount, Refusal
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import Answer
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import CommandRequest, ExecuteRequest, MoveRequest, SessionRequest, decode
from onehop.sessions.run import new_id
from onehop.wires.multipart import Form
from onehop.wires.process import outcome

PREFIX = "/otari"
TAG = "Otari"
BODY_BYTES = 4 * 1024 * 1024
OUTPUT_TYPE: tuple[Header, ...] = (
    (b"content-type", b"application/octet-stream"),
    (b"content-disposition", b"attachment"),
)

Seconds = Annotated[int, Meta(ge=1)]


class SessionHints(msgspec.Struct):
    """Wishes on how long a session lives."""

    idle_timeout_seconds: Seconds | None = None
    max_lifetime_seconds: Seconds | None = None


class CodeInput(msgspec.Struct):
    code: Annotated[str, Meta(min_length=1)]


class CommandInput(msgspec.Struct):
    command: Annotated[str, Meta(min_length=1)]


class ExecBase(msgspec.Struct, tag_field="tool", kw_only=True):
    """A call of a tool.

    Args:
        timeout_seconds: more than the server allows is lowered to that.
        tool_use_id: comes back in the answer.
    """

    timeout_seconds: Seconds | None = None
    tool_use_id: str | None = None


class CodeExec(ExecBase, tag="code_execution", kw_only=True):
    input: CodeInput


class BashExec(ExecBase, tag="bash_code_execution", kw_only=True):
    input: CommandInput


class EditorExec(ExecBase, tag="text_editor_code_execution", kw_only=True):
    input: dict[str, Any]


Exec = CodeExec | BashExec | EditorExec
_decode_hints = msgspec.json.Decoder(SessionHints)
_decode_exec = msgspec.json.Decoder(Exec)


class OutputFile(msgspec.Struct, kw_only=True):
    file_id: str
    filename: str
    type: Literal["code_execution_output"] = "code_execution_output"


class Result(msgspec.Struct, kw_only=True):
    """What a call gave. `file_id` of a file is its path."""

    stdout: str = ""
    stderr: str = ""
    return_code: int = 0
    content: list[OutputFile] = []
    type: Literal["code_execution_result"] = "code_execution_result"


def mount(engine: Engine) -> Mount:
    """The protocol's routes."""
    return Mount(PREFIX, Otari(engine).operations(), _refuse)


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    status = error.status
    if isinstance(error, errors.InvalidPathError):
        status = 403  # what climbs out of the workspace
    elif isinstance(error, errors.SessionEndedError):
        status = 404
    elif isinstance(error, errors.TooManyError):
        status = 503
    headers: list[Header] = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    body = encode_json({"detail": error.detail, "type": error.type, "request_id": request_id})
    return Refusal(status, body, tuple(headers))


class Otari:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._editor = Editor(engine.files)

    def operations(self) -> list[Operation]:
        one = PREFIX + "/sessions/{session_id}"
        return [
            Operation(
                "POST",
                PREFIX + "/sessions",
                self.create,
                "otariCreateSession",
                TAG,
                "Lease a session",
                scope=EXECUTE,
                body=Body("How long it lives.", SessionHints, required=False),
            ),
            Operation(
                "DELETE", one, self.destroy, "otariDestroySession", TAG, "Release a session", scope=EXECUTE
            ),
            Operation(
                "POST",
                one + "/exec",
                self.execute,
                "otariExecute",
                TAG,
                "Run one call of a tool",
                scope=EXECUTE,
                body=Body("The call.", CodeExec),
            ),
            Operation("GET", one + "/files/list", self.list, "otariListFiles", TAG, "The files", scope=READ),
            Operation("GET", one + "/files", self.read, "otariGetFile", TAG, "One file", scope=READ),
            Operation("POST", one + "/files", self.write, "otariPutFile", TAG, "Write one", scope=EXECUTE),
        ]

    async def create(self, call: Call) -> None:
        hints = decode(_decode_hints, await call.body(BODY_BYTES) or b"{}")
        settings = self._engine.settings
        request = SessionRequest()
        if hints.max_lifetime_seconds is not None:
            request.max_age_s = min(float(hints.max_lifetime_seconds), settings.max_age_s)
        if hints.idle_timeout_seconds is not None:
            request.idle_timeout_s = min(
                float(hints.idle_timeout_seconds), request.max_age_s or settings.max_age_s
            )
        session = await self._engine.sessions.create(request, call.caller)
        created_at = datetime.fromisoformat(session.created_at).timestamp()
        handle = {
            "session_id": session.id,
            "idle_timeout_seconds": int(session.idle_timeout_s),
            "max_lifetime_seconds": int(session.max_age_s),
            "created_at": created_at,
            "last_activity_at": created_at,
        }
        await call.answer(encode_json(handle), status=201)

    async def destroy(self, call: Call) -> None:
        await self._engine.sessions.delete(call.path["session_id"], call.caller)
        await call.empty()

    async def execute(self, call: Call) -> None:
        request = decode(_decode_exec, await call.body(BODY_BYTES))
        session = call.path["session_id"]
        began_s = time.perf_counter()
        if isinstance(request, EditorExec):
            kind, result = "text_editor_code_execution_tool_result", await self._edit(call, session, request)
        elif isinstance(request, BashExec):
            command = CommandRequest(command=request.input.command, timeout_s=self._timeout_s(request))
            run = await self._engine.executions.start_command(session, command, call.caller)
            kind, result = "bash_code_execution_tool_result", _result(await run.wait())
        else:
            code = ExecuteRequest(code=request.input.code, timeout_s=self._timeout_s(request))
            started = await self._engine.executions.start(session, code, call.caller)
            kind, result = "code_execution_tool_result", _result(await started.wait())
        use = request.tool_use_id or new_id("srvtoolu")
        answer = {
            "tool_use_id": use,
            "result_block": {"type": kind, "tool_use_id": use, "content": result},
            "execution_time_ms": round((time.perf_counter() - began_s) * 1000),
        }
        await call.answer(encode_json(answer))

    async def _edit(self, call: Call, session: str, request: EditorExec) -> Result:
        try:
            edit = await self._editor.run(session, call.caller, request.input)
        except EditorError as error:
            return Result(stderr=error.message, return_code=1)
        return Result(stdout=described(edit))

    def _timeout_s(self, request: ExecBase) -> float | None:
        if request.timeout_seconds is None:
            return None
        return min(float(request.timeout_seconds), self._engine.settings.max_timeout_s)

    async def list(self, call: Call) -> None:
        folder = _path(call.query("path"))
        found = await self._engine.files.list(call.path["session_id"], folder, call.caller)
        files = [
            {
                "path": one.path,
                "size_bytes": one.bytes,
                "modified_at": datetime.fromisoformat(str(one.modified_at)).timestamp(),
            }
            for one in found.files
        ]
        await call.answer(encode_json({"files": files, "truncated": found.truncated}))

    async def read(self, call: Call) -> None:
        path = call.query("path")
        if not path:
            raise errors.InvalidRequestError("path: which file? give ?path=NAME", field="path")
        async with self._engine.files.read(call.path["session_id"], _path(path), call.caller) as (
            entry,
            chunks,
        ):
            length = (b"content-length", b"%d" % entry.bytes)
            head = {"type": "http.response.start", "status": 200, "headers": [*OUTPUT_TYPE, length]}
            await call.send(head)
            async for chunk in chunks:
                await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
            await call.send({"type": "http.response.body", "body": b""})

    async def write(self, call: Call) -> None:
        session = call.path["session_id"]
        form = await Form.read(call, await self._engine.files.limit_bytes(session, call.caller))
        if form.file is None or form.file.field != "file":
            raise errors.InvalidRequestError("file: the form has no file in that field", field="file")
        # The path may stand behind the file, which is read once: it goes to its place afterwards.
        part = f".upload-{secrets.token_hex(8)}"
        found = await self._engine.files.write(session, part, form.content(), call.caller)
        path = _path(form.fields.get("path", "") or form.file.name)
        try:
            move = MoveRequest(move_to=path, overwrite=True)
            await self._engine.files.move(session, part, move, call.caller)
        except errors.ProblemError:
            await self._engine.files.delete(session, part, call.caller)
            raise
        await call.answer(encode_json({"path": path, "size_bytes": found.bytes}), status=201)


def _path(path: str) -> str:
    """As the sessions name it: `.` is the workspace itself."""
    return "" if path in (".", "./") else path.removeprefix("./")


def _result(answer: Answer) -> Result:
    done = outcome(answer)
    files = [OutputFile(file_id=one.path, filename=one.path.rpartition("/")[2]) for one in answer.files]
    return Result(stdout=done.stdout, stderr=done.stderr, return_code=done.return_code, content=files)
