"""What becomes of the loop's events: chunks of a stream, or one answer in one piece.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. Every chunk has a part, because
the chats of Google's SDK forget an answer with a chunk that has none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onehop.agent import events
from onehop.agent.events import CodeEnded, CodeWritten, ForeignCall, LoopEnd, LoopEvent
from onehop.agent.model import (
    CallPart,
    RawPart,
    ReasoningDelta,
    ReasoningPart,
    TextDelta,
    TextPart,
    TurnEnd,
)
from onehop.agent.upstreams.gemini_reader import CANDIDATE_EXTRA, REFUSALS, SIGNATURE
from onehop.api.asgi import encode_json
from onehop.errors import ProblemError
from onehop.sessions.run import new_id
from onehop.wires import extras
from onehop.wires.gemini import errors

Part = dict[str, Any]

FINISH = {
    "answer": "STOP",
    "foreign_calls": "STOP",
    "suspended": "STOP",
    "pause": "STOP",
    "length": "MAX_TOKENS",
    "max_tokens": "MAX_TOKENS",
    "refusal": "SAFETY",
    "max_turns": "TOO_MANY_TOOL_CALLS",
    "max_tool_calls": "TOO_MANY_TOOL_CALLS",
    "repeated_error": "TOO_MANY_TOOL_CALLS",
    "repeated_result": "TOO_MANY_TOOL_CALLS",
}
"""By LoopEnd.reason; the others are OTHER."""
OUTCOMES = {"ok": "OUTCOME_OK", "timeout": "OUTCOME_DEADLINE_EXCEEDED"}
"""By the status of an execution; the others are OUTCOME_FAILED."""
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class Answer:
    """Parts out of events.

    Args:
        thoughts: they are shown.
    """

    def __init__(self, model: str, *, thoughts: bool) -> None:
        self.id = new_id("resp")
        self.model = model
        self.end: LoopEnd | None = None
        self._thoughts = thoughts
        self._codes: list[CodeWritten] = []
        self._foreign: set[str] = set()
        self._said = 0

    def parts(self, event: LoopEvent) -> list[Part]:
        """Those that an event brings, in their order."""
        if isinstance(event, TextDelta):
            self._said += len(event.text)
            return [{"text": event.text}]
        if isinstance(event, ReasoningDelta):
            return [{"text": event.text, "thought": True}] if self._thoughts else []
        if isinstance(event, CodeWritten):
            self._codes.append(event)
        elif isinstance(event, ForeignCall):
            self._foreign.add(event.part.id)
        elif isinstance(event, TurnEnd):
            return self._turn(event)
        elif isinstance(event, CodeEnded):
            return _result(event)
        elif isinstance(event, events.CodeCalls):
            return [_call(one) for one in event.calls]
        elif isinstance(event, LoopEnd):
            self.end = event
        return []

    def _turn(self, turn: TurnEnd) -> list[Part]:
        """What the deltas have not told: signatures, calls, parts that are the vendor's own, a refusal's words."""
        found: list[Part] = []
        text = "".join(part.text for part in turn.message.parts if isinstance(part, TextPart))
        if len(text) > self._said:
            found.append({"text": text[self._said :]})
        self._said = 0
        for part in turn.message.parts:
            if isinstance(part, CallPart):
                found.append(self._called(part))
            elif isinstance(part, RawPart) and part.dialect == "gemini":
                found.append(part.raw)
            elif isinstance(part, TextPart) and SIGNATURE in part.extra:
                found.append({"text": "", SIGNATURE: part.extra[SIGNATURE]})
            elif isinstance(part, ReasoningPart) and self._thoughts and SIGNATURE in part.raw:
                found.append({"text": "", "thought": True, SIGNATURE: part.raw[SIGNATURE]})
        self._codes.clear()
        return found

    def _called(self, part: CallPart) -> Part:
        if part.id in self._foreign or not self._codes:
            return _call(part)
        code = self._codes.pop(0)
        found: Part = {"executableCode": {"language": "PYTHON", "code": code.code, "id": part.id}}
        if SIGNATURE in part.extra:
            found[SIGNATURE] = part.extra[SIGNATURE]
        return found

    # --- the end ------------------------------------------------------------------------------------

    def document(self, parts: list[Part]) -> dict[str, Any]:
        """The end of a stream, or all of an answer. `end` has to be known."""
        end = self.end
        assert end is not None
        more = end.last.extra if end.last is not None else {}
        found: dict[str, Any] = {}
        if "promptFeedback" in more:
            found["promptFeedback"] = more["promptFeedback"]
        if parts or not found or not more["promptFeedback"].get("blockReason"):
            candidate: dict[str, Any] = {
                "content": {"parts": parts or [{"text": ""}], "role": "model"},
                "finishReason": self._reason(end),
                "index": 0,
            }
            if end.detail:
                candidate["finishMessage"] = end.detail
            candidate.update({name: more[name] for name in CANDIDATE_EXTRA if name in more})
            found["candidates"] = [candidate]
        found["usageMetadata"] = usage(end)
        found["modelVersion"] = self.model
        found["responseId"] = self.id
        return found

    def _reason(self, end: LoopEnd) -> str:
        raw = end.last.raw_stop if end.last is not None else ""
        if end.reason == "refusal" and raw in REFUSALS:
            return raw
        if end.reason == "pause" and end.last is not None and "continuationToken" in end.last.extra:
            return "CONTINUATION"
        return FINISH.get(end.reason, "OTHER")


class Whole:
    """An answer in one piece."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parts: list[Part] = []

    def take(self, event: LoopEvent) -> None:
        for part in self._answer.parts(event):
            last = self._parts[-1] if self._parts else None
            if (
                last is not None
                and "text" in part
                and "text" in last
                and SIGNATURE not in last
                and last.get("thought") == part.get("thought")
            ):
                last["text"] += part["text"]
                if SIGNATURE in part:
                    last[SIGNATURE] = part[SIGNATURE]
            elif part.get("text") != "" or SIGNATURE in part:
                self._parts.append(part)

    def document(self) -> dict[str, Any]:
        return self._answer.document(self._parts)


class Chunks:
    """A stream: server-sent events, or the elements of one JSON array.

    Attributes:
        ping: keeps the connection alive. Google's SDK takes a comment for an answer, and an empty line for nothing.
    """

    ping = b"\n"

    def __init__(self, answer: Answer, *, array: bool) -> None:
        self._answer = answer
        self._array = array
        self._begun = False
        named = encode_json({"modelVersion": answer.model, "responseId": answer.id})
        self._before = b'{"candidates":[{"content":{"parts":['
        self._after = b'],"role":"model"},"index":0}],' + named[1:]

    def of(self, event: LoopEvent) -> bytes:
        if type(event) is TextDelta:
            self._answer.parts(event)
            return self._chunk(self._before + b'{"text":' + encode_json(event.text) + b"}" + self._after)
        parts = self._answer.parts(event)
        if isinstance(event, LoopEnd):
            return self._chunk(encode_json(self._answer.document([]))) + (b"]" if self._array else b"")
        if not parts:
            return b""
        return self._chunk(self._before + encode_json(parts)[1:-1] + self._after)

    def failed(self, error: ProblemError) -> bytes:
        """The last chunk of a stream that goes wrong; the SDK raises it."""
        return self._chunk(encode_json(errors.document(error))) + (b"]" if self._array else b"")

    def _chunk(self, content: bytes) -> bytes:
        if not self._array:
            return b"data: " + content + b"\r\n\r\n"
        begun, self._begun = self._begun, True
        return (b",\r\n" if begun else b"[") + content


def usage(end: LoopEnd) -> dict[str, Any]:
    """Tokens of all turns; source: GenerateContentResponse.UsageMetadata."""
    tokens = end.tokens
    found: dict[str, Any] = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "totalTokenCount": tokens.input + tokens.output,
    }
    if tokens.reasoning:
        found["thoughtsTokenCount"] = tokens.reasoning
    if tokens.cached:
        found["cachedContentTokenCount"] = tokens.cached
    found["onehop"] = extras.report(end)
    return found


def _result(ended: CodeEnded) -> list[Part]:
    """What code gave: what the model was told of it, and what the code has shown."""
    outcome = (
        OUTCOMES.get(ended.answer.status, "OUTCOME_FAILED") if ended.answer is not None else "OUTCOME_FAILED"
    )
    output = "\n".join(one.text for one in ended.result.content if isinstance(one, TextPart))
    found: list[Part] = [
        {"codeExecutionResult": {"outcome": outcome, "output": output, "id": ended.result.id}}
    ]
    if ended.answer is not None:
        for shown in ended.answer.results:
            mime = next((mime for mime in PICTURES if mime in shown), None)
            if mime is not None:
                found.append({"inlineData": {"mimeType": mime, "data": shown[mime].replace("\n", "")}})
    return found


def _call(part: CallPart) -> Part:
    try:
        arguments = msgspec.json.decode(part.arguments or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError):
        arguments = None
    call = {"name": part.name, "args": arguments if isinstance(arguments, dict) else {}, "id": part.id}
    found: Part = {"functionCall": call}
    if SIGNATURE in part.extra:
        found[SIGNATURE] = part.extra[SIGNATURE]
    return found
