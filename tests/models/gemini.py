"""Scripted turns as Google's streamGenerateContent?alt=sse streams them.

Source: https://ai.google.dev/api/generate-content. Calls come whole, each turn's first one with a signature.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.models.script import Call, Request, Turn

STOPS = {"end": "STOP", "calls": "STOP", "length": "MAX_TOKENS", "refusal": "SAFETY"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Renderer:
    def __init__(self, request: Request, turn: Turn) -> None:
        self._turn = turn
        self._number = request.number
        self._model = request.path.partition("/models/")[2].partition(":")[0]
        self._malformed = False

    @property
    def signature(self) -> str:
        return base64.b64encode(f"signature {self._number}".encode()).decode()

    def begin(self) -> list[bytes]:
        return []

    def text(self, piece: str) -> list[bytes]:
        return [self._parts([{"text": piece}])]

    def reasoning(self, piece: str) -> list[bytes]:
        return [self._parts([{"text": piece, "thought": True}])]

    def refusal(self, text: str) -> list[bytes]:
        return []  # the reason at the end says it

    def calls(self, calls: list[Call]) -> list[bytes]:
        parts: list[dict[str, Any]] = []
        for call in calls:
            try:
                arguments = json.loads(call.written)
            except ValueError:
                arguments = None
            if not isinstance(arguments, dict):  # Google's server reads them itself
                self._malformed = True
                continue
            function = {"name": call.name, "args": arguments, **({"id": call.id} if call.id else {})}
            parts.append({"functionCall": function})
        if parts:
            parts[0]["thoughtSignature"] = self.signature
        return [self._parts(parts)] if parts else []

    def end(self) -> list[bytes]:
        reason = "MALFORMED_FUNCTION_CALL" if self._malformed else STOPS[self._turn.stopped]
        candidate: dict[str, Any] = {
            "content": {"parts": [{"text": ""}], "role": "model"},
            "finishReason": reason,
            "index": 0,
        }
        if reason == "SAFETY":
            rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
            candidate["safetyRatings"] = [rating]
        return [self._event([candidate])]

    def error(self, status: int, message: str) -> bytes:
        error = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}
        return json.dumps({"error": error}).encode()

    def _parts(self, parts: list[dict[str, Any]]) -> bytes:
        return self._event([{"content": {"parts": parts, "role": "model"}, "index": 0}])

    def _event(self, candidates: list[dict[str, Any]]) -> bytes:
        turn = self._turn
        usage = {
            "promptTokenCount": turn.input_tokens,
            "candidatesTokenCount": turn.output_tokens - turn.reasoning_tokens,
            "totalTokenCount": turn.input_tokens + turn.output_tokens,
        }
        if turn.reasoning_tokens:
            usage["thoughtsTokenCount"] = turn.reasoning_tokens
        if turn.cached_tokens:
            usage["cachedContentTokenCount"] = turn.cached_tokens
        document = {
            "candidates": candidates,
            "usageMetadata": usage,
            "modelVersion": self._model,
            "responseId": f"response-{self._number}",
        }
        return b"data: " + json.dumps(document).encode() + b"\r\n\r\n"
