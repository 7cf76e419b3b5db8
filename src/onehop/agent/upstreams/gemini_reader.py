"""One streamed answer of streamGenerateContent, out of its chunks.

Parts come whole, a call's arguments too; texts that follow each other are one text. Signatures of thoughts stay
with the part that they came with, in `extra`: Google refuses a conversation whose signatures got lost or moved.
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
    RawPart,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    Stop,
    TextDelta,
    TextPart,
    Tokens,
    TurnEnd,
)
from onehop.agent.upstreams.gemini_errors import of_document
from onehop.errors import UpstreamError, UpstreamRefusedError

SIGNATURE = "thoughtSignature"
REFUSALS = {
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"),
    *("IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION", "PUP_LIMITED_DISABLED", "MODEL_ARMOR"),
}
FAILURES = {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"}
"""What a model wrote could not be read by its own server; asked again, it often can."""
CANDIDATE_EXTRA = (
    *("safetyRatings", "citationMetadata", "groundingMetadata", "urlContextMetadata", "logprobsResult"),
    *("avgLogprobs", "finishMessage", "continuationToken"),
)
MAX_PARTS = 65536
MAX_CALLS = 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024

_encode = msgspec.json.Encoder().encode


class _Candidate(msgspec.Struct):
    index: int | None = None
    content: dict[str, Any] | None = None
    finishReason: str | None = None
    safetyRatings: Any = None
    citationMetadata: Any = None
    groundingMetadata: Any = None
    urlContextMetadata: Any = None
    logprobsResult: Any = None
    avgLogprobs: Any = None
    finishMessage: str | None = None
    continuationToken: Any = None


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    thoughts_token_count: int | None = None


class _Chunk(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    prompt_feedback: dict[str, Any] | None = None
    model_version: str | None = None
    response_id: str | None = None
    model_status: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _Text:
    """A text, or a thought, that goes on."""

    def __init__(self, thought: bool) -> None:
        self.thought = thought
        self.pieces: list[str] = []
        self.signature = ""

    def part(self) -> Part:
        text = "".join(self.pieces)
        extra = {SIGNATURE: self.signature} if self.signature else {}
        if self.thought:
            return ReasoningPart(text=text, dialect="gemini", raw={"text": text, "thought": True, **extra})
        return TextPart(text, extra)


class GeminiReader:
    """See `Reader`."""

    def __init__(self) -> None:
        self._order: list[_Text | CallPart | RawPart] = []
        self._calls = 0
        self._finish = ""
        self._feedback: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        self._tokens = Tokens()
        self._id = ""
        self._model = ""
        self._bytes = 0
        self._ended = False

    def feed(self, event: str, data: str) -> list[Delta]:
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise UpstreamError(f"the model's server sent a chunk that cannot be read: {error}") from None
        if chunk.error is not None:
            raise of_document(200, {"error": chunk.error}) or UpstreamError(
                "the model's server failed amid its answer"
            )
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER_BYTES:
            raise UpstreamError(f"the model's server sent an answer of more than {MAX_ANSWER_BYTES} bytes")
        if chunk.response_id:
            self._id = chunk.response_id
        if chunk.model_version:
            self._model = chunk.model_version
        if chunk.model_status is not None:
            self._extra["modelStatus"] = chunk.model_status
        if chunk.usage_metadata is not None:
            self._tokens = _tokens(chunk.usage_metadata)  # of all so far
        found: list[Delta] = []
        if chunk.prompt_feedback is not None:
            self._blocked(chunk.prompt_feedback, found)
        for candidate in chunk.candidates or ():
            if not candidate.index:
                self._candidate(candidate, found)
        return found

    def end(self) -> list[Delta]:
        """No chunk says that it is the last: usage may follow the one that has the reason."""
        if self._ended:
            return []
        if not self._finish:
            raise UpstreamError("the model's server hung up before the end of its answer")
        self._ended = True
        message = Message("assistant", [_part(one) for one in self._order])
        return [
            TurnEnd(
                message=message,
                stop=self._stop(),
                tokens=self._tokens,
                raw_stop=self._finish,
                model=self._model,
                id=self._id,
                extra=self._extra,
            )
        ]

    def _blocked(self, feedback: dict[str, Any], found: list[Delta]) -> None:
        self._extra["promptFeedback"] = feedback
        reason = feedback.get("blockReason")
        if reason and not self._finish:
            self._finish = str(reason)
            self._feedback = feedback
            more = feedback.get("blockReasonMessage")
            found.append(RefusalDelta(str(more or f"The prompt was blocked: {reason}.")))

    def _candidate(self, candidate: _Candidate, found: list[Delta]) -> None:
        parts = (candidate.content or {}).get("parts")
        for part in parts if isinstance(parts, list) else ():
            if not isinstance(part, dict):
                raise UpstreamError("the model's server sent a part that is no object")
            self._add(part, found)
        for name in CANDIDATE_EXTRA:
            value = getattr(candidate, name)
            if value is not None:
                self._extra[name] = value
        reason = candidate.finishReason
        if reason and reason != "FINISH_REASON_UNSPECIFIED":
            self._finished(reason, candidate.finishMessage or "", found)

    def _finished(self, reason: str, message: str, found: list[Delta]) -> None:
        self._finish = reason
        if reason in FAILURES:
            more = f": {message[:500]}" if message else ""
            raise UpstreamError(f"the model wrote a call that its server cannot read ({reason}){more}")
        if reason == "MISSING_THOUGHT_SIGNATURE":
            raise UpstreamRefusedError(
                f"the model's server misses signatures of thoughts ({reason}); send back its parts unchanged"
            )
        if reason in REFUSALS:
            found.append(RefusalDelta(message or f"The answer was stopped: {reason}."))

    def _add(self, part: dict[str, Any], found: list[Delta]) -> None:
        if len(self._order) >= MAX_PARTS:
            raise UpstreamError(f"the model's server sent more than {MAX_PARTS} parts in one answer")
        text, call = part.get("text"), part.get("functionCall")
        if isinstance(call, dict):
            self._call(call, part, found)
        elif isinstance(text, str):
            self._text(text, part, found)
        elif part.keys() - {"thought", "partMetadata"} == {SIGNATURE}:
            self._text("", part, found)
        elif part:
            self._order.append(RawPart(dialect="gemini", raw=part))

    def _text(self, text: str, part: dict[str, Any], found: list[Delta]) -> None:
        thought, signature = part.get("thought") is True, str(part.get(SIGNATURE) or "")
        last = self._order[-1] if self._order else None
        if not isinstance(last, _Text) or last.thought is not thought or (last.signature and text):
            if not text and not signature:
                return
            last = _Text(thought)
            self._order.append(last)
        if signature:
            last.signature = signature
        if text:
            last.pieces.append(text)
            found.append(ReasoningDelta(text) if thought else TextDelta(text))

    def _call(self, call: dict[str, Any], part: dict[str, Any], found: list[Delta]) -> None:
        name, arguments = call.get("name"), call.get("args")
        if not isinstance(name, str) or not name or not (arguments is None or isinstance(arguments, dict)):
            raise UpstreamError("the model's server sent a call of a function without a name or arguments")
        if self._calls >= MAX_CALLS:
            raise UpstreamError(f"the model's server sent more than {MAX_CALLS} calls in one answer")
        written = _encode(arguments or {}).decode()
        given = call.get("id")
        own = CallPart(
            id=given if isinstance(given, str) and given else f"call_{secrets.token_hex(12)}",
            name=name,
            arguments=written,
            extra={SIGNATURE: part[SIGNATURE]} if part.get(SIGNATURE) else {},
        )
        self._order.append(own)
        found.append(CallStart(self._calls, own.id, name))
        found.append(CallDelta(self._calls, written))
        self._calls += 1

    def _stop(self) -> Stop:
        if self._feedback or self._finish in REFUSALS:
            return "refusal"
        if self._finish == "MAX_TOKENS":
            return "length"
        if self._finish == "CONTINUATION":
            return "pause"
        return "calls" if self._calls else "end"


def _part(one: _Text | CallPart | RawPart) -> Part:
    return one.part() if isinstance(one, _Text) else one


def _tokens(usage: _Usage) -> Tokens:
    thoughts = usage.thoughts_token_count or 0
    return Tokens(
        input=(usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        output=(usage.candidates_token_count or 0) + thoughts,
        cached=usage.cached_content_token_count or 0,
        reasoning=thoughts,
    )
