"""Scripted turns as a server of Responses streams them.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

import json
from typing import Any

from tests.models.script import Call, Request, Turn, pieces


class Renderer:
    def __init__(self, request: Request, turn: Turn) -> None:
        self._turn = turn
        self._number = request.number
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: tuple[int, str, list[str]] | None = None
        """The item that is being written: its index, its kind, its pieces."""
        self._response: dict[str, Any] = {
            "id": f"resp_{self._number}",
            "object": "response",
            "created_at": 1_700_000_000,
            "model": (request.body or {}).get("model", ""),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }

    def begin(self) -> list[bytes]:
        return [self._event("response.created", response=self._response)]

    def text(self, piece: str) -> list[bytes]:
        return [*self._into("message"), *self._piece("response.output_text.delta", piece)]

    def reasoning(self, piece: str) -> list[bytes]:
        return [*self._into("reasoning"), *self._piece("response.reasoning_summary_text.delta", piece)]

    def refusal(self, text: str) -> list[bytes]:
        return [*self._into("refusal"), *self._piece("response.refusal.delta", text)]

    def calls(self, calls: list[Call]) -> list[bytes]:
        writes = self._close()
        for call in calls:
            index = len(self._output)
            item = {
                "type": "function_call",
                "id": f"fc_{self._number}_{index}",
                "call_id": call.id or f"call_{self._number}_{index}",
                "name": call.name,
                "arguments": "",
                "status": "in_progress",
            }
            self._output.append(item)
            writes.append(self._event("response.output_item.added", output_index=index, item=item))
            for piece in pieces(call.written, call.pieces or 4):
                writes.append(
                    self._event(
                        "response.function_call_arguments.delta",
                        output_index=index,
                        item_id=item["id"],
                        delta=piece,
                    )
                )
            item = self._output[index] = {**item, "arguments": call.written, "status": "completed"}
            writes.append(self._event("response.output_item.done", output_index=index, item=item))
        return writes

    def end(self) -> list[bytes]:
        writes = self._close()
        turn = self._turn
        kind, response = "response.completed", dict(self._response, status="completed", output=self._output)
        if turn.stopped == "length":
            kind = "response.incomplete"
            response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        response["usage"] = {
            "input_tokens": turn.input_tokens,
            "input_tokens_details": {"cached_tokens": turn.cached_tokens},
            "output_tokens": turn.output_tokens,
            "output_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
            "total_tokens": turn.input_tokens + turn.output_tokens,
        }
        return [*writes, self._event(kind, response=response)]

    def error(self, status: int, message: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": "scripted", "code": None}}).encode()

    # --- items ----------------------------------------------------------------------------------------

    def _into(self, kind: str) -> list[bytes]:
        if self._open is not None and self._open[1] == kind:
            return []
        writes = self._close()
        index = len(self._output)
        self._output.append({})
        self._open = (index, kind, [])
        return [*writes, self._event("response.output_item.added", output_index=index, item=self._item())]

    def _piece(self, kind: str, piece: str) -> list[bytes]:
        assert self._open is not None
        index, _, written = self._open
        written.append(piece)
        return [self._event(kind, output_index=index, content_index=0, item_id=f"i_{index}", delta=piece)]

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        index, _, _ = self._open
        item = self._output[index] = self._item()
        self._open = None
        return [self._event("response.output_item.done", output_index=index, item=item)]

    def _item(self) -> dict[str, Any]:
        assert self._open is not None
        index, kind, written = self._open
        text = "".join(written)
        name = f"i_{self._number}_{index}"
        if kind == "reasoning":
            summary = [{"type": "summary_text", "text": text}]
            return {"type": "reasoning", "id": name, "summary": summary, "encrypted_content": "sealed"}
        content = {"type": "output_text", "text": text, "annotations": []}
        if kind == "refusal":
            content = {"type": "refusal", "refusal": text}
        return {
            "type": "message",
            "id": name,
            "role": "assistant",
            "status": "completed",
            "content": [content],
        }

    def _event(self, kind: str, **members: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return f"event: {kind}\ndata: {json.dumps(document)}\n\n".encode()
