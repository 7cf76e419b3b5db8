"""SandboxAI's API: sandboxes with names, cells and shell commands in them.

Source: the package `sandboxai-client` 0.0.2. A sandbox is a session that is found by its labels; a space is a label
too. Images are not run: SandboxAI's own stands for the default environment, another one names an environment.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from onehop import errors
from onehop.api.asgi import Call, Header, encode_json
from onehop.api.mounts import Mount, Refusal
from onehop.api.resources import Body, Operation
from onehop.sessions import Engine
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import EXECUTE, READ, Caller
from onehop.sessions.requests import CommandRequest, ExecuteRequest, SessionRequest, decode
from onehop.sessions.run import Run, new_id
from onehop.wires.process import retry_after, transcript

PREFIX = "/sandboxai/v1"
TAG = "SandboxAI"
SPACE, NAME, IMAGE = "sandboxai.space", "sandboxai.name", "sandboxai.image"
"""Labels of a session that is a sandbox."""
OWN_IMAGE = "substratusai/sandboxai-box"
"""What the client asks for when its user asks for nothing; it holds Python and IPython."""

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}(?![\s\S])")]


class Spec(msgspec.Struct):
    image: str | None = None
    env: dict[str, str] | None = None


class CreateSandbox(msgspec.Struct, kw_only=True):
    """A sandbox to be made; it gets a name when it has none."""

    name: Name | None = None
    spec: Spec


class Cell(msgspec.Struct):
    """Code for IPython. With `split_output` stdout and stderr come apart."""

    code: str
    split_output: bool | None = None


class Command(msgspec.Struct):
    """A shell command. With `split_output` stdout and stderr come apart."""

    command: str
    split_output: bool | None = None


_decode_create = msgspec.json.Decoder(CreateSandbox)
_decode_cell = msgspec.json.Decoder(Cell)
_decode_command = msgspec.json.Decoder(Command)


def mount(engine: Engine) -> Mount:
    """The protocol's routes."""
    return Mount(PREFIX, SandboxAI(engine).operations(), _refuse)


def _refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    status = 404 if isinstance(error, errors.SessionEndedError) else error.status
    headers: list[Header] = [(b"content-type", b"application/json"), *retry_after(error)]
    body = encode_json({"message": error.detail, "type": error.type, "request_id": request_id})
    return Refusal(status, body, tuple(headers))


class SandboxAI:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def operations(self) -> list[Operation]:
        every = PREFIX + "/spaces/{space}/sandboxes"
        one = every + "/{name}"
        return [
            Operation("GET", PREFIX + "/healthz", self.health, "sandboxaiHealth", TAG, "Whether it serves", scope=READ),
            Operation(
                "POST", every, self.create, "sandboxaiCreate", TAG, "Make a sandbox", scope=EXECUTE,
                body=Body("The sandbox.", CreateSandbox),
            ),
            Operation("GET", one, self.get, "sandboxaiGet", TAG, "A sandbox", scope=READ),
            Operation("DELETE", one, self.delete, "sandboxaiDelete", TAG, "End a sandbox", scope=EXECUTE),
            Operation(
                "POST", one + "/tools:run_ipython_cell", self.run_cell, "sandboxaiRunCell", TAG, "Run a cell",
                scope=EXECUTE, body=Body("The cell.", Cell),
            ),
            Operation(
                "POST", one + "/tools:run_shell_command", self.run_command, "sandboxaiRunCommand", TAG,
                "Run a shell command", scope=EXECUTE, body=Body("The command.", Command),
            ),
        ]  # fmt: skip

    async def health(self, call: Call) -> None:
        await call.answer(encode_json({"status": "OK"}))

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_create, await call.body(self._engine.settings.body_bytes))
        space, image = call.path["space"], request.spec.image or ""
        name = request.name or "sandbox-" + new_id("")[-12:].replace("_", "x").replace("-", "x").lower()
        self._check_free(space, name, call.caller)
        session = SessionRequest(
            # Another image can only be an environment of that name; the engine refuses one that there is not.
            environment=None if not image or image.partition(":")[0] == OWN_IMAGE else image,
            metadata={SPACE: space, NAME: name, IMAGE: image},
            env=request.spec.env or {},
        )
        made = await self._engine.sessions.create(session, call.caller)
        try:
            self._check_free(space, name, call.caller, besides=made.id)
        except errors.ConflictError:
            # Another request made one of that name meanwhile; the older one stays.
            await self._engine.sessions.delete(made.id, call.caller)
            raise
        await call.answer(encode_json(await self._document(made, call.caller)), status=201)

    def _check_free(self, space: str, name: str, caller: Caller, besides: str = "") -> None:
        found = self._engine.sessions.find({SPACE: space, NAME: name}, caller)
        if found and found[0].id != besides:
            raise errors.ConflictError(f"there is a sandbox {name!r} in the space {space!r} already")

    async def get(self, call: Call) -> None:
        await call.answer(encode_json(await self._document(self._found(call), call.caller)))

    async def delete(self, call: Call) -> None:
        await self._engine.sessions.delete(self._found(call).id, call.caller)
        await call.empty()

    async def run_cell(self, call: Call) -> None:
        call.require_type(b"application/json")
        cell = decode(_decode_cell, await call.body(self._engine.settings.body_bytes))
        code = ExecuteRequest(code=cell.code)
        run = await self._engine.executions.start(self._found(call).id, code, call.caller)
        await self._answer(call, run, split=bool(cell.split_output))

    async def run_command(self, call: Call) -> None:
        call.require_type(b"application/json")
        asked = decode(_decode_command, await call.body(self._engine.settings.body_bytes))
        command = CommandRequest(command=asked.command)
        run = await self._engine.executions.start_command(self._found(call).id, command, call.caller)
        await self._answer(call, run, split=bool(asked.split_output))

    async def _answer(self, call: Call, run: Run, *, split: bool) -> None:
        told = transcript(run, await run.wait())
        if split:
            await call.answer(encode_json({"stdout": told.stdout, "stderr": told.stderr}))
        else:
            await call.answer(encode_json({"output": told.output}))

    def _found(self, call: Call) -> SessionInfo:
        found = self._engine.sessions.find({SPACE: call.path["space"], NAME: call.path["name"]}, call.caller)
        if not found:
            raise errors.SessionNotFoundError(
                "there is no such sandbox; it may have ended for not being used"
            )
        return found[0]

    async def _document(self, session: SessionInfo, caller: Caller) -> dict[str, Any]:
        spec: dict[str, Any] = {"image": session.metadata[IMAGE] or session.environment}
        spec["env"] = await self._engine.sessions.env(session.id, caller) or None
        return {"name": session.metadata[NAME], "uid": session.id, "spec": spec, "status": {}}
