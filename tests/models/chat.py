"""Scripted turns as a server of Chat Completions streams them.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import json
from typing import Any

from tests.models.script import Call, Request, Turn, pieces

STOPS = {"end": "stop", "calls": "tool_calls", "length": "length", "refusal": "stop"}


class Renderer:
    def __init__(self, request: Request, turn: Turn) -> None:
        self._turn = turn
        self._number = request.number
        self._model = (request.body or {}).get("model", "")
        options = (request.body or {}).get("stream_options") or {}
        self._usage = bool(options.get("include_usage"))
        self._calls = 0

    def begin(self) -> list[bytes]:
        return [self._delta({"role": "assistant", "content": ""})]

    def text(self, piece: str) -> list[bytes]:
        return [self._delta({"content": piece})]

    def reasoning(self, piece: str) -> list[bytes]:
        return [self._delta({"reasoning_content": piece})]

    def refusal(self, text: str) -> list[bytes]:
        return [self._delta({"refusal": text})]

    def calls(self, calls: list[Call]) -> list[bytes]:
        """In parallel: the pieces of all take turns."""
        first, writes = self._calls, []
        self._calls += len(calls)
        columns = []
        for index, call in enumerate(calls, first):
            name = call.id or f"call_{self._number}_{index}"
            function = {"name": call.name, "arguments": ""}
            start = {"index": index, "id": name, "type": "function", "function": function}
            writes.append(self._delta({"tool_calls": [start]}))
            columns.append([(index, piece) for piece in pieces(call.written, call.pieces or 4)])
        for row in range(max(map(len, columns), default=0)):
            for index, piece in (column[row] for column in columns if row < len(column)):
                writes.append(
                    self._delta({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
                )
        return writes

    def end(self) -> list[bytes]:
        writes = [self._event([{"index": 0, "delta": {}, "finish_reason": STOPS[self._turn.stopped]}])]
        if self._usage:
            turn = self._turn
            usage = {
                "prompt_tokens": turn.input_tokens,
                "completion_tokens": turn.output_tokens,
                "total_tokens": turn.input_tokens + turn.output_tokens,
                "prompt_tokens_details": {"cached_tokens": turn.cached_tokens},
                "completion_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
            }
            writes.append(self._event([], usage))
        return [*writes, b"data: [DONE]\n\n"]

    def error(self, status: int, message: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": "scripted", "code": None}}).encode()

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._event([{"index": 0, "delta": delta, "finish_reason": None}])

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        document = {
            "id": f"chatcmpl-{self._number}",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": self._model,
            "choices": choices,
            "usage": usage,
        }
        return b"data: " + json.dumps(document).encode() + b"\n\n"
