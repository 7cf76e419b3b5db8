"""Scripted turns as a server of Messages streams them.

Source: https://docs.claude.com/en/api/messages-streaming
"""

from __future__ import annotations

import json
from typing import Any

from tests.models.script import Call, Request, Turn, pieces

STOPS = {"end": "end_turn", "calls": "tool_use", "length": "max_tokens", "refusal": "refusal"}


class Renderer:
    def __init__(self, request: Request, turn: Turn) -> None:
        self._turn = turn
        self._number = request.number
        self._model = (request.body or {}).get("model", "")
        self._index = 0
        self._open = ""

    def begin(self) -> list[bytes]:
        turn = self._turn
        usage = {
            "input_tokens": turn.input_tokens - turn.cached_tokens,
            "cache_read_input_tokens": turn.cached_tokens,
            "output_tokens": 1,
        }
        message = {
            "id": f"msg_{self._number}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return [self._event("message_start", message=message), self._event("ping")]

    def text(self, piece: str) -> list[bytes]:
        return self._delta("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": piece})

    def reasoning(self, piece: str) -> list[bytes]:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        return self._delta("thinking", block, {"type": "thinking_delta", "thinking": piece})

    def refusal(self, text: str) -> list[bytes]:
        return self.text(text)

    def calls(self, calls: list[Call]) -> list[bytes]:
        writes = self._close()
        for call in calls:
            name = call.id or f"toolu_{self._number}_{self._index}"
            block = {"type": "tool_use", "id": name, "name": call.name, "input": {}}
            writes.append(self._event("content_block_start", index=self._index, content_block=block))
            for piece in ["", *pieces(call.written, call.pieces or 4)]:
                delta = {"type": "input_json_delta", "partial_json": piece}
                writes.append(self._event("content_block_delta", index=self._index, delta=delta))
            writes.append(self._event("content_block_stop", index=self._index))
            self._index += 1
        return writes

    def end(self) -> list[bytes]:
        delta = {"stop_reason": STOPS[self._turn.stopped], "stop_sequence": None}
        usage = {"output_tokens": self._turn.output_tokens}
        return [
            *self._close(),
            self._event("message_delta", delta=delta, usage=usage),
            self._event("message_stop"),
        ]

    def error(self, status: int, message: str) -> bytes:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
                 429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip
        return json.dumps(
            {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}
        ).encode()

    def _delta(self, kind: str, block: dict[str, Any], delta: dict[str, Any]) -> list[bytes]:
        writes: list[bytes] = []
        if self._open != kind:
            writes += self._close()
            self._open = kind
            writes.append(self._event("content_block_start", index=self._index, content_block=block))
        return [*writes, self._event("content_block_delta", index=self._index, delta=delta)]

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        writes = []
        if self._open == "thinking":
            delta = {"type": "signature_delta", "signature": "sealed"}
            writes.append(self._event("content_block_delta", index=self._index, delta=delta))
        writes.append(self._event("content_block_stop", index=self._index))
        self._open = ""
        self._index += 1
        return writes

    def _event(self, kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()
