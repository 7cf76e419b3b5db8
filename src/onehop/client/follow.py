"""An execution's events over connections that may break: from the last number on, until `end`.

What was started runs on whether or not anybody listens, so a broken connection costs nothing but time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onehop.client.events import Parser, RawEvent
from onehop.client.requests import (
    IN_PROGRESS,
    Waiting,
    check,
    document,
    execution_under_way,
    get,
    path_of,
    send,
)
from onehop.client.results import Event, Gathering, Result
from onehop.client.steps import Op, Pause, Reply, Request, open_stream, read
from onehop.errors import ConflictError, ProblemError, UnreachableError

ACCEPT = {"Accept": "text/event-stream"}
ID_HEADER = "onehop-execution-id"
WAIT_S = 30
"""Shorter than the read timeout: a wait that takes longer is asked for again."""


class Follower:
    """One execution, from the request that starts it or from its id.

    Args:
        start: the POST that starts it, None for one that was started.
        execution: its id, if it was started.
        after: number of the last event that is known.

    Attributes:
        execution: its id, empty until the server has said it.
    """

    def __init__(self, start: Request | None, execution: str = "", after: int = 0) -> None:
        self._start = start
        self.execution = execution
        self._seen = after
        self._parser: Parser | None = None
        self._gathering = Gathering()
        self._gathering.incomplete = after > 0
        self._waiting = Waiting()
        self._ended = False
        self._resume: Request | None = None

    def resume(self, request: Request) -> None:
        """The events go on with those that `request` is answered with: results of pending calls."""
        self._resume = replace(request, headers={**request.headers, **ACCEPT})
        self._parser = None

    def more(self) -> Op[list[Event]]:
        """The next events, none after the last one.

        Raises:
            ProblemError: it cannot be started, or is not known.
            UnreachableError: the connection broke, and could not be made again in time.
        """
        while not self._ended:
            try:
                if self._parser is None:
                    yield from self._connect()
                chunk = yield from read()
                if not chunk:
                    raise UnreachableError("the server ended the stream before the execution had ended")
                events = yield from self._take(chunk)
                if events:
                    return events
            except UnreachableError as error:
                self._parser = None
                if not self._can_go_on(error):
                    raise
            except ProblemError as error:
                self._parser = None
                if error.status != 503 or not self._can_go_on(error):
                    raise
            if self._parser is None:
                yield Pause(self._waiting.next_pause_s())
        return []

    def _can_go_on(self, error: UnreachableError | ProblemError) -> bool:
        again = bool(self.execution) or (self._start is not None and self._start.repeatable)
        return again and self._waiting.allows(error)

    def _connect(self) -> Op[None]:
        if self._resume is not None:
            reply: Reply = yield from open_stream(self._resume)
            try:
                check(reply)
            except ConflictError as error:
                # Our own key: the first attempt was taken, only its answer was lost.
                if error.type != IN_PROGRESS:
                    raise
                reply = yield from self._again()
            self._resume = None
            self._parser = Parser()
            return
        if self._start is not None and not self.execution:
            reply = yield from open_stream(self._start)
            try:
                check(reply)
            except ConflictError as error:
                # Our own key: the first attempt did start it, only its answer was lost.
                self.execution = execution_under_way(error)
                if not self.execution:
                    raise
            else:
                self.execution = reply.headers.get(ID_HEADER, "")
        if self._start is None or not self.execution or self._seen or reply.status >= 400:
            reply = yield from self._again()
        self._parser = Parser()

    def _again(self) -> Op[Reply]:
        path = path_of("executions", self.execution, "events")
        reply = yield from open_stream(Request("GET", path, {"after": str(self._seen)}, ACCEPT))
        check(reply)
        return reply

    def _take(self, chunk: bytes) -> Op[list[Event]]:
        assert self._parser is not None
        try:
            raw = self._parser.feed(chunk)
        except ValueError as error:
            raise UnreachableError(f"the stream of events cannot be read ({error})") from None
        if raw:
            self._waiting = Waiting()
        events = []
        for one in raw:
            if one[0] > self._seen or one[1] == "gap":
                events.append((yield from self._event(one)))
        if events and events[-1].kind == "tool_call_required":
            self._parser = None  # a POST's stream ends here; the events go on in one of their own
        return events

    def _event(self, raw: RawEvent) -> Op[Event]:
        number, kind, data = raw
        event = self._gathering.add(number, kind, data)
        self._seen = max(number, self._seen)
        if event.result is None:
            return event
        self._ended = True
        if not self._gathering.incomplete:
            return event
        whole = yield from wait(event.result.id)
        return Event(kind, number, result=whole)


def wait(execution: str) -> Op[Result]:
    """The result of an execution once it has ended."""
    path = path_of("executions", execution)
    while True:
        found = yield from get(path, {"wait_s": WAIT_S})
        if found["status"] != "running":
            return Result.of(found)


def start_and_wait(start: Request) -> Op[Result]:
    """The result of the execution that `start` starts, in one answer."""
    try:
        reply = yield from send(start)
    except ConflictError as error:
        if not (started := execution_under_way(error)):
            raise
        return (yield from wait(started))
    answer: Mapping[str, Any] = document(reply)
    return Result.of(answer)
