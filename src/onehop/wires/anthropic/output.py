"""The loop's events as a message grows: its blocks, one after the other, and what a stream says of them.

Source: `anthropic.types.beta` (BetaMessage, BetaRawMessageStreamEvent). A stream has one block open at a time; what
comes for later ones waits until it is their turn.
"""

from __future__ import annotations

import json
from typing import Any

from onehop.agent import events
from onehop.agent.containers import public
from onehop.agent.events import Kind, LoopEnd, LoopEvent
from onehop.agent.files import OUTPUT_FILE, file_id
from onehop.agent.model import (
    CallPart,
    RawPart,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    TextDelta,
    TurnEnd,
)
from onehop.api.asgi import encode_json
from onehop.errors import ProblemError
from onehop.wires import extras
from onehop.wires.anthropic import errors
from onehop.wires.anthropic.request import OURS, SERVER_TOOLS, USE
from onehop.wires.process import outcome

CONTAINER = "container"
NAMES: dict[Kind, str] = {kind: name for name, kind in SERVER_TOOLS.items()}
MEMBERS: dict[Kind, str] = {"python": "code", "bash": "command"}
STOPS = {
    "answer": "end_turn",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "foreign_calls": "tool_use",
    "suspended": "tool_use",
    "pause": "pause_turn",
    "max_turns": "pause_turn",
    "max_time": "pause_turn",
    "max_tool_calls": "pause_turn",
}
"""By LoopEnd.reason; a loop that goes in circles, or costs too much, has ended its turn. `usage.onehop` says more."""
CALLERS = {
    "code_execution_20250522": "code_execution_20250825",
    "code_execution_20260521": "code_execution_20260120",
}
"""Versions of the tool that have no caller of their own name."""

Event = dict[str, Any]


class _Block:
    """One, as far as it has been told."""

    def __init__(self, block: dict[str, Any]) -> None:
        self.block = block
        self.start = dict(block)
        self.waiting: list[dict[str, Any]] = []
        self.started = False
        self.closed = False


class Output:
    """One message.

    Args:
        name: its id.
        version: of the code execution tool.
        programmatic: code may call the client's functions, so every call says who makes it.
    """

    def __init__(self, name: str, model: str, version: str, *, programmatic: bool) -> None:
        self.end: LoopEnd | None = None
        self.pictures: dict[str, list[str]] = {}
        """Ids of pictures that code has shown, by its call."""
        self._name = name
        self._model = model
        self._caller = CALLERS.get(version, version)
        self._programmatic = programmatic
        self._blocks: list[_Block] = []
        self._at = 0
        self._text: _Block | None = None
        self._thought: _Block | None = None
        self._calls: dict[str, _Block] = {}
        self._session = ""

    # --- the message --------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        end = self.end
        return {
            "id": self._name,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [one.block for one in self._blocks],
            "stop_reason": None if end is None else self._stop(end),
            "stop_sequence": (end.last.stopped_by or None)
            if end is not None and end.last is not None
            else None,
            "container": _container(end),
            "usage": usage(end),
        }

    def begin(self) -> list[Event]:
        return [{"type": "message_start", "message": self.document()}]

    def _stop(self, end: LoopEnd) -> str:
        if end.reason == "answer" and end.last is not None and end.last.stopped_by:
            return "stop_sequence"
        return STOPS.get(end.reason, "end_turn")

    def failed(self, error: ProblemError) -> list[Event]:
        return [errors.document(error)]

    # --- events -------------------------------------------------------------------------------------

    def take(self, event: LoopEvent) -> list[Event]:
        """What a stream tells of it."""
        if isinstance(event, TextDelta | RefusalDelta):
            self._say(event.text)
        elif isinstance(event, ReasoningDelta):
            self._think(event.text)
        elif isinstance(event, events.ContainerOpened):
            self._session = event.container.session
        elif isinstance(event, events.CodeStarted):
            self._close()
            self._code_started(event)
        elif isinstance(event, events.CodeDelta):
            block = self._calls[event.call]
            text = encode_json(event.text)[1:-1].decode()
            self._json(block, text)
        elif isinstance(event, events.CodeWritten):
            self._code_written(event)
        elif isinstance(event, events.CodeEnded):
            self._add(self._result(event)).closed = True
        elif isinstance(event, events.ForeignStarted):
            self._close()
            self._call_started(event.id, event.name, None)
        elif isinstance(event, events.ForeignDelta):
            self._json(self._calls[event.id], event.text)
        elif isinstance(event, events.ForeignCall):
            self._call_ended(event.part, None)
        elif isinstance(event, events.CodeCalls):
            for part in event.calls:
                self._call_ended(part, USE + event.call.removeprefix(OURS))
        elif isinstance(event, TurnEnd):
            self._turned(event)
        elif isinstance(event, LoopEnd):
            return self._ended(event)
        return self._tell()

    def _ended(self, end: LoopEnd) -> list[Event]:
        if not self._blocks and end.detail:
            self._say(end.detail)
        self._close()
        for block in self._blocks:
            block.closed = True
        told = self._tell()
        self.end = end
        document = self.document()
        delta = {name: document[name] for name in ("stop_reason", "stop_sequence", "container")}
        return [
            *told,
            {"type": "message_delta", "delta": delta, "usage": document["usage"]},
            {"type": "message_stop"},
        ]

    def _turned(self, turn: TurnEnd) -> None:
        if self._thought is not None:
            raw = [
                part.raw
                for part in turn.message.parts
                if isinstance(part, ReasoningPart) and part.dialect == "messages"
            ]
            signature = str(raw[-1].get("signature") or "") if raw else ""
            self._thought.block["signature"] = signature
            self._thought.waiting.append({"type": "signature_delta", "signature": signature})
        self._close()
        for part in turn.message.parts:
            if isinstance(part, RawPart) and part.dialect == "messages":
                self._add(dict(part.raw)).closed = True

    # --- blocks -------------------------------------------------------------------------------------

    def _add(self, block: dict[str, Any]) -> _Block:
        added = _Block(block)
        self._blocks.append(added)
        return added

    def _tell(self) -> list[Event]:
        """Blocks in their order, as far as they have come."""
        told: list[Event] = []
        while self._at < len(self._blocks):
            one = self._blocks[self._at]
            if not one.started:
                one.started = True
                told.append({"type": "content_block_start", "index": self._at, "content_block": one.start})
            told += [
                {"type": "content_block_delta", "index": self._at, "delta": delta} for delta in one.waiting
            ]
            one.waiting.clear()
            if not one.closed:
                break
            told.append({"type": "content_block_stop", "index": self._at})
            self._at += 1
        return told

    def _close(self) -> None:
        """Text and thoughts end where something else begins."""
        for block in (self._text, self._thought):
            if block is not None:
                block.closed = True
        self._text = self._thought = None

    def _say(self, text: str) -> None:
        if self._text is None:
            self._close()
            self._text = self._add({"type": "text", "text": "", "citations": None})
        self._text.block["text"] += text
        self._text.waiting.append({"type": "text_delta", "text": text})

    def _think(self, text: str) -> None:
        if self._thought is None:
            self._close()
            self._thought = self._add({"type": "thinking", "thinking": "", "signature": ""})
        self._thought.block["thinking"] += text
        self._thought.waiting.append({"type": "thinking_delta", "thinking": text})

    def _json(self, block: _Block, text: str) -> None:
        block.waiting.append({"type": "input_json_delta", "partial_json": text})

    # --- code ---------------------------------------------------------------------------------------

    def _code_started(self, event: events.CodeStarted) -> None:
        name = USE + event.call.removeprefix(OURS)
        block = self._calls[event.call] = self._add(
            {"type": "server_tool_use", "id": name, "name": NAMES[event.kind], "input": {}}
        )
        if event.kind in MEMBERS:
            self._json(block, f'{{"{MEMBERS[event.kind]}": "')

    def _code_written(self, event: events.CodeWritten) -> None:
        block = self._calls[event.call]
        member = MEMBERS.get(event.kind)
        if member is None:
            block.block["input"] = event.arguments
            self._json(block, encode_json(event.arguments).decode())
        else:
            block.block["input"] = {member: event.code}
            self._json(block, '"}')
        block.closed = True

    def _result(self, event: events.CodeEnded) -> dict[str, Any]:
        name = NAMES[event.kind]
        return {
            "type": f"{name}_tool_result",
            "tool_use_id": USE + event.call.removeprefix(OURS),
            "content": self._content(event, name),
        }

    def _content(self, event: events.CodeEnded, name: str) -> dict[str, Any]:
        answer = event.answer
        if event.kind == "editor" and event.output.get("type"):
            return _edited(event.output)
        if answer is None or answer.status == "timeout":
            code = "invalid_tool_input" if answer is None else "execution_time_exceeded"
            error = {"type": f"{name}_tool_result_error", "error_code": event.output.get("error") or code}
            if event.kind == "editor":
                error["error_message"] = event.output.get("message")
            return error
        done = outcome(answer)
        made = [file_id(self._session, one.path, OUTPUT_FILE) for one in answer.files]
        made += self.pictures.pop(event.call, [])
        return {
            "type": f"{name}_result",
            "stdout": done.stdout,
            "stderr": done.stderr,
            "return_code": done.return_code,
            "content": [{"type": f"{name}_output", "file_id": one} for one in made],
        }

    # --- calls of the client's functions ------------------------------------------------------------

    def _call_started(self, name: str, function: str, code: str | None) -> _Block:
        block: dict[str, Any] = {"type": "tool_use", "id": name, "name": function, "input": {}}
        if code is not None:
            block["caller"] = {"type": self._caller, "tool_id": code}
        elif self._programmatic:
            block["caller"] = {"type": "direct"}
        added = self._calls[name] = self._add(block)
        return added

    def _call_ended(self, part: CallPart, code: str | None) -> None:
        block = self._calls.get(part.id)
        if block is None:
            block = self._call_started(part.id, part.name, code)
            self._json(block, part.arguments)
        block.block["input"] = _object(part.arguments)
        block.closed = True


def _edited(output: dict[str, Any]) -> dict[str, Any]:
    """An edit's outcome; see agent/editor.py."""
    prefix, kind = "text_editor_code_execution", output["type"]
    if kind == "Created":
        return {"type": f"{prefix}_create_result", "is_file_update": output["replaced"]}
    if kind == "Changed":
        names = ("old_start", "old_lines", "new_start", "new_lines", "lines")
        return {"type": f"{prefix}_str_replace_result", **{name: output[name] for name in names}}
    text = output["kind"] in ("text", "folder")
    return {
        "type": f"{prefix}_view_result",
        "file_type": "text" if text else output["kind"],
        "content": output["text"],
        "num_lines": output["lines"] if text else None,
        "start_line": output["first_line"] if text else None,
        "total_lines": output["total_lines"] if text else None,
    }


def usage(end: LoopEnd | None) -> dict[str, Any]:
    """Tokens of all turns; source: `anthropic.types.beta.BetaUsage`. Input does not count what a cache has given."""
    found: dict[str, Any] = {
        "input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    if end is not None:
        tokens = end.tokens
        found = {
            "input_tokens": tokens.input - tokens.cached - tokens.cache_written,
            "cache_creation_input_tokens": tokens.cache_written,
            "cache_read_input_tokens": tokens.cached,
            "output_tokens": tokens.output,
            "server_tool_use": {
                "web_search_requests": 0,
                "web_fetch_requests": 0,
                "code_execution_requests": end.report.executions,
            },
            "onehop": extras.report(end),
        }
    return found


def _container(end: LoopEnd | None) -> dict[str, Any] | None:
    if end is None or end.container is None:
        return None
    return {"id": public(end.container.session, CONTAINER), "expires_at": end.container.expires_at}


def _object(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments or "{}", strict=False)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
