"""One execution as the gateway sees it: the supervisor's events in, public events and one answer out.

What a kernel sent is decoded here for the first time. A payload that does not fit its type makes the
execution a `protocol_error`; it must never raise into the connection that carries everybody's events.
"""

from __future__ import annotations

import asyncio
import codecs
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import msgspec

from onehop import protocol
from onehop.crash import reached
from onehop.sessions.answers import (
    Answer,
    EndEvent,
    ErrorInfo,
    FileInfo,
    GapEvent,
    OutputFile,
    ResultEvent,
    Status,
    TextEvent,
    ToolCallInfo,
    Variables,
    end_event,
)
from onehop.sessions.calling import Calls, PublicCallEvent
from onehop.sessions.calls import MAX_LISTED
from onehop.supervisor.messages import End, Event, Usage, decode_end

PublicEvent = tuple[str, TextEvent | ResultEvent | ErrorInfo | EndEvent | GapEvent] | PublicCallEvent
"""What followers get: kind and data. Its number is its place in the log, from 1 on."""

EncodedEvent = tuple[int, str, bytes]
"""Number, kind and data as JSON."""

StoredEvents = list[EncodedEvent]
"""A number left out is a gap."""

encode_json = msgspec.json.Encoder().encode
encode_events = msgspec.msgpack.Encoder().encode
decode_events = msgspec.msgpack.Decoder(StoredEvents).decode

_TextDecoder = codecs.getincrementaldecoder("utf-8")
_NO_USAGE = Usage(wall_ms=-1, cpu_ms=-1, peak_memory_bytes=-1)


def new_id(prefix: str) -> str:
    """A name with 256 random bits: whoever has it may use it.

    In front stand the milliseconds since 1970, so that names made one after the other lie side by side in
    the database's index: a batch of results then writes a few of its pages instead of one each.
    """
    return f"{prefix}_{time.time_ns() // 1_000_000:011x}{secrets.token_urlsafe(32)}"


class Text:
    """One output stream: bytes in, text out; a character may be split over events."""

    __slots__ = ("_decoder", "parts")

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, raw: bytes, *, final: bool = False) -> str:
        if self._decoder is None:
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                self._decoder = _TextDecoder("replace")
                text = self._decoder.decode(raw, final)
        else:
            text = self._decoder.decode(raw, final)
        if text:
            self.parts.append(text)
        return text


COMMAND = "!"
"""In front of a command's id it is the command's place in its session; no context has such a name."""


class Run:
    """An execution from its start until its result is stored.

    Args:
        owner: whose it is.
        key: id of the key that asked for it, empty without one.
        context: where in its session it runs.
        on_violation: called when a payload could not be decoded; the sandbox is not to be trusted further.
    """

    __slots__ = (
        "_broken",
        "_changed",
        "_document",
        "_error",
        "_on_end",
        "_on_violation",
        "_results",
        "_stderr",
        "_stdout",
        "_turn",
        "answer",
        "calls",
        "context",
        "done",
        "end",
        "ended_at",
        "events",
        "id",
        "isolation",
        "key",
        "owner",
        "resumed",
        "sandbox",
        "seen",
        "session",
        "start_known",
        "started_at",
    )

    def __init__(
        self,
        execution: str,
        session: str | None,
        *,
        on_violation: Callable[[Run], None],
        owner: str = "",
        key: str = "",
        context: str = "main",
        sandbox: str = "",
        isolation: dict[str, str] | None = None,
    ) -> None:
        self.id = execution
        self.session = session
        self.owner = owner
        self.key = key
        self.context = context
        self.sandbox = sandbox
        self.isolation = isolation or {}
        self.started_at = time.time()
        self.start_known = True
        """False when it began under an earlier gateway that had no time to write down when."""
        self.ended_at = 0.0
        self.events: list[PublicEvent] = []
        self.seen = 0
        """Number of the supervisor's newest event."""
        self.end: End | None = None
        self.answer: Answer | None = None
        self.done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._stdout = Text()
        self._stderr = Text()
        self._results: list[dict[str, str]] = []
        self._error: ErrorInfo | None = None
        self._broken = ""
        self._changed: asyncio.Future[None] | None = None
        self._document: bytes | None = None
        self.resumed = False
        """Taken over from a gateway that is gone; its end may be on its way already."""
        self._on_end: Callable[[Run], None] | None = None
        self._on_violation = on_violation
        self.calls: Calls | None = None
        """Of tools, where it has any."""
        self._turn: asyncio.Future[None] | None = None

    def when_ended(self, action: Callable[[Run], None]) -> None:
        """`action` is called once, when the terminal event has come (or now); it must lead to `complete`."""
        self._on_end = action
        if self.end is not None:
            action(self)

    # --- events in ----------------------------------------------------------------------------------

    def take(self, event: Event | None) -> None:
        """The listener for SupervisorClient."""
        if self.end is not None:
            return
        if event is None:
            self._finish(
                End(
                    "outcome_unknown",
                    _NO_USAGE,
                    "the engine was lost while it ran",
                    variables="lost",
                    session="ended",
                )
            )
            return
        self.seen = event.number
        if event.number == 1:
            reached("first-event")
        kind = event.kind
        if kind == "end":
            self._take_end(event.payload)
            return
        if self._broken:
            return
        try:
            if kind == "stdout":
                self._add(kind, TextEvent(self._stdout.feed(event.payload)))
            elif kind == "stderr":
                self._add(kind, TextEvent(self._stderr.feed(event.payload)))
            elif kind == "result":
                self._take_result(protocol.decode_result(event.payload))
            elif kind == "failure":
                self._take_failure(protocol.decode_failure(event.payload))
            else:
                self._take_call(kind, event.payload)
        except ValueError as error:  # msgspec's DecodeError and ValidationError, and UnicodeDecodeError
            self._broken = f"the kernel sent a {kind} that cannot be read: {error}"
            self._on_violation(self)
        if self.calls is not None and event.number == self.calls.held_until:
            self.calls.go_on()

    def _take_call(self, kind: str, payload: bytes) -> None:
        calls = self.calls
        if calls is None:
            raise ValueError("it has no tools")
        if kind == "call":
            self._add(*calls.called(payload))
        elif kind == "return":
            self._add(*calls.returned(payload))
        elif kind == "blocked":
            self._add(*calls.blocked())

    def _take_result(self, result: protocol.Result) -> None:
        data = dict(result.text)
        for mime, raw in result.binary.items():
            data[mime] = b64encode(raw).decode("ascii")
        self._results.append(data)
        self._add("result", ResultEvent(data, result.final))

    def _take_failure(self, failure: protocol.Failure) -> None:
        self._error = ErrorInfo(failure.name, failure.value, failure.traceback)
        self._add("error", self._error)

    def _take_end(self, payload: bytes) -> None:
        end = decode_end(payload)  # the supervisor's own words
        if self._broken:
            end = End("protocol_error", end.usage, self._broken, variables="lost", session="ended")
        self._finish(end)

    def _finish(self, end: End) -> None:
        for kind, text in (("stdout", self._stdout), ("stderr", self._stderr)):
            rest = text.feed(b"", final=True)
            if rest:
                self._add(kind, TextEvent(rest))
        self.end = end
        if self.calls is not None:
            self.calls.close()
        self.ended_at = time.time()
        reached("end-received")
        if self._on_end is not None:
            self._on_end(self)

    def lose(self, status: str, reason: str, *, ends: bool) -> None:
        """Ends it without a word from the supervisor; `ends` when its session ends with it."""
        if self.end is None:
            session = "ended" if ends else "alive"
            self._finish(
                End(status, _NO_USAGE, reason, variables="lost" if ends else "kept", session=session)
            )

    def _add(self, kind: str, data: Any) -> None:
        self.events.append((kind, data))
        self._wake()

    def _wake(self) -> None:
        changed = self._changed
        if changed is not None:
            self._changed = None
            if not changed.done():
                changed.set_result(None)

    # --- the answer ---------------------------------------------------------------------------------

    def complete(self, files: list[FileInfo], *, files_truncated: bool = False) -> Answer:
        """Everything is known: makes the answer, and wakes whoever waits for it."""
        answer = self.answer = self.snapshot(files, files_truncated=files_truncated)
        self._add("end", end_event(answer))
        if not self.done.done():
            self.done.set_result(answer)
        self.yielded()
        return answer

    def yielded(self) -> None:
        """It has ended, or waits for its client: whoever waits for either goes on."""
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    def turn(self) -> asyncio.Future[Any]:
        """Done when it has ended or waits for its client."""
        if self.calls is None or self.answer is not None:
            return self.done
        if self.calls.suspended:
            now: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            now.set_result(None)
            return now
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
        return self._turn

    def snapshot(self, files: list[FileInfo], *, files_truncated: bool = False) -> Answer:
        """What is known so far, with the status `running` before the end."""
        end = self.end
        return Answer(
            id=self.id,
            session=self.session,
            status=self._status(),
            stdout="".join(self._stdout.parts),
            stderr="".join(self._stderr.parts),
            results=self._results,
            error=self._error,
            files=files,
            files_truncated=files_truncated,
            tool_calls=self._tool_calls(),
            usage=None if end is None else end.usage,
            isolation=self.isolation,
            truncated=False if end is None else end.truncated,
            output_file=OutputFile(end.spill_file, end.spilled_bytes)
            if end is not None and end.spill_file
            else None,
            variables="kept" if end is None else cast(Variables, end.variables),
            reason="" if end is None else end.reason,
            exit_code=self._exit_code(),
        )

    def _status(self) -> Status:
        if self.end is not None:
            return cast(Status, self.end.status)
        return "tool_call_required" if self.waits else "running"

    def _tool_calls(self) -> list[ToolCallInfo]:
        if self.calls is None:
            return []
        return self.calls.pending() if self.end is None else self.calls.ended[:MAX_LISTED]

    def _exit_code(self) -> int | msgspec.UnsetType | None:
        code = None if self.end is None else self.end.exit_code
        return code if code is not None or self.context.startswith(COMMAND) else msgspec.UNSET

    def document(self) -> bytes:
        """The answer as JSON, made once, for the client and for the store; before the end, as it is now."""
        if self.answer is None:
            return encode_json(self.snapshot([]))
        if self._document is None:
            self._document = encode_json(self.answer)
        return self._document

    # --- events out ---------------------------------------------------------------------------------

    async def follow(
        self, after: int, *, pause_s: float, until_turn: bool = False
    ) -> AsyncIterator[list[tuple[int, PublicEvent]]]:
        """Events after number `after`, as they come, several at a time; an empty list after each `pause_s`.

        Args:
            until_turn: end when it waits for its client, too.
        """
        position = after
        while True:
            events = self.events[position:]
            if events:
                yield [(position + offset, event) for offset, event in enumerate(events, 1)]
                position += len(events)
                if events[-1][0] == "end" or (
                    until_turn and events[-1][0] == "tool_call_required" and self.waits
                ):
                    return
                continue
            if self.answer is not None:
                return  # `after` is beyond the end
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            done, _ = await asyncio.wait({self._changed}, timeout=pause_s)
            if not done:
                yield []

    async def follow_encoded(
        self, after: int, *, pause_s: float, until_turn: bool = False
    ) -> AsyncIterator[list[EncodedEvent]]:
        """Like `follow`, with the data as JSON."""
        async for events in self.follow(after, pause_s=pause_s, until_turn=until_turn):
            yield [(number, kind, encode_json(data)) for number, (kind, data) in events]

    @property
    def waits(self) -> bool:
        """For its client."""
        return self.calls is not None and self.calls.suspended

    async def wait(self) -> Answer:
        """The answer, when it is there, or what there is when it waits for its client.

        A caller that is cancelled disturbs nobody else.
        """
        if self.answer is None:
            await asyncio.shield(self.turn())
        return self.answer or self.snapshot([])

    def encoded(self, limit_bytes: int) -> tuple[bytes, bytes]:
        """Document and events for the store, without contents of files. Called on the writer's thread.

        Args:
            limit_bytes: text and results beyond it are left out of the events; `error` and `end` never are.
        """
        answer = self.answer
        assert answer is not None
        document, end = self.document(), self.events[-1][1]
        if any(file.base64 is not msgspec.UNSET for file in answer.files):
            files = [FileInfo(file.path, file.bytes) for file in answer.files]
            document = encode_json(msgspec.structs.replace(answer, files=files))
            assert isinstance(end, EndEvent)
            end = msgspec.structs.replace(end, files=files)
        stored: StoredEvents = []
        left = limit_bytes
        for number, (kind, data) in enumerate(self.events, 1):
            if kind in ("error", "end"):
                stored.append((number, kind, encode_json(end if kind == "end" else data)))
                continue
            raw = encode_json(data) if left > 0 else b""
            left -= len(raw)
            if left >= 0 and raw:
                stored.append((number, kind, raw))
        return document, encode_events(stored)


def read_stored(events: bytes, after: int) -> list[EncodedEvent]:
    """Stored events after number `after`; what was left out is one `gap` event, numbered as its last one."""
    result: list[EncodedEvent] = []
    last = after
    for number, kind, raw in decode_events(events):
        if number <= after:
            continue
        if number > last + 1:
            result.append((number - 1, "gap", encode_json(GapEvent(first=last + 1, last=number - 1))))
        result.append((number, kind, raw))
        last = number
    return result
