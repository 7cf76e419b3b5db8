"""Responses with the loop inside: created, streamed, continued, asked for again, deleted.

A response is kept before its client hears that it is complete. It must never continue somebody else's.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from onehop.agent.events import Kind, LoopEnd, LoopEvent, LoopRequest
from onehop.agent.model import CallPart, ImagePart, Message, ResultPart, TextPart
from onehop.agent.service import Agent
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.errors import (
    InvalidRequestError,
    PreviousResponseNotFoundError,
    ResponseNotFoundError,
    UnsupportedParameterError,
)
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.run import new_id
from onehop.wires import extras, streaming
from onehop.wires.openai import members, responses_request
from onehop.wires.openai.responses_items import IN_PLACE
from onehop.wires.openai.responses_output import Output
from onehop.wires.openai.responses_request import ResponsesRequest

PATH = "/v1/responses"
KIND = "response"
"""Of memory."""
INPUT_TTL_S = 86400.0
"""Of a file that came in a request's input."""
MAX_IMAGE_BYTES = 20 * 1024 * 1024


class Stored(msgspec.Struct, kw_only=True):
    """A response that later requests may name.

    Args:
        document: as JSON.
        input: the request's items, as JSON.
        messages: the whole conversation, answer included, in the loop's words.
        session: of its container, empty when no code ran.
    """

    document: bytes
    input: bytes
    messages: bytes
    session: str = ""


_encode_messages = msgspec.msgpack.Encoder().encode
_decode_messages = msgspec.msgpack.Decoder(list[Message]).decode
_decode_stored = msgspec.msgpack.Decoder(Stored).decode


class Responses:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._settings = agent.engine.settings

    def operations(self) -> list[Operation]:
        one, tag = PATH + "/{response_id}", "OpenAI"
        return [
            Operation(
                "POST",
                PATH,
                self.create,
                "createResponse",
                tag,
                "Answer",
                scope=EXECUTE,
                body=Body("A request of Responses.", dict),
            ),
            Operation("GET", one, self.get, "getResponse", tag, "A response again", scope=READ),
            Operation("DELETE", one, self.delete, "deleteResponse", tag, "Forget a response", scope=EXECUTE),
            Operation("POST", one + "/cancel", self.cancel, "cancelResponse", tag, "Not here", scope=EXECUTE),
            Operation(
                "GET",
                one + "/input_items",
                self.items,
                "listInputItems",
                tag,
                "A response's input",
                scope=READ,
            ),
        ]

    async def create(self, call: Call) -> None:
        call.require_type(b"application/json")
        document = members.document(await call.body(self._settings.body_bytes))
        stream, output, run = await self.begin(call, document, None)
        if stream:
            head = b"".join(_chunk(one) for one in output.begin())
            await streaming.stream(
                call,
                run,
                lambda event: b"".join(_chunk(one) for one in output.told(event)),
                lambda error: b"".join(_chunk(one) for one in output.failed(error)),
                head=head,
            )
            return
        if await streaming.collect(call, run, output.told):
            assert output.end is not None
            headers = [JSON, *extras.headers(output.end)]
            await call.answer(encode_json(output.document()), headers=headers)

    async def begin(
        self, call: Call, document: Any, near: dict[str, Stored] | None, *, generate: bool = True
    ) -> tuple[bool, Output, streaming.LoopEvents]:
        """A response that is about to be made.

        Args:
            document: the request, decoded.
            near: what the connection itself keeps, by the responses' ids: looked at before the memory, and left with
                the new response alone. None for a connection that keeps nothing.
            generate: False: no model is asked, the response says nothing, and can be gone on from.

        Returns:
            Whether a stream was asked for, what tells the response, and the events to tell it.

        Raises:
            InvalidRequestError, NotFoundError: as it stands it cannot be done.
        """
        request = responses_request.read(document)
        more = extras.read(call, request.extras)
        loop = await self._loop_request(call, request, more, near)
        output = Output(new_id("resp"), request)
        if not generate and loop.container.files:
            raise UnsupportedParameterError(
                "generate: files go into a container with a request that generates", field="generate"
            )
        events = self._agent.loop.run(loop) if generate else _silence()
        return request.stream, output, self._kept(call, request, output, events, loop, near)

    async def _loop_request(
        self,
        call: Call,
        request: ResponsesRequest,
        more: extras.Extras,
        near: dict[str, Stored] | None,
    ) -> LoopRequest:
        kinds: list[Kind] = ["python"] if request.code or more.code else []
        loop = LoopRequest(
            request=request.model,
            caller=call.caller,
            kinds=kinds,
            container=request.container,
            hosted={"type": "code_interpreter", "container": {"type": "auto"}} if request.code else {},
        )
        extras.apply(more, loop)
        loop.tools = [*loop.tools, *request.servers]
        if request.servers and not kinds:
            raise UnsupportedParameterError(
                'tools: tools of an MCP server are called from code here; add {"type": "code_interpreter"}',
                field="tools",
            )
        if request.max_tool_calls is not None and loop.limits.tool_calls is None:
            loop.limits = msgspec.structs.replace(loop.limits, tool_calls=request.max_tool_calls)
        if request.previous:
            await self._continue(call, request, loop, near or {})
        _check_results(request.model.messages, loop.request.messages)
        await self._place_files(call, request, loop)
        if not loop.request.messages:
            raise InvalidRequestError("input: there is nothing to answer", field="input")
        return loop

    async def _continue(
        self, call: Call, request: ResponsesRequest, loop: LoopRequest, near: dict[str, Stored]
    ) -> None:
        """Puts the conversation before this request's own input; its instructions come first."""
        stored = await self._previous(call, request, near)
        before = _without_instructions(stored)
        own = loop.request.messages
        first = 1 if "instructions" in _given(request) else 0
        loop.request = msgspec.structs.replace(loop.request, messages=[*own[:first], *before, *own[first:]])
        choice = loop.container
        if stored.session and not choice.session and not choice.conversation and not choice.files:
            # `auto` goes on where the conversation was, and says so when that is gone.
            choice.session, choice.restart = stored.session, True

    async def _previous(self, call: Call, request: ResponsesRequest, near: dict[str, Stored]) -> Stored:
        stored = near.get(request.previous) or await self._find(call, request.previous)
        if stored is None:
            raise PreviousResponseNotFoundError(
                f"there is no response {request.previous[:80]!r}", field="previous_response_id"
            )
        return stored

    async def before(self, call: Call, request: ResponsesRequest) -> list[Message]:
        """The conversation before a request that names a previous response; raises PreviousResponseNotFoundError."""
        if not request.previous:
            return []
        return _without_instructions(await self._previous(call, request, {}))

    async def _place_files(self, call: Call, request: ResponsesRequest, loop: LoopRequest) -> None:
        """Files of the input: into the container where there is one, else along with the message."""
        uploads = self._agent.uploads
        for file in request.files:
            if isinstance(file.part[file.at], ImagePart):
                data, media_type = await self._content(call, file.upload)
                image = file.part[file.at]
                assert isinstance(image, ImagePart)
                file.part[file.at] = ImagePart(media_type=media_type, data=data, extra=image.extra)
                continue
            if not loop.kinds:
                continue
            name, upload = file.name, file.upload
            if not upload:
                row = await uploads.create(
                    call.caller,
                    name or "file",
                    _once(_decoded(file.data)),
                    purpose="user_data",
                    ttl_s=INPUT_TTL_S,
                )
                name, upload = row.name, row.id
            else:
                name = (await self._agent.files.get(upload, call.caller)).name
            if loop.container.session:
                await self._agent.containers.put(loop.container.session, upload, call.caller)
            else:
                loop.container.files = [*loop.container.files, upload]
            file.part[file.at] = TextPart(IN_PLACE.format(name=name))

    async def _content(self, call: Call, upload: str) -> tuple[str, str]:
        async with self._agent.files.read(upload, call.caller) as (row, chunks):
            if row.bytes > MAX_IMAGE_BYTES:
                raise InvalidRequestError(f"input: the picture {row.name!r} is too large", field="input")
            raw = b"".join([chunk async for chunk in chunks])
            media_type = row.media_type if row.media_type.startswith("image/") else "image/png"
            return b64encode(raw).decode("ascii"), media_type

    # --- what is kept -------------------------------------------------------------------------------

    async def _kept(
        self,
        call: Call,
        request: ResponsesRequest,
        output: Output,
        events: AsyncGenerator[LoopEvent, None],
        loop: LoopRequest,
        near: dict[str, Stored] | None,
    ) -> AsyncGenerator[LoopEvent, None]:
        """The loop's events; before the last one the response is kept."""
        async with aclosing(events) as source:
            async for event in source:
                if isinstance(event, LoopEnd):
                    output.take(event)
                    if request.store or near is not None:
                        await self._keep(
                            call, request.store, output.name, self._as_stored(request, output, loop), near
                        )
                yield event

    async def _keep(
        self, call: Call, store: bool, name: str, stored: Stored, near: dict[str, Stored] | None
    ) -> None:
        if near is not None:
            near.clear()
            near[name] = stored
        if store:
            ttl_s = self._settings.loop_memory_hours * 3600
            data = _encode_messages(stored)
            await self._agent.memory.put(call.caller.owner, KIND, name, data, ttl_s)

    def _as_stored(self, request: ResponsesRequest, output: Output, loop: LoopRequest) -> Stored:
        end = output.end
        assert end is not None
        messages = list(loop.request.messages)
        if output.calls:
            # What the client sees of it; what really happened is found by the calls' ids.
            messages.append(Message("assistant", list(output.calls)))
        else:
            messages += end.transcript
        return Stored(
            document=encode_json(output.document()),
            input=encode_json(request.input),
            messages=_encode_messages(messages),
            session=end.container.session if end.container is not None else loop.container.session,
        )

    async def _find(self, call: Call, name: str) -> Stored | None:
        data = await self._agent.memory.get(call.caller.owner, KIND, name[:128])
        return None if data is None else _decode_stored(data)

    async def _stored(self, call: Call) -> Stored:
        name = call.path["response_id"]
        stored = await self._find(call, name)
        if stored is None:
            raise ResponseNotFoundError(f"there is no response {name[:80]!r}")
        return stored

    async def get(self, call: Call) -> None:
        if call.query_flag("stream"):
            raise UnsupportedParameterError(
                "stream: a response is streamed once, while it is made", field="stream"
            )
        stored = await self._stored(call)
        await call.answer(stored.document)

    async def delete(self, call: Call) -> None:
        name = call.path["response_id"]
        if not await self._agent.memory.delete(call.caller.owner, KIND, name[:128]):
            raise ResponseNotFoundError(f"there is no response {name[:80]!r}")
        await call.answer(encode_json({"id": name, "object": "response", "deleted": True}))

    async def cancel(self, call: Call) -> None:
        await self._stored(call)
        raise InvalidRequestError("only responses in the background can be cancelled; hang up to stop one")

    async def items(self, call: Call) -> None:
        stored = await self._stored(call)
        found: list[dict[str, Any]] = msgspec.json.decode(stored.input)
        for number, item in enumerate(found):
            item.setdefault("id", f"item_{number}")
            if isinstance(item.get("content"), str):
                item["content"] = [{"type": "input_text", "text": item["content"]}]
        if call.query("order") != "asc":
            found.reverse()
        ids = [one["id"] for one in found]
        after = call.query("after")
        if after in ids:
            found = found[ids.index(after) + 1 :]
        limit = min(call.query_int("limit") or 20, 100)
        page = found[:limit]
        document = {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(found) > limit,
        }
        await call.answer(encode_json(document))


def _without_instructions(stored: Stored) -> list[Message]:
    return [one for one in _decode_messages(stored.messages) if one.role != "system"]


async def _silence() -> streaming.LoopEvents:
    yield LoopEnd(reason="answer")


def _check_results(own: list[Message], conversation: list[Message]) -> None:
    """A result is of a call that the conversation has; a model's server would say so less clearly."""
    calls = {part.id for message in conversation for part in message.parts if isinstance(part, CallPart)}
    for message in own:
        for part in message.parts:
            if isinstance(part, ResultPart) and part.id not in calls:
                raise InvalidRequestError(
                    f"input: no function call has the call_id {part.id[:80]!r} of a function_call_output",
                    field="input",
                )


def _chunk(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode_json(event))


def _given(request: ResponsesRequest) -> list[str]:
    return [name for name, value in request.echo.items() if value is not None and name == "instructions"]


def _decoded(data: str) -> bytes:
    try:
        return b64decode(data, validate=True)
    except ValueError:
        raise InvalidRequestError("input: file_data is no base64", field="input") from None


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
