"""OpenAI's containers and the files in them: sessions of the native API under their other names."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from onehop.agent.containers import LABEL, private, public
from onehop.agent.editor import WORKSPACE
from onehop.agent.events import ContainerChoice
from onehop.agent.files import CONTAINER_FILE, StoredFile, file_id, place_of
from onehop.agent.service import Agent
from onehop.api.asgi import Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.errors import FileNotFoundInWorkspaceError, InvalidRequestError, UnsupportedParameterError
from onehop.sessions.answers import SessionInfo
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import SessionChange, decode
from onehop.wires.multipart import Form, is_form
from onehop.wires.openai import pages
from onehop.wires.openai.files import send_content

TAG = "OpenAI: containers"
PREFIX = "cntr"
BODY_BYTES = 64 * 1024
MEMORY_MB = {"1g": 1024, "4g": 4096, "16g": 16384, "64g": 65536}
MEMORY_LIMITS = {megabytes: name for name, megabytes in MEMORY_MB.items()}
MAX_FILES = 1000


class ExpiresAfter(msgspec.Struct, forbid_unknown_fields=True):
    """After so many minutes without use."""

    anchor: Literal["last_active_at"]
    minutes: Annotated[int, Meta(ge=1)]


class NetworkPolicy(msgspec.Struct):
    type: str


class ContainerRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A container to be made, as in openai.types.ContainerCreateParams."""

    name: Annotated[str, Meta(min_length=1)]
    expires_after: ExpiresAfter | None = None
    file_ids: list[str] = []
    memory_limit: Literal["1g", "4g", "16g", "64g"] | None = None
    network_policy: NetworkPolicy | None = None
    skills: list[Any] = []


class FileRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A known file to be put into a container."""

    file_id: str


_decode_container = msgspec.json.Decoder(ContainerRequest)
_decode_file = msgspec.json.Decoder(FileRequest)


class ContainersApi:
    def __init__(self, agent: Agent) -> None:
        self._engine = agent.engine
        self._containers = agent.containers
        self._files = agent.files

    def operations(self) -> list[Operation]:
        many, one = "/v1/containers", "/v1/containers/{container_id}"
        files, file = one + "/files", one + "/files/{file_id}"
        body = Body("What it is to be.", ContainerRequest)
        return [
            Operation(
                "POST", many, self.create, "openaiCreateContainer", TAG, "Make one", scope=EXECUTE, body=body
            ),
            Operation("GET", many, self.list, "openaiListContainers", TAG, "All of them", scope=READ),
            Operation("GET", one, self.get, "openaiGetContainer", TAG, "One of them", scope=READ),
            Operation("DELETE", one, self.delete, "openaiDeleteContainer", TAG, "End it", scope=EXECUTE),
            Operation("POST", files, self.put, "openaiCreateContainerFile", TAG, "Put in", scope=EXECUTE),
            Operation("GET", files, self.list_files, "openaiListContainerFiles", TAG, "Files", scope=READ),
            Operation("GET", file, self.get_file, "openaiGetContainerFile", TAG, "A file", scope=READ),
            Operation(
                "DELETE", file, self.delete_file, "openaiDeleteContainerFile", TAG, "Delete", scope=EXECUTE
            ),
            Operation(
                "GET",
                file + "/content",
                self.content,
                "openaiGetContainerFileContent",
                TAG,
                "A file's content",
                scope=READ,
            ),
        ]

    # --- containers ---------------------------------------------------------------------------------

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = decode(_decode_container, await call.body(BODY_BYTES))
        if request.network_policy is not None and request.network_policy.type != "disabled":
            raise UnsupportedParameterError(
                "network_policy: containers have no network here; only 'disabled' is possible",
                field="network_policy",
            )
        if request.skills:
            raise UnsupportedParameterError("skills: there are none here", field="skills")
        if len(request.file_ids) > MAX_FILES:
            raise InvalidRequestError(f"file_ids: at most {MAX_FILES}", field="file_ids")
        choice = ContainerChoice(files=request.file_ids)
        if request.memory_limit is not None:
            choice.memory_mb = MEMORY_MB[request.memory_limit]
        if request.expires_after is not None:
            choice.idle_timeout_s = request.expires_after.minutes * 60.0
        session = await self._containers.create(choice, call.caller, label=request.name)
        await call.answer(encode_json(_document(session)))

    async def list(self, call: Call) -> None:
        name = call.query("name")
        sessions = [one for one in self._engine.sessions.list(call.caller) if LABEL in one.metadata]
        renamed = [
            msgspec.structs.replace(one, id=public(one.id, PREFIX))
            for one in sessions
            if not name or one.metadata[LABEL] == name
        ]
        some, more = pages.page(call, renamed)
        await call.answer(encode_json(pages.document([_document(one) for one in some], more)))

    async def get(self, call: Call) -> None:
        session = _session(call)
        if EXECUTE in call.caller.scopes:
            # As with OpenAI, who looks at a container uses it.
            found = await self._engine.sessions.change(session, SessionChange(), call.caller)
        else:
            found = await self._engine.sessions.get(session, call.caller)
        await call.answer(encode_json(_document(found)))

    async def delete(self, call: Call) -> None:
        await self._engine.sessions.delete(_session(call), call.caller)
        answer = {"id": call.path["container_id"], "object": "container.deleted", "deleted": True}
        await call.answer(encode_json(answer))

    # --- files in them ------------------------------------------------------------------------------

    async def put(self, call: Call) -> None:
        session = _session(call)
        limit_bytes = await self._engine.files.limit_bytes(session, call.caller)
        if is_form(call):
            form = await Form.read(call, limit_bytes)
            if form.file is not None:
                if form.file.field != "file":
                    raise InvalidRequestError("file: the form has no file in that field", field="file")
                file = await self._files.put(session, form.file.name, form.content(), call.caller)
                file.by_client = True
                await call.answer(encode_json(_file_document(file)))
                return
            known = form.fields.get("file_id", "")
            if not known:
                raise InvalidRequestError("file: the form has neither file nor file_id", field="file")
        else:
            call.require_type(b"application/json")
            known = decode(_decode_file, await call.body(BODY_BYTES)).file_id
        file = await self._files.copy(known, session, call.caller)
        file.by_client = True
        await call.answer(encode_json(_file_document(file)))

    async def list_files(self, call: Call) -> None:
        session = _session(call)
        limit, upwards, after = pages.limit_of(call, default=20, most=100), pages.ascending(call), None
        found = await self._files.of(session, call.caller)
        found.sort(key=_place, reverse=not upwards)
        if name := call.query("after"):
            after = next((index for index, one in enumerate(found) if one.id == name), None)
            if after is None:
                raise FileNotFoundInWorkspaceError("after: that file is not in the container any more")
            found = found[after + 1 :]
        some, more = found[:limit], len(found) > limit
        await self._files.look_up(some, call.caller)
        await call.answer(encode_json(pages.document([_file_document(one) for one in some], more)))

    async def get_file(self, call: Call) -> None:
        session, path = await self._place(call)
        await call.answer(encode_json(_file_document(await self._files.stat(session, path, call.caller))))

    async def delete_file(self, call: Call) -> None:
        session, path = await self._place(call)
        await self._engine.files.delete(session, path, call.caller)
        answer = {"id": call.path["file_id"], "object": "container.file.deleted", "deleted": True}
        await call.answer(encode_json(answer))

    async def content(self, call: Call) -> None:
        session, path = await self._place(call)
        await self._files.stat(session, path, call.caller)
        await send_content(call, self._files, file_id(session, path))

    async def _place(self, call: Call) -> tuple[str, str]:
        """Raises SessionNotFoundError, SessionEndedError, FileNotFoundInWorkspaceError."""
        session = _session(call)
        await self._engine.sessions.get(session, call.caller)
        place = place_of(call.path["file_id"])
        if place is None or place[0] != session:
            raise FileNotFoundInWorkspaceError("there is no such file in the container")
        return place


def _session(call: Call) -> str:
    return private(call.path["container_id"])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _document(session: SessionInfo) -> dict[str, Any]:
    name = session.id if session.id.startswith(PREFIX + "_") else public(session.id, PREFIX)
    created_at, expires_at = _seconds(session.created_at), _seconds(session.expires_at)
    by_age = session.pinned or expires_at >= created_at + session.max_age_s - 1
    return {
        "id": name,
        "object": "container",
        "created_at": int(created_at),
        "status": "running",
        "name": session.metadata.get(LABEL, ""),
        "expires_after": {
            "anchor": "last_active_at",
            "minutes": max(1, int(session.idle_timeout_s / 60)),
        },
        # Where its age is what ends it, when it was last used cannot be told from when it ends.
        "last_active_at": None if by_age else int(expires_at - session.idle_timeout_s),
        "memory_limit": MEMORY_LIMITS.get(session.limits.memory_mb),
        "network_policy": {"type": "disabled"},
    }


def _place(file: StoredFile) -> tuple[float, str]:
    return file.created_at, file.path


def _file_document(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file_id(file.session, file.path, CONTAINER_FILE),
        "object": "container.file",
        "bytes": file.bytes,
        "container_id": public(file.session, PREFIX),
        "created_at": int(file.created_at),
        "path": f"{WORKSPACE}/{file.path}",
        "source": "user" if file.by_client else "assistant",
    }
