"""Chat Completions with the loop inside: an ordinary client sees an ordinary answer.

What the model says in all turns of a request is one answer, turns apart by an empty line; where the client wants JSON,
it is what the last turn says. Calls of the client's own functions are answered to as usual; ours are not seen, except
by a client that asks with `onehop: {"show": true}`. Reasoning is `reasoning_content`, as DeepSeek and vLLM name it.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from onehop.agent import events
from onehop.agent.containers import private
from onehop.agent.events import Kind, LoopEnd, LoopEvent, LoopRequest
from onehop.agent.files import file_id
from onehop.agent.model import ReasoningDelta, RefusalDelta, TextDelta, Tokens, TurnEnd
from onehop.agent.service import Agent
from onehop.api.asgi import JSON, Call, encode_json
from onehop.api.resources import Body, Operation
from onehop.errors import ProblemError
from onehop.sessions.caller import EXECUTE
from onehop.sessions.run import new_id
from onehop.wires import extras, streaming
from onehop.wires.openai import chat_request, errors, members

PATH = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
FINISH = {"answer": "stop", "pause": "stop", "refusal": "content_filter",
          "foreign_calls": "tool_calls", "suspended": "tool_calls"}  # fmt: skip
"""By LoopEnd.reason; what a limit or a guard ended is `length`, and `usage.onehop` says which."""


class Chat:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._settings = agent.engine.settings

    def operations(self) -> list[Operation]:
        return [
            Operation(
                "POST",
                PATH,
                self.complete,
                "createChatCompletion",
                "OpenAI",
                "Answer a conversation",
                scope=EXECUTE,
                body=Body("A request of Chat Completions.", dict),
            )
        ]

    async def complete(self, call: Call) -> None:
        call.require_type(b"application/json")
        request = chat_request.read(members.document(await call.body(self._settings.body_bytes)))
        more = extras.read(call, request.extras)
        loop = self._loop_request(call, request, more)
        run = self._agent.loop.run(loop)
        whole = bool(loop.kinds) and request.model.options.schema is not None
        answer = _Answer(request.model.model, show=more.show, whole=whole)
        if request.stream:
            chunks = _Chunks(answer, include_usage=request.include_usage)
            await streaming.stream(call, run, chunks.of, chunks.failed)
            return
        if await streaming.collect(call, run, answer.take):
            headers = [JSON, *extras.headers(answer.end)] if answer.end is not None else [JSON]
            await call.answer(encode_json(answer.document()), headers=headers)

    def _loop_request(
        self, call: Call, request: chat_request.ChatRequest, more: extras.Extras
    ) -> LoopRequest:
        code = self._settings.chat_code if more.code is None else more.code
        kinds: list[Kind] = ["python"] if code else []
        loop = LoopRequest(request=request.model, caller=call.caller, kinds=kinds)
        extras.apply(more, loop)
        if more.container:
            loop.container.session = private(more.container)
        return loop


class _Answer:
    """What becomes of the loop's events.

    Args:
        whole: the answer is the last turn's text alone, as texts of several turns together are no JSON.
    """

    def __init__(self, model: str, *, show: bool, whole: bool) -> None:
        self.id = new_id("chatcmpl").replace("_", "-", 1)
        self.created = int(time.time())
        self.model = model
        self.show = show
        self.end: LoopEnd | None = None
        self.calls: list[dict[str, Any]] = []
        self.work: list[dict[str, Any]] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._refusal: list[str] = []
        self._whole = whole
        self._turn: list[str] = []
        self._last: list[str] = []
        self._container = ""

    def take(self, event: LoopEvent) -> None:
        self._texts.append(self.text(event))
        if isinstance(event, ReasoningDelta):
            self._thoughts.append(event.text)
        elif isinstance(event, RefusalDelta):
            self._refusal.append(event.text)
        elif isinstance(event, events.ForeignCall):
            self.calls.append(_call(event.part.id, event.part.name, event.part.arguments))
        elif isinstance(event, events.CodeCalls):
            self.calls += [_call(one.id, one.name, one.arguments) for one in event.calls]
        elif isinstance(event, LoopEnd):
            self.end = event
        elif self.show and (shown := self.shown(event)) is not None:
            self.work.append(shown)

    def text(self, event: LoopEvent) -> str:
        """What an event adds to the answer's text."""
        if isinstance(event, TextDelta):
            begins = not self._turn and bool(self._last)
            self._turn.append(event.text if self._whole else "")
            if not self._whole:
                return "\n\n" + event.text if begins else event.text
        elif isinstance(event, TurnEnd) and self._turn:
            self._last, self._turn = self._turn, []
        elif isinstance(event, LoopEnd):
            return "".join(self._turn or self._last)
        return ""

    def shown(self, event: LoopEvent) -> dict[str, Any] | None:
        """An event of our tools' work, for clients that ask."""
        if isinstance(event, events.ContainerOpened):
            self._container = event.container.session
        return shown_work(event, self._container)

    def document(self) -> dict[str, Any]:
        assert self.end is not None
        text = "".join(self._texts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self.calls or self._refusal else self.end.detail),
            "refusal": "".join(self._refusal) or None,
            "annotations": [],
        }
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
        if self.show:
            message["onehop"] = self.work
        choice = {"index": 0, "message": message, "finish_reason": finish(self.end), "logprobs": None}
        return self.head("chat.completion") | {"choices": [choice], "usage": usage(self.end)}

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class _Chunks:
    """The same as a stream; source: `openai.types.chat.ChatCompletionChunk`."""

    def __init__(self, answer: _Answer, *, include_usage: bool) -> None:
        self._answer = answer
        self._include_usage = include_usage
        self._begun = False
        self._told = False
        self._calls: dict[str, int] = {}
        head = encode_json(answer.head("chat.completion.chunk"))[:-1]
        usage = b',"usage":null' if include_usage else b""
        self._before = b"data: " + head + usage + b',"choices":[{"index":0,"delta":'
        self._after = b',"finish_reason":null,"logprobs":null}]}\n\n'

    def of(self, event: LoopEvent) -> bytes:
        """An event's chunks; the first has the role."""
        chunks = self._of(event)
        text = self._answer.text(event)
        if text:
            self._told = True
            chunks = self._before + b'{"content":' + encode_json(text) + b"}" + self._after + chunks
        if isinstance(event, LoopEnd):
            chunks += self._end(event)
        if chunks and not self._begun:
            self._begun = True
            return self._delta({"role": "assistant", "content": ""}) + chunks
        return chunks

    def _of(self, event: LoopEvent) -> bytes:
        if isinstance(event, ReasoningDelta):
            return self._delta({"reasoning_content": event.text})
        if isinstance(event, RefusalDelta):
            self._told = True
            return self._delta({"refusal": event.text})
        if isinstance(event, events.ForeignStarted):
            return self._call(event.id, event.name, "")
        if isinstance(event, events.ForeignDelta) and event.id in self._calls:
            part = {"index": self._calls[event.id], "function": {"arguments": event.text}}
            return self._delta({"tool_calls": [part]})
        if isinstance(event, events.ForeignCall):
            if event.part.id in self._calls:
                return b""
            return self._call(event.part.id, event.part.name, event.part.arguments)
        if isinstance(event, events.CodeCalls):
            return b"".join(self._call(one.id, one.name, one.arguments) for one in event.calls)
        if self._answer.show and (shown := self._answer.shown(event)) is not None:
            return self._delta({"onehop": shown})
        return b""

    def _call(self, name: str, function: str, arguments: str) -> bytes:
        self._told = True
        index = self._calls.setdefault(name, len(self._calls))
        return self._delta({"tool_calls": [{"index": index, **_call(name, function, arguments)}]})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._before + encode_json(delta) + self._after

    def _end(self, end: LoopEnd) -> bytes:
        said = b""
        if not self._told and end.detail:
            said = self._delta({"content": end.detail})
        head = self._answer.head("chat.completion.chunk")
        delta = {"onehop": {"type": "end"} | extras.report(end)} if self._answer.show else {}
        choice = {"index": 0, "delta": delta, "finish_reason": finish(end), "logprobs": None}
        last = head | {"choices": [choice]}
        if self._include_usage:
            last["usage"] = None
        said += b"data: " + encode_json(last) + b"\n\n"
        if self._include_usage:
            said += b"data: " + encode_json(head | {"choices": [], "usage": usage(end)}) + b"\n\n"
        return said + DONE

    def failed(self, error: ProblemError) -> bytes:
        """What clients raise as an APIError."""
        return b"data: " + encode_json({"error": errors.document(error)}) + b"\n\n" + DONE


def shown_work(event: LoopEvent, container: str) -> dict[str, Any] | None:
    """An event of the work in `container`, or None; see docs/wires/openai.md."""
    if isinstance(event, events.CodeStarted):
        return {"type": "code", "call": event.call, "kind": event.kind}
    if isinstance(event, events.CodeDelta):
        return {"type": "code.delta", "call": event.call, "text": event.text}
    if isinstance(event, events.CodeWritten):
        return {"type": "code.done", "call": event.call, "kind": event.kind, "code": event.code}
    if isinstance(event, events.CodeOutput):
        return {"type": "output", "call": event.call, "stream": event.stream, "text": event.text}
    if isinstance(event, events.CodeShown):
        return {"type": "result", "call": event.call, "data": event.data}
    if isinstance(event, events.ContainerOpened):
        return {"type": "container", "id": event.container.session, "expires_at": event.container.expires_at}
    if isinstance(event, events.CodeEnded):
        answer = event.answer
        found: dict[str, Any] = {"type": "done", "call": event.call, "status": "refused", "files": []}
        if answer is not None:
            found["status"] = answer.status
            found["files"] = [
                {"path": one.path, "file_id": file_id(container, one.path)} for one in answer.files
            ]
            if answer.error is not None:
                found["error"] = msgspec.structs.asdict(answer.error)
        return found
    return None


def finish(end: LoopEnd) -> str:
    return FINISH.get(end.reason, "length")


def usage(end: LoopEnd) -> dict[str, Any]:
    """Tokens of all turns; source: `openai.types.CompletionUsage`."""
    tokens: Tokens = end.tokens
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0},
        "onehop": extras.report(end),
    }


def _call(name: str, function: str, arguments: str) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": function, "arguments": arguments}}
