"""`POST /v1/responses/compact`: a long conversation as what the user said and one item with a summary of the rest.

The model itself writes the summary, whatever server it is on. The item's content is opaque to clients by OpenAI's
protocol; here it is the summary in base64, as what a client could say anyway is no secret from it.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from typing import Any

from onehop.agent.events import LoopEnd, LoopEvent, LoopRequest
from onehop.agent.model import (
    CallPart,
    ImagePart,
    Message,
    ModelRequest,
    Options,
    Part,
    RawPart,
    ReasoningPart,
    ResultPart,
    TextDelta,
    TextPart,
)
from onehop.agent.service import Agent
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.errors import InvalidRequestError, UpstreamError
from onehop.sessions.caller import EXECUTE
from onehop.sessions.run import new_id
from onehop.wires import streaming
from onehop.wires.openai import members, responses_request
from onehop.wires.openai.responses import PATH, Responses
from onehop.wires.openai.responses_items import SUMMARY, SUMMARY_HEAD
from onehop.wires.openai.responses_output import usage

ASK = (
    "Summarise the conversation above for yourself: it goes on from your summary and the user's own messages "
    "alone. Keep decisions, facts, names, numbers, results of tools and code, files and variables that exist, "
    "and what is still open. Write only the summary."
)
MEMBERS = ("model", "input", "instructions", "previous_response_id")


class Compaction:
    def __init__(self, agent: Agent, responses: Responses) -> None:
        self._agent = agent
        self._responses = responses

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                PATH + "/compact",
                self.compact,
                "compactResponse",
                "OpenAI",
                "Shorten a conversation",
                scope=EXECUTE,
                body=Body("A conversation, as of Responses.", dict),
            )
        ]

    async def compact(self, call: Call) -> None:
        call.require_type(b"application/json")
        document = members.document(await call.body(self._agent.engine.settings.body_bytes))
        request = responses_request.read({name: document[name] for name in MEMBERS if name in document})
        before = await self._responses.before(call, request)
        conversation = [*before, *request.model.messages]
        if not conversation:
            raise InvalidRequestError("input: there is nothing to compact", field="input")
        loop = LoopRequest(
            request=ModelRequest(
                model=request.model.model,
                messages=[*map(_told, conversation), Message("user", [TextPart(ASK)])],
                options=Options(),
                dialect="responses",
            ),
            caller=call.caller,
            kinds=[],
        )
        summary, ends = "", list[LoopEnd]()

        def take(event: LoopEvent) -> None:
            nonlocal summary
            if isinstance(event, TextDelta):
                summary += event.text
            elif isinstance(event, LoopEnd):
                ends.append(event)

        if not await streaming.collect(call, self._agent.loop.run(loop), take):
            return
        if not summary.strip() or ends[0].reason != "answer":
            raise UpstreamError(f"the model wrote no whole summary (it ended by {ends[0].reason})")
        said = [item for message in conversation if (item := _said(message)) is not None]
        answer = {
            "id": new_id("resp"),
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [*said, _item(summary)],
            "usage": usage(ends[0]),
        }
        await call.answer(encode_json(answer), headers=[JSON])


def _told(message: Message) -> Message:
    """For the model that summarises: calls and results as text, as some servers take them only beside their tools."""
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, CallPart):
            parts.append(TextPart(f"[You called {part.name}: {part.arguments}]"))
        elif isinstance(part, ResultPart):
            parts += [TextPart("[It gave:]"), *part.content]
        elif not isinstance(part, ReasoningPart):
            parts.append(part)
    return Message(message.role, parts or [TextPart("[nothing said]")])


def _said(message: Message) -> dict[str, Any] | None:
    """What the user said, as an item that a request may send back; None when it was something else."""
    content: list[dict[str, Any]] = []
    for part in message.parts if message.role == "user" else ():
        if isinstance(part, TextPart) and not part.text.startswith(SUMMARY_HEAD):
            content.append({"type": "input_text", "text": part.text})
        elif isinstance(part, ImagePart):
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            content.append({"type": "input_image", "image_url": url, "detail": "auto"})
        elif isinstance(part, RawPart):
            content.append(part.raw)
    if not content:
        return None
    return {
        "id": new_id("msg"),
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": content,
    }


def _item(summary: str) -> dict[str, Any]:
    content = SUMMARY + urlsafe_b64encode(summary.encode()).decode("ascii")
    return {"id": new_id("cmp"), "type": "compaction", "encrypted_content": content}
