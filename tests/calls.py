"""Plays the gateway for code that calls tools: answers its calls on the driver's loop, or keeps them for the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from onehop import protocol
from onehop.protocol import Call, CallError, Return, ToolEntry
from onehop.supervisor.messages import CallEnd, Event, ExecutionSpec, encode
from tests.driver import Driver, Outcome, Session, Started

CATALOGUE = "catalogue-1"


def entry(path: str, description: str = "", /, *, waits: bool = False, **properties: Any) -> ToolEntry:
    """A tool; properties whose schema has no `default` are required."""
    return ToolEntry(
        name=path,
        path=path,
        description=description,
        parameters={
            "type": "object",
            "properties": properties,
            "required": [name for name, schema in properties.items() if "default" not in schema],
            "additionalProperties": False,
        },
        waits=waits,
    )


class Answering(Started):
    """An execution whose calls are answered as they come."""

    def __init__(self, host: Host, name: str) -> None:
        super().__init__(host.driver, name)
        self.host = host
        self.calls: dict[int, Call] = {}
        self.pending: dict[int, Call] = {}

    def __call__(self, event: Event | None) -> None:
        if event is not None and event.kind == "call":
            self._called(event.payload)
        super().__call__(event)

    def _called(self, payload: bytes) -> None:
        number = protocol.call_number(payload)
        try:
            call = protocol.decode_call(payload[protocol.CALL_NUMBER.size :])
        except ValueError:
            call = Call("")  # a hostile kernel's: kept for ever
        self.calls[number] = call
        if call.name == protocol.CATALOGUE_TOOL:
            self.give(number, Return(value=[protocol.plain(one) for one in self.host.entries]))
            return
        function = self.host.functions.get(call.name)
        if function is None:
            self.pending[number] = call
            return
        answer = function(**call.arguments)
        self.give(number, answer if isinstance(answer, Return) else Return(value=answer))

    def give(self, number: int, answer: Return) -> None:
        """Answers a call; on the driver's loop."""
        status = "ok" if answer.error is None else "error"
        self.host.driver.client.return_call(
            self.id, number, encode(answer), encode(CallEnd(call=number, status=status, ms=0.0))
        )

    def answer(self, number: int, value: Any = None, *, error: CallError | None = None) -> None:
        """Answers a call that was kept."""
        del self.pending[number]
        answer = Return(value=value, error=error)
        self.driver.loop.call_soon_threadsafe(self.give, number, answer)

    def suspend(self, timeout_s: float = 60.0) -> None:
        self.driver.loop.call_soon_threadsafe(self.driver.client.suspend, self.id, timeout_s)

    def count(self, kind: str) -> int:
        """Events of that kind until now."""
        return sum(1 for event in list(self.events) if event.kind == kind)

    def until_event(self, kind: str, count: int = 1, *, within_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + within_s
        while self.count(kind) < count:
            told = ([event.kind for event in self.events[-20:]], self.output(), self.output("stderr"))
            assert self.running, told
            assert time.monotonic() < deadline_s, told
            time.sleep(0.002)


class Host:
    """Tools and what answers them: a function of the arguments, or None for calls that the test answers itself."""

    def __init__(
        self, driver: Driver, entries: list[ToolEntry], functions: dict[str, Callable[..., Any]]
    ) -> None:
        self.driver = driver
        self.entries = entries
        self.functions = functions

    def begin(self, session: Session, code: str, *, catalogue: str = CATALOGUE, **limits: Any) -> Answering:
        spec = ExecutionSpec(
            id=self.driver.new_id(),
            code=code,
            catalogue=catalogue,
            **{"timeout_s": 20.0, "grace_s": 2.0, **limits},
        )
        session._begun.append(spec.id)
        started = Answering(self, spec.id)
        self.driver.wait(self.driver.client.execute(session.id, spec, started))
        return started

    def run(self, session: Session, code: str, **limits: Any) -> Outcome:
        """To its end."""
        return self.begin(session, code, **limits).wait()
