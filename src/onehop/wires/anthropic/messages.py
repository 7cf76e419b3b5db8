"""Messages with the loop inside: code execution in all its versions, containers, programmatic tool calling."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import msgspec

from onehop.agent import events
from onehop.agent.containers import private
from onehop.agent.events import LoopEvent, LoopRequest
from onehop.agent.model import TextPart
from onehop.agent.service import Agent
from onehop.agent.upstreams.router import ModelInfo
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.errors import InvalidJsonError, ModelNotFoundError, UnsupportedParameterError
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.run import new_id
from onehop.wires import extras, streaming
from onehop.wires.anthropic import request as requests
from onehop.wires.anthropic.output import Event, Output
from onehop.wires.anthropic.request import IN_PLACE, VERSIONS, MessagesRequest

PATH = "/anthropic/v1/messages"
MODELS = "/anthropic/v1/models"
TAG = "Anthropic"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
PICTURES = {"image/png": "png", "image/jpeg": "jpg"}
PICTURE_TTL_S = 30 * 86400.0

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Messages:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._settings = agent.engine.settings

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                PATH,
                self.create,
                "createMessage",
                TAG,
                "Answer a conversation",
                scope=EXECUTE,
                body=Body("A request of Messages.", dict),
            ),
            Operation(
                "POST", PATH + "/count_tokens", self.count, "countMessageTokens", TAG, "Not here", scope=READ
            ),
            Operation("GET", MODELS, self.models, "listAnthropicModels", TAG, "The models", scope=READ),
            Operation(
                "GET", MODELS + "/{model:path}", self.model, "getAnthropicModel", TAG, "One model", scope=READ
            ),
        ]

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        try:
            document = _decode(await call.body(self._settings.body_bytes))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidJsonError(f"the body is no JSON object: {error}") from None
        request = requests.read(document)
        loop = await self._loop_request(call, request, extras.read(call, request.extras))
        programmatic = bool(loop.code_callable)
        output = Output(new_id("msg"), request.model.model, request.version, programmatic=programmatic)
        run = self._with_pictures(call, output, self._agent.loop.run(loop))
        if request.stream:
            await streaming.stream(
                call,
                run,
                lambda event: b"".join(map(_chunk, output.take(event))),
                lambda error: b"".join(map(_chunk, output.failed(error))),
                head=b"".join(map(_chunk, output.begin())),
                ping=PING,
            )
            return
        if await streaming.collect(call, run, output.take):
            assert output.end is not None
            headers = [JSON, *extras.headers(output.end)]
            await call.answer(encode_json(output.document()), headers=headers)

    async def _loop_request(self, call: Call, request: MessagesRequest, more: extras.Extras) -> LoopRequest:
        loop = LoopRequest(
            request=request.model,
            caller=call.caller,
            kinds=list(VERSIONS.get(request.version, ["python"] if more.code else [])),
            code_only=request.callable_only,
            container=request.container,
            hosted=request.hosted,
        )
        more.code_callable = [*more.code_callable, *request.callable]
        extras.apply(more, loop)
        if more.container:
            loop.container.session = private(more.container)
        for upload in request.uploads:
            if not loop.kinds:
                raise UnsupportedParameterError(
                    "container_upload: there is no code execution tool that could use the file",
                    field="messages",
                )
            row = await self._agent.files.get(upload.file, call.caller)
            if loop.container.session:
                await self._agent.containers.put(loop.container.session, upload.file, call.caller)
            else:
                loop.container.files = [*loop.container.files, upload.file]
            upload.parts[upload.at] = TextPart(IN_PLACE.format(name=row.name))
        return loop

    async def _with_pictures(
        self, call: Call, output: Output, source: AsyncGenerator[LoopEvent, None]
    ) -> AsyncGenerator[LoopEvent, None]:
        """Figures that code shows have no file; here they become files of the Files API."""
        shown: dict[str, list[tuple[str, str]]] = {}
        async with aclosing(source):
            async for event in source:
                if isinstance(event, events.CodeShown):
                    mime = next((mime for mime in PICTURES if mime in event.data), None)
                    if mime is not None:
                        shown.setdefault(event.call, []).append((mime, event.data[mime]))
                elif isinstance(event, events.CodeEnded):
                    for number, (mime, data) in enumerate(shown.pop(event.call, []), 1):
                        row = await self._agent.uploads.create(
                            call.caller,
                            f"figure-{number}.{PICTURES[mime]}",
                            _once(b64decode(data)),
                            purpose="code_execution",
                            media_type=mime,
                            ttl_s=PICTURE_TTL_S,
                        )
                        output.pictures.setdefault(event.call, []).append(row.id)
                yield event

    async def count(self, call: Call) -> None:
        raise UnsupportedParameterError("tokens are counted by the models' servers; ask one of them")

    async def models(self, call: Call) -> None:
        found = [_model(one) for one in await self._agent.models.names()]
        names = [one["id"] for one in found]
        after = call.query("after_id")
        if after in names:
            found = found[names.index(after) + 1 :]
        limit = min(call.query_int("limit") or 20, 1000)
        page = found[:limit]
        document = {
            "data": page,
            "has_more": len(found) > limit,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
        }
        await call.answer(encode_json(document))

    async def model(self, call: Call) -> None:
        name = call.path["model"]
        for one in await self._agent.models.names():
            if one.name == name:
                await call.answer(encode_json(_model(one)))
                return
        raise ModelNotFoundError(f"model: {name[:200]}", model=name[:200])


def _model(one: ModelInfo) -> dict[str, Any]:
    created = datetime.fromtimestamp(one.created, UTC).isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": one.name, "display_name": one.name, "created_at": created}


def _chunk(event: Event) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode_json(event))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
