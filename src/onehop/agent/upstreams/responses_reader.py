"""One streamed answer of Responses, event by event. Source: `openai.types.responses.ResponseStreamEvent`."""

from __future__ import annotations

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
from onehop.agent.upstreams.chat_errors import of_document
from onehop.errors import UpstreamError

ENDS = ("response.completed", "response.incomplete")
REASONING = (
    "response.reasoning_summary_text.delta",
    "response.reasoning_text.delta",
    "response.reasoning.delta",
)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ResponsesReader:
    """See `Reader`."""

    def __init__(self) -> None:
        self._ended = False
        self._calls: dict[int, str] = {}
        self._items: dict[int, dict[str, Any]] = {}

    def feed(self, event: str, data: str) -> list[Delta]:
        if data == "[DONE]" or self._ended:
            return []
        try:
            document = _decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(f"the model's server sent an event that is no JSON: {error}") from None
        kind = document.get("type") or event
        try:
            return self._take(str(kind), document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UpstreamError(
                f"the model's server sent a {str(kind)[:80]} that cannot be read: {error!r}"[:300]
            ) from None

    def end(self) -> list[Delta]:
        if not self._ended:
            raise UpstreamError("the model's server broke its answer off")
        return []

    def _take(self, kind: str, event: dict[str, Any]) -> list[Delta]:
        if kind == "response.output_text.delta":
            return [TextDelta(_text(event["delta"]))]
        if kind == "response.function_call_arguments.delta":
            index = _index(event)
            if index not in self._calls:
                raise ValueError("arguments of a call that has not begun")
            return [CallDelta(index, _text(event["delta"]))]
        if kind in REASONING:
            return [ReasoningDelta(_text(event["delta"]))]
        if kind == "response.refusal.delta":
            return [RefusalDelta(_text(event["delta"]))]
        if kind == "response.output_item.added":
            item = event["item"]
            if item["type"] == "function_call":
                index = _index(event)
                self._calls[index] = name = _text(item.get("call_id") or item.get("id") or "")
                return [CallStart(index, name, _text(item["name"]))]
        elif kind == "response.output_item.done":
            self._items[_index(event)] = event["item"]
        elif kind in ENDS:
            self._ended = True
            return [self._end(event["response"])]
        elif kind in ("response.failed", "error"):
            raise _failure(event)
        return []

    def _end(self, response: dict[str, Any]) -> TurnEnd:
        items = response.get("output") or [self._items[index] for index in sorted(self._items)]
        parts: list[Part] = []
        for item in items:
            parts += _parts(item)
        why = (response.get("incomplete_details") or {}).get("reason") or ""
        stop: Stop = "end"
        if any(isinstance(part, CallPart) for part in parts):
            stop = "calls"
        if why == "content_filter" or any(
            isinstance(part, TextPart) and part.extra.get("refusal") for part in parts
        ):
            stop = "refusal"
        elif response.get("status") == "incomplete":
            stop = "length"
        return TurnEnd(
            message=Message("assistant", parts),
            stop=stop,
            tokens=_tokens(response.get("usage") or {}),
            raw_stop=why or str(response.get("status") or ""),
            model=str(response.get("model") or ""),
            id=str(response.get("id") or ""),
        )


def _parts(item: dict[str, Any]) -> list[Part]:
    kind = item["type"]
    if kind == "message":
        found: list[Part] = []
        for one in item["content"]:
            if one["type"] == "refusal":
                found.append(TextPart(_text(one["refusal"]), {"refusal": True}))
            else:
                notes = one.get("annotations")
                found.append(TextPart(_text(one["text"]), {"annotations": notes} if notes else {}))
        return found
    if kind == "function_call":
        name = _text(item.get("call_id") or item.get("id") or "")
        return [CallPart(id=name, name=_text(item["name"]), arguments=_text(item["arguments"]))]
    if kind == "reasoning":
        pieces = [*(item.get("summary") or []), *(item.get("content") or [])]
        text = "\n\n".join(str(one.get("text") or "") for one in pieces)
        return [ReasoningPart(text=text, dialect="responses", raw=item)]
    return [RawPart(dialect="responses", raw=item)]


def _tokens(usage: dict[str, Any]) -> Tokens:
    return Tokens(
        input=int(usage.get("input_tokens") or 0),
        output=int(usage.get("output_tokens") or 0),
        cached=int((usage.get("input_tokens_details") or {}).get("cached_tokens") or 0),
        reasoning=int((usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0),
    )


def _failure(event: dict[str, Any]) -> Exception:
    error = (event.get("response") or {}).get("error") or event.get("error") or event
    known = of_document(200, {"error": error})
    if known is not None:
        return known
    message = str(error.get("message") or "no reason given")[:500]
    return UpstreamError(f"the model's server failed: {message}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a text was expected, not {type(value).__name__}")
    return value


def _index(event: dict[str, Any]) -> int:
    value = event["output_index"]
    if not isinstance(value, int):
        raise ValueError("output_index is no number")
    return value
