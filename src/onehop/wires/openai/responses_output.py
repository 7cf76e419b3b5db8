"""The loop's events as a response grows: its items, and what a stream says of them.

Source: `openai.types.responses` (Response, ResponseStreamEvent). Items are built once and told in both ways.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from onehop.agent import events
from onehop.agent.containers import public
from onehop.agent.events import LoopEnd, LoopEvent
from onehop.agent.files import file_id
from onehop.agent.model import (
    CallPart,
    RawPart,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    TextDelta,
    TurnEnd,
)
from onehop.errors import ProblemError
from onehop.wires import extras
from onehop.wires.openai import errors
from onehop.wires.openai.responses_request import ResponsesRequest

CONTAINER = "cntr"
MAX_CITED = 50
INCOMPLETE = {"length": "max_output_tokens", "max_tokens": "max_output_tokens"}
"""By LoopEnd.reason; our other limits and guards are named as they are."""
COMPLETE = ("answer", "foreign_calls", "suspended", "refusal", "pause")

Event = dict[str, Any]


class Output:
    """One response.

    Args:
        name: its id.
    """

    def __init__(self, name: str, request: ResponsesRequest) -> None:
        self.name = name
        self.end: LoopEnd | None = None
        self.calls: list[CallPart] = []
        """The client's, as it sees them."""
        self._request = request
        self._created_at = self._completed_at = int(time.time())
        self._items: list[dict[str, Any]] = []
        self._sequence = 0
        self._message: dict[str, Any] | None = None
        """The one that is being written, and so for reasoning."""
        self._thought: dict[str, Any] | None = None
        self._places: dict[str, int] = {}
        """Of calls, by the loop's name of them."""
        self._foreign: dict[str, int] = {}
        self._container = ""
        self._session = ""
        self._files: list[str] = []

    # --- events -------------------------------------------------------------------------------------

    def begin(self) -> list[Event]:
        return [
            self._event("response.created", response=self.document()),
            self._event("response.in_progress", response=self.document()),
        ]

    def take(self, event: LoopEvent) -> list[Event]:
        """What a stream tells of it."""
        if isinstance(event, TextDelta):
            return [*self._close_thought(), *self._text(event.text, "output_text")]
        if isinstance(event, RefusalDelta):
            return [*self._close_thought(), *self._text(event.text, "refusal")]
        if isinstance(event, ReasoningDelta):
            return self._think(event.text)
        if isinstance(event, events.ContainerOpened):
            self._session = event.container.session
            self._container = public(self._session, CONTAINER)
        elif isinstance(event, events.CodeStarted):
            return [*self._close(), *self._code_started(event)]
        elif isinstance(event, events.CodeDelta):
            return [self._of(event.call, "response.code_interpreter_call_code.delta", delta=event.text)]
        elif isinstance(event, events.CodeWritten):
            self._items[self._places[event.call]]["code"] = event.code
            return [self._of(event.call, "response.code_interpreter_call_code.done", code=event.code)]
        elif isinstance(event, events.CodeRunning):
            if event.call not in self._places:  # it began in an earlier request
                started = self._code_started(events.CodeStarted(event.call, "python"))
                return [*started, self._interpreting(event.call)]
            return [self._interpreting(event.call)]
        elif isinstance(event, events.CodeOutput):
            self._log(event.call, event.text)
        elif isinstance(event, events.CodeShown):
            self._shown(event.call, event.data)
        elif isinstance(event, events.CodeEnded):
            return self._code_ended(event)
        elif isinstance(event, events.ForeignStarted):
            return [*self._close(), *self._call_started(event.id, event.name)]
        elif isinstance(event, events.ForeignDelta):
            place = self._foreign[event.id]
            self._items[place]["arguments"] += event.text
            return [self._at(place, "response.function_call_arguments.delta", delta=event.text)]
        elif isinstance(event, events.ForeignCall):
            return self._call_ended(event.part)
        elif isinstance(event, events.CodeCalls):
            return [one for part in event.calls for one in self._call_ended(part)]
        elif isinstance(event, TurnEnd):
            return self._turned(event)
        elif isinstance(event, LoopEnd):
            self.end, self._completed_at = event, int(time.time())
            return []
        return []

    def told(self, event: LoopEvent) -> list[Event]:
        """As `take`, but the loop's end, which was taken before the response was kept, ends the stream."""
        if event is not self.end:
            return self.take(event)
        assert self.end is not None
        kind = "response.completed" if self.end.reason in COMPLETE else "response.incomplete"
        return [self._event(kind, response=self.document())]

    def failed(self, error: ProblemError) -> list[Event]:
        about = errors.document(error)
        document = self.document() | {
            "status": "failed",
            "error": {"code": about["code"], "message": about["message"]},
        }
        return [self._event("response.failed", response=document)]

    # --- the response -------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """As it is now."""
        end = self.end
        document: dict[str, Any] = {
            "id": self.name,
            "object": "response",
            "created_at": self._created_at,
            "completed_at": None,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            **self._request.echo,
            "model": self._request.model.model,
            "output": self._items,
            "usage": None,
        }
        if end is not None:
            complete = end.reason in COMPLETE
            document["status"] = "completed" if complete else "incomplete"
            if complete:
                document["completed_at"] = self._completed_at
            if not complete:
                document["incomplete_details"] = {"reason": INCOMPLETE.get(end.reason, end.reason)}
            document["usage"] = usage(end)
        return document

    def _turned(self, turn: TurnEnd) -> list[Event]:
        """Closes what the turn has left open; what came without deltas is told now."""
        told: list[Event] = []
        raw = [
            part.raw
            for part in turn.message.parts
            if isinstance(part, ReasoningPart) and part.dialect == "responses"
        ]
        told += self._close(raw)
        for part in turn.message.parts:
            if isinstance(part, RawPart) and part.dialect == "responses":
                place = self._add(dict(part.raw))
                told += [
                    self._item("response.output_item.added", place),
                    self._item("response.output_item.done", place),
                ]
        return told

    # --- messages and reasoning ---------------------------------------------------------------------

    def _text(self, text: str, kind: str) -> list[Event]:
        told: list[Event] = []
        member = "refusal" if kind == "refusal" else "text"
        if self._message is not None and self._message["content"][0]["type"] != kind:
            told += self._close()
        if self._message is None:
            content: dict[str, Any] = {"type": kind, member: ""}
            if kind == "output_text":
                content |= {"annotations": [], "logprobs": []}
            self._message = {
                "type": "message",
                "id": _name("msg"),
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            place = self._add(self._message)
            told.append(self._item("response.output_item.added", place))
            self._message["content"] = [content]
            told.append(self._at(place, "response.content_part.added", content_index=0, part=dict(content)))
        content = self._message["content"][0]
        content[member] += text
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        place = self._items.index(self._message)
        return [*told, self._at(place, f"response.{kind}.delta", content_index=0, delta=text, **more)]

    def _close(self, raw: list[dict[str, Any]] | None = None) -> list[Event]:
        told = self._close_thought(raw)
        message, self._message = self._message, None
        if message is None:
            return told
        place = self._items.index(message)
        content = message["content"][0]
        if content["type"] == "refusal":
            told.append(self._at(place, "response.refusal.done", content_index=0, refusal=content["refusal"]))
        else:
            text = content["text"]
            told.append(self._at(place, "response.output_text.done", content_index=0, text=text, logprobs=[]))
            for number, note in enumerate(self._cited(text)):
                content["annotations"].append(note)
                kind = "response.output_text.annotation.added"
                told.append(self._at(place, kind, content_index=0, annotation_index=number, annotation=note))
        told.append(self._at(place, "response.content_part.done", content_index=0, part=content))
        message["status"] = "completed"
        return [*told, self._item("response.output_item.done", place)]

    def _cited(self, text: str) -> list[dict[str, Any]]:
        """Files that code has made since the last message; where the text names one, there."""
        notes = []
        for path in self._files[:MAX_CITED]:
            name = path.rpartition("/")[2]
            start = text.find(name)
            notes.append(
                {
                    "type": "container_file_citation",
                    "container_id": self._container,
                    "file_id": file_id(self._session, path),
                    "filename": name,
                    "start_index": max(start, 0) if start >= 0 else len(text),
                    "end_index": start + len(name) if start >= 0 else len(text),
                }
            )
        self._files = []
        return notes

    def _think(self, text: str) -> list[Event]:
        told: list[Event] = []
        if self._thought is None:
            self._thought = {"type": "reasoning", "id": _name("rs"), "summary": []}
            place = self._add(self._thought)
            told.append(self._item("response.output_item.added", place))
            part = {"type": "summary_text", "text": ""}
            self._thought["summary"] = [part]
            kind = "response.reasoning_summary_part.added"
            told.append(self._at(place, kind, summary_index=0, part=dict(part)))
        self._thought["summary"][0]["text"] += text
        place = self._items.index(self._thought)
        return [*told, self._at(place, "response.reasoning_summary_text.delta", summary_index=0, delta=text)]

    def _close_thought(self, raw: list[dict[str, Any]] | None = None) -> list[Event]:
        thought, self._thought = self._thought, None
        if thought is None:
            return []
        place = self._items.index(thought)
        part = thought["summary"][0]
        told = [
            self._at(place, "response.reasoning_summary_text.done", summary_index=0, text=part["text"]),
            self._at(place, "response.reasoning_summary_part.done", summary_index=0, part=part),
        ]
        sealed = next(
            (one.get("encrypted_content") for one in raw or [] if one.get("encrypted_content")), None
        )
        if sealed:
            thought["encrypted_content"] = sealed
        return [*told, self._item("response.output_item.done", place)]

    # --- code ---------------------------------------------------------------------------------------

    def _code_started(self, event: events.CodeStarted) -> list[Event]:
        place = self._places[event.call] = self._add(
            {
                "type": "code_interpreter_call",
                "id": "ci_" + event.call.removeprefix("code_"),
                "status": "in_progress",
                "code": "",
                "container_id": self._container,
                "outputs": [] if self._request.outputs else None,
            }
        )
        return [
            self._item("response.output_item.added", place),
            self._at(place, "response.code_interpreter_call.in_progress"),
        ]

    def _interpreting(self, call: str) -> Event:
        item = self._items[self._places[call]]
        item["status"] = "interpreting"
        item["container_id"] = self._container
        return self._of(call, "response.code_interpreter_call.interpreting")

    def _log(self, call: str, text: str) -> None:
        outputs = self._items[self._places[call]]["outputs"]
        if outputs is None:
            return
        if outputs and outputs[-1]["type"] == "logs":
            outputs[-1]["logs"] += text
        else:
            outputs.append({"type": "logs", "logs": text})

    def _shown(self, call: str, data: dict[str, str]) -> None:
        outputs = self._items[self._places[call]]["outputs"]
        if outputs is None:
            return
        mime = next((mime for mime in ("image/png", "image/jpeg") if mime in data), None)
        if mime is not None:
            outputs.append({"type": "image", "url": f"data:{mime};base64,{data[mime]}"})
        elif text := data.get("text/plain"):
            self._log(call, text + "\n")

    def _code_ended(self, event: events.CodeEnded) -> list[Event]:
        place = self._places[event.call]
        item = self._items[place]
        item["status"] = "completed" if event.answer is not None else "failed"
        if event.answer is not None:
            self._files += [one.path for one in event.answer.files if one.path not in self._files]
            if event.answer.error is not None:
                self._log(event.call, event.answer.error.traceback + "\n")
        return [
            self._at(place, "response.code_interpreter_call.completed"),
            self._item("response.output_item.done", place),
        ]

    # --- calls of the client's functions ------------------------------------------------------------

    def _call_started(self, name: str, function: str) -> list[Event]:
        place = self._foreign[name] = self._add(
            {
                "type": "function_call",
                "id": _name("fc"),
                "status": "in_progress",
                "call_id": name,
                "name": function,
                "arguments": "",
            }
        )
        return [self._item("response.output_item.added", place)]

    def _call_ended(self, part: CallPart) -> list[Event]:
        told: list[Event] = []
        if part.id not in self._foreign:
            told += self._call_started(part.id, part.name)
            place = self._foreign[part.id]
            told.append(self._at(place, "response.function_call_arguments.delta", delta=part.arguments))
        self.calls.append(part)
        place = self._foreign[part.id]
        item = self._items[place]
        item |= {"arguments": part.arguments, "status": "completed"}
        kind = "response.function_call_arguments.done"
        return [
            *told,
            self._at(place, kind, name=part.name, arguments=part.arguments),
            self._item("response.output_item.done", place),
        ]

    # --- events' own members ------------------------------------------------------------------------

    def _add(self, item: dict[str, Any]) -> int:
        self._items.append(item)
        return len(self._items) - 1

    def _of(self, call: str, kind: str, **members: Any) -> Event:
        return self._at(self._places[call], kind, **members)

    def _at(self, place: int, kind: str, **members: Any) -> Event:
        return self._event(kind, output_index=place, item_id=self._items[place].get("id", ""), **members)

    def _item(self, kind: str, place: int) -> Event:
        return self._event(kind, output_index=place, item=dict(self._items[place]))

    def _event(self, kind: str, **members: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return event


def usage(end: LoopEnd) -> dict[str, Any]:
    """Tokens of all turns; source: `openai.types.responses.ResponseUsage`."""
    tokens = end.tokens
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.cache_written},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
        "onehop": extras.report(end),
    }


def _name(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(20)}"
