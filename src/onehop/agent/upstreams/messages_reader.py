"""One streamed answer of Messages, event by event. Source: https://docs.claude.com/en/api/messages-streaming."""

from __future__ import annotations

import json
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
    Stop,
    TextDelta,
    TextPart,
    Tokens,
    TurnEnd,
)
from onehop.agent.upstreams.chat_errors import of_document
from onehop.errors import UpstreamError

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Of errors, by their type; amid a stream nothing else says it."""
STOPS: dict[str, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "tool_use": "calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
    "pause_turn": "pause",
}

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class MessagesReader:
    """See `Reader`."""

    def __init__(self) -> None:
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}
        """JSON of the blocks' inputs."""
        self._usage: dict[str, Any] = {}
        self._model = self._id = ""
        self._stop = self._stopped_by = ""
        self._ended = False

    def feed(self, event: str, data: str) -> list[Delta]:
        if self._ended:
            return []
        try:
            document = _decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(f"the model's server sent an event that is no JSON: {error}") from None
        kind = str(document.get("type") or event)
        try:
            return self._take(kind, document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UpstreamError(
                f"the model's server sent a {kind[:80]} that cannot be read: {error!r}"[:300]
            ) from None

    def end(self) -> list[Delta]:
        if not self._ended:
            raise UpstreamError("the model's server broke its answer off")
        return []

    def _take(self, kind: str, event: dict[str, Any]) -> list[Delta]:
        if kind == "content_block_delta":
            return self._delta(_index(event), event["delta"])
        if kind == "content_block_start":
            return self._start(_index(event), event["content_block"])
        if kind == "message_start":
            message = event["message"]
            self._model, self._id = str(message.get("model") or ""), str(message.get("id") or "")
            self._usage.update(message.get("usage") or {})
        elif kind == "message_delta":
            delta = event["delta"]
            self._stop = str(delta.get("stop_reason") or "")
            self._stopped_by = str(delta.get("stop_sequence") or "")
            usage = event.get("usage") or {}
            self._usage.update({name: value for name, value in usage.items() if value is not None})
        elif kind == "message_stop":
            self._ended = True
            return [self._end()]
        elif kind == "error":
            error = event["error"]
            status = STATUSES.get(str(error.get("type")), 502)
            message = str(error.get("message") or "no reason given")[:500]
            raise of_document(status, event) or UpstreamError(f"the model's server failed: {message}")
        return []

    def _start(self, index: int, block: dict[str, Any]) -> list[Delta]:
        self._blocks[index] = block
        self._pieces[index] = []
        if block["type"] == "tool_use":
            return [CallStart(index, _text(block["id"]), _text(block["name"]))]
        if block["type"] == "text" and block.get("text"):
            return [TextDelta(_text(block["text"]))]
        return []

    def _delta(self, index: int, delta: dict[str, Any]) -> list[Delta]:
        block, kind = self._blocks[index], delta["type"]
        if kind == "text_delta":
            text = _text(delta["text"])
            block["text"] = _text(block.get("text") or "") + text
            return [TextDelta(text)] if text else []
        if kind == "input_json_delta":
            piece = _text(delta["partial_json"])
            self._pieces[index].append(piece)
            return [CallDelta(index, piece)] if piece and block["type"] == "tool_use" else []
        if kind == "thinking_delta":
            text = _text(delta["thinking"])
            block["thinking"] = _text(block.get("thinking") or "") + text
            return [ReasoningDelta(text)] if text else []
        if kind == "signature_delta":
            block["signature"] = _text(delta["signature"])
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        return []

    def _end(self) -> TurnEnd:
        parts = [self._part(index) for index in sorted(self._blocks)]
        usage = self._usage
        read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
        return TurnEnd(
            message=Message("assistant", parts),
            stop=STOPS.get(self._stop, "end"),
            tokens=Tokens(
                input=_count(usage, "input_tokens") + read + written,
                output=_count(usage, "output_tokens"),
                cached=read,
                cache_written=written,
            ),
            stopped_by=self._stopped_by,
            raw_stop=self._stop,
            model=self._model,
            id=self._id,
        )

    def _part(self, index: int) -> Part:
        block, written = self._blocks[index], "".join(self._pieces[index])
        kind = block["type"]
        if kind == "text":
            notes = block.get("citations")
            return TextPart(_text(block.get("text") or ""), {"citations": notes} if notes else {})
        if kind == "tool_use":
            extra = {"caller": block["caller"]} if block.get("caller") else {}
            arguments = written or json.dumps(block.get("input") or {})
            return CallPart(id=block["id"], name=block["name"], arguments=arguments, extra=extra)
        if kind in ("thinking", "redacted_thinking"):
            return ReasoningPart(text=str(block.get("thinking") or ""), dialect="messages", raw=block)
        if written:
            block["input"] = json.loads(written)
        return RawPart(dialect="messages", raw=block)


def _count(usage: dict[str, Any], name: str) -> int:
    return int(usage.get(name) or 0)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {type(value).__name__}")
    return value


def _index(event: dict[str, Any]) -> int:
    value = event["index"]
    if not isinstance(value, int):
        raise ValueError("index is no number")
    return value
