"""One streamed answer of Chat Completions, out of its chunks.

Servers differ in how calls come: whole or in pieces, with an index or without, several under the index 0, the id in
the first piece or in all of them. A call is therefore new when its index is, or when another id comes for its index.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from onehop.agent.model import (
    CallDelta,
    CallPart,
    CallStart,
    Delta,
    Message,
    Part,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    Stop,
    TextDelta,
    TextPart,
    Tokens,
    TurnEnd,
)
from onehop.agent.upstreams.chat_errors import of_document
from onehop.errors import UpstreamError

STOPS: dict[str, Stop] = {
    "stop": "end",
    "eos": "end",
    "tool_calls": "calls",
    "function_call": "calls",
    "length": "length",
    "content_filter": "refusal",
}
MAX_CALLS = 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    annotations: list[Any] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: dict[str, Any] | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None


class _Chunk(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    created: Any = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    citations: Any = None
    provider: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
EXTRA = ("created", "system_fingerprint", "service_tier", "citations", "provider")


class _Open:
    """A call that is being written."""

    def __init__(self, index: int, id: str, name: str) -> None:
        self.index, self.id, self.name = index, id, name
        self.arguments: list[str] = []
        self.extra: dict[str, Any] = {}


class ChatReader:
    """See `Reader`."""

    def __init__(self) -> None:
        self._order: list[list[str] | _Open] = []
        self._text: list[str] | None = None
        self._reasoning: list[str] = []
        self._reasoning_member = "reasoning_content"
        self._details: list[dict[str, Any]] = []
        self._refusal: list[str] = []
        self._annotations: list[Any] = []
        self._logprobs: dict[str, list[Any]] = {}
        self._calls: list[_Open] = []
        self._by_index: dict[int, _Open] = {}
        self._finish = ""
        self._stopped_by = ""
        self._tokens = Tokens()
        self._id = ""
        self._model = ""
        self._extra: dict[str, Any] = {}
        self._bytes = 0
        self._ended = False

    def feed(self, event: str, data: str) -> list[Delta]:
        if data == "[DONE]" or data.strip() == "[DONE]":
            return [self._end()] if self._finish else self.end()
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise UpstreamError(f"the model's server sent a chunk that cannot be read: {error}") from None
        if chunk.error is not None or event == "error":
            raise of_document(200, {"error": chunk.error}) or UpstreamError(
                "the model's server failed amid its answer"
            )
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER_BYTES:
            raise UpstreamError(f"the model's server sent an answer of more than {MAX_ANSWER_BYTES} bytes")
        if not self._id and chunk.id:
            self._id, self._model = chunk.id, chunk.model or ""
            self._notice(chunk)
        if chunk.usage is not None:
            self._tokens = _tokens(chunk.usage)
            self._notice(chunk)
        found: list[Delta] = []
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue  # one answer was asked for
            if choice.delta is not None:
                self._delta(choice.delta, found)
            if choice.logprobs:
                for name, items in choice.logprobs.items():
                    if isinstance(items, list):
                        self._logprobs.setdefault(name, []).extend(items)
            if choice.finish_reason:
                self._finish = choice.finish_reason
                if isinstance(choice.stop_reason, str):
                    self._stopped_by = choice.stop_reason  # vLLM: the sequence that was met
        return found

    def end(self) -> list[Delta]:
        if self._ended:
            return []
        if not self._finish:
            raise UpstreamError("the model's server hung up before the end of its answer")
        return [self._end()]

    def _notice(self, chunk: _Chunk) -> None:
        for name in EXTRA:
            value = getattr(chunk, name)
            if value is not None:
                self._extra[name] = value

    def _delta(self, delta: _Delta, found: list[Delta]) -> None:
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            if not delta.reasoning_content:
                self._reasoning_member = "reasoning"
            self._reasoning.append(thought)
            found.append(ReasoningDelta(thought))
        if delta.reasoning_details:
            self._details += delta.reasoning_details
        if delta.content:
            text = delta.content if isinstance(delta.content, str) else _joined(delta.content)
            if text:
                if self._text is None:
                    self._text = []
                    self._order.append(self._text)
                self._text.append(text)
                found.append(TextDelta(text))
        if delta.refusal:
            self._refusal.append(delta.refusal)
            found.append(RefusalDelta(delta.refusal))
        for call in delta.tool_calls or ():
            self._call(call, found)
        if delta.function_call is not None:  # the older form, which knows one call
            self._call(_Call(index=0, function=delta.function_call), found)
        if delta.annotations:
            self._annotations += delta.annotations

    def _call(self, call: _Call, found: list[Delta]) -> None:
        function = call.function or _Function()
        index = call.index
        if index is None:  # whole calls, one after the other
            index = len(self._calls) if call.id or function.name or not self._calls else len(self._calls) - 1
        known = self._by_index.get(index)
        if known is None or (call.id and function.name and call.id != known.id):
            if len(self._calls) >= MAX_CALLS:
                raise UpstreamError(f"the model's server sent more than {MAX_CALLS} calls in one answer")
            if not function.name:
                raise UpstreamError("the model's server sent a call of a function without its name")
            place = len(self._calls)
            known = _Open(place, call.id or f"call_{secrets.token_hex(12)}", function.name)
            self._calls.append(known)
            self._by_index[index] = known
            self._order.append(known)
            self._text = None
            found.append(CallStart(place, known.id, known.name))
        if call.extra_content:
            known.extra["extra_content"] = call.extra_content  # Gemini's signatures of thoughts
        if function.arguments:
            text = function.arguments
            if not isinstance(text, str):
                text = msgspec.json.encode(text).decode()  # Ollama's older form: an object
            known.arguments.append(text)
            found.append(CallDelta(known.index, text))

    def _end(self) -> TurnEnd:
        self._ended = True
        parts: list[Part] = []
        if self._reasoning or self._details:
            text = "".join(self._reasoning)
            raw: dict[str, Any] = {self._reasoning_member: text} if text else {}
            if self._details:
                raw["reasoning_details"] = _merged(self._details)
            parts.append(ReasoningPart(text=text, dialect="chat", raw=raw))
        for one in self._order:
            if isinstance(one, _Open):
                parts.append(
                    CallPart(id=one.id, name=one.name, arguments="".join(one.arguments), extra=one.extra)
                )
            else:
                parts.append(TextPart("".join(one)))
        if self._refusal:
            parts.append(TextPart("".join(self._refusal)))
        extra = self._extra
        if self._annotations:
            extra["annotations"] = self._annotations
        if self._logprobs:
            extra["logprobs"] = self._logprobs
        return TurnEnd(
            message=Message("assistant", parts),
            stop=self._stop(),
            tokens=self._tokens,
            stopped_by=self._stopped_by,
            raw_stop=self._finish,
            model=self._model,
            id=self._id,
            extra=extra,
        )

    def _stop(self) -> Stop:
        if self._finish == "error":
            raise UpstreamError("the model's server failed amid its answer")
        stop = STOPS.get(self._finish, "end")
        if self._calls and stop == "end":
            return "calls"  # several servers call that a stop
        if stop == "calls" and not self._calls:
            return "end"
        return "refusal" if self._refusal and stop == "end" else stop


def _tokens(usage: _Usage) -> Tokens:
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return Tokens(
        input=usage.prompt_tokens or 0,
        output=usage.completion_tokens or 0,
        cached=(read.cached_tokens if read else usage.prompt_cache_hit_tokens) or 0,
        cache_written=(read.cache_write_tokens if read else 0) or 0,
        reasoning=(written.reasoning_tokens if written else 0) or 0,
    )


def _joined(content: Any) -> str:
    """Mistral's form: a list of parts."""
    if not isinstance(content, list):
        raise UpstreamError("the model's server sent content that is neither text nor parts")
    return "".join(
        one["text"] for one in content if isinstance(one, dict) and isinstance(one.get("text"), str)
    )


def _merged(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """OpenRouter streams a block of thoughts in pieces of one index; it wants it back whole."""
    whole: list[dict[str, Any]] = []
    by_index: dict[Any, dict[str, Any]] = {}
    for piece in details:
        known = by_index.get((piece.get("index"), piece.get("type"))) if "index" in piece else None
        if known is None:
            known = dict(piece)
            whole.append(known)
            if "index" in piece:
                by_index[(piece["index"], piece.get("type"))] = known
            continue
        for name, value in piece.items():
            if (
                name in ("text", "summary", "data")
                and isinstance(value, str)
                and isinstance(known.get(name), str)
            ):
                known[name] += value
            elif value is not None:
                known[name] = value
    return whole
