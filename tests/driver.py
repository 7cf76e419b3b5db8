"""Runs code in real sandboxes through the supervisor's own client, synchronously, for tests below the HTTP API."""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from onehop import protocol
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import (
    CommandInfo,
    ContextInfo,
    End,
    Event,
    ExecutionSpec,
    SandboxInfo,
    SandboxSpec,
    decode_end,
)

T = TypeVar("T")


@dataclass
class Outcome:
    """Everything one execution said, as the API would answer it, and the raw events."""

    events: list[Event]
    end: End
    stdout: str = ""
    stderr: str = ""
    results: list[dict[str, str]] = field(default_factory=list)
    error: dict[str, str] | None = None

    @property
    def status(self) -> str:
        return self.end.status

    def document(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "results": self.results,
            "error": self.error,
            "reason": self.end.reason,
        }


class Started:
    """An execution under way, in a context or as a command; collects its events."""

    def __init__(self, driver: Driver, name: str) -> None:
        self.driver = driver
        self.id = name
        self.events: list[Event] = []
        self.lost = False
        self._ended = threading.Event()

    def __call__(self, event: Event | None) -> None:
        if event is None:
            self.lost = True
        else:
            self.events.append(event)
        if event is None or event.kind == "end":
            self._ended.set()

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    def output(self, kind: str = "stdout") -> str:
        """What it has written until now."""
        return b"".join(event.payload for event in list(self.events) if event.kind == kind).decode()

    def until(self, text: str, *, within_s: float = 20.0) -> None:
        """Waits until it has written `text`."""
        deadline_s = time.monotonic() + within_s
        while text not in self.output():
            assert self.running, (text, self.output(), self.output("stderr"))
            assert time.monotonic() < deadline_s, (text, self.output(), self.output("stderr"))
            time.sleep(0.005)

    def wait(self, timeout_s: float = 30.0) -> Outcome:
        assert self._ended.wait(timeout_s), ("still running", self.output(), self.output("stderr"))
        assert not self.lost, "the supervisor is gone"
        self.driver.loop.call_soon_threadsafe(self.driver.client.acknowledge, self.id)
        return _outcome(self.events)


class Session:
    """One sandbox."""

    def __init__(self, driver: Driver, info: SandboxInfo) -> None:
        self.driver = driver
        self.info = info
        self.id = info.id
        self._begun: list[str] = []

    def run(self, code: str, *, timeout_s: float = 20.0, grace_s: float = 2.0, **limits: Any) -> Outcome:
        return self.driver.wait(
            self.start(code, timeout_s=timeout_s, grace_s=grace_s, **limits), timeout_s + grace_s + 20
        )

    async def start(
        self, code: str, *, on_event: Callable[[Event], None] | None = None, **limits: Any
    ) -> Outcome:
        """The coroutine of a run, for tests that do something meanwhile (`driver.submit`)."""
        return await self.driver.follow(
            lambda spec, listener: self.driver.client.execute(self.id, spec, listener), code, on_event, limits
        )

    def _started(self, spec: ExecutionSpec) -> Started:
        self._begun.append(spec.id)
        return Started(self.driver, spec.id)

    def begin(self, code: str, *, context: str = "main", **limits: Any) -> Started:
        """Code in a context; returns when the supervisor has accepted it."""
        spec = ExecutionSpec(
            id=self.driver.new_id(), code=code, **{"timeout_s": 20.0, "grace_s": 2.0, **limits}
        )
        started = self._started(spec)
        self.driver.wait(self.driver.client.execute(self.id, spec, started, kernel=context))
        return started

    def begin_command(
        self,
        command: str,
        *,
        cwd: str = "",
        stdin_open: bool = False,
        background: bool = False,
        **limits: Any,
    ) -> Started:
        """A shell command; returns when bash has been forked."""
        spec = ExecutionSpec(
            id=self.driver.new_id(), code=command, **{"timeout_s": 20.0, "grace_s": 2.0, **limits}
        )
        started = self._started(spec)
        self.driver.wait(
            self.driver.client.command(
                self.id, spec, started, cwd=cwd, stdin_open=stdin_open, background=background
            )
        )
        return started

    def command(self, command: str, **options: Any) -> Outcome:
        """A shell command and its end."""
        return self.begin_command(command, **options).wait()

    def feed(self, started: Started, data: bytes, *, close: bool = False) -> None:
        self.driver.wait(self.driver.client.feed(self.id, started.id, data, close=close))

    def signal(self, started: Started, number: int) -> None:
        self.driver.wait(self.driver.client.signal(self.id, started.id, number))

    def commands(self) -> dict[str, CommandInfo]:
        """By id."""
        return {one.id: one for one in self.driver.wait(self.driver.client.commands(self.id))}

    def create_context(self, name: str, *, cwd: str = "", most: int = 8) -> ContextInfo:
        return self.driver.wait(self.driver.client.create_context(self.id, name, cwd=cwd, most=most))

    def contexts(self) -> dict[str, ContextInfo]:
        """By name."""
        return {one.name: one for one in self.driver.wait(self.driver.client.contexts(self.id))}

    def restart_context(self, name: str) -> ContextInfo:
        return self.driver.wait(self.driver.client.restart_context(self.id, name))

    def delete_context(self, name: str) -> None:
        self.driver.wait(self.driver.client.delete_context(self.id, name))

    def interrupt(self, context: str = "main") -> bool:
        return self.driver.wait(self.driver.client.interrupt(self.id, kernel=context))

    def delete(self) -> None:
        self.driver.wait(self.driver.client.destroy_sandbox(self.id))
        for name in self._begun:  # also of those that no test has waited for
            self.driver.loop.call_soon_threadsafe(self.driver.client.acknowledge, name)


class Driver:
    """A client of one supervisor, with an event loop in a thread of its own."""

    _numbers = itertools.count(1)

    def __init__(self, path: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="driver", daemon=True)
        self._thread.start()
        self.client = self.wait(SupervisorClient.connect(path))

    def new_id(self) -> str:
        return f"test-{next(self._numbers)}"

    def close(self) -> None:
        self.wait(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Any:
        """Starts `work` on the loop; a concurrent.futures.Future."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def wait(self, work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        result: T = self.submit(work).result(timeout_s)
        return result

    async def follow(
        self,
        start: Callable[[ExecutionSpec, Any], Coroutine[Any, Any, Any]],
        code: str,
        on_event: Callable[[Event], None] | None,
        limits: dict[str, Any],
    ) -> Outcome:
        ended = asyncio.get_running_loop().create_future()
        events: list[Event] = []

        def listener(event: Event | None) -> None:
            if event is None:
                if not ended.done():
                    ended.set_exception(ConnectionError("the supervisor is gone"))
                return
            events.append(event)
            if on_event is not None:
                on_event(event)
            if event.kind == "end" and not ended.done():
                ended.set_result(None)

        spec = ExecutionSpec(id=self.new_id(), code=code, **limits)
        info = await start(spec, listener)
        await ended
        self.client.acknowledge(spec.id)
        if info is not None:
            await self.client.destroy_sandbox(info.id)
        return _outcome(events)

    def run_once(
        self, code: str, *, sandbox: SandboxSpec | None = None, timeout_s: float = 20.0, **limits: Any
    ) -> Outcome:
        """One execution in a fresh sandbox, which is gone afterwards."""
        spec = sandbox or SandboxSpec(one_shot=True)
        return self.wait(
            self.follow(
                lambda execution, listener: self.client.execute_once(spec, execution, listener),
                code,
                None,
                {"timeout_s": timeout_s, **limits},
            ),
            timeout_s + 40,
        )

    @contextmanager
    def session(self, **spec: Any) -> Iterator[Session]:
        session = Session(self, self.wait(self.client.create_sandbox(SandboxSpec(**spec))))
        try:
            yield session
        finally:
            session.delete()


def _outcome(events: list[Event]) -> Outcome:
    outcome = Outcome(events=events, end=decode_end(events[-1].payload))
    text = {"stdout": b"", "stderr": b""}
    for event in events:
        if event.kind in text:
            text[event.kind] += event.payload
        elif event.kind == "result":
            result = protocol.decode_result(event.payload)
            outcome.results.append(
                {
                    **result.text,
                    **{mime: base64.b64encode(raw).decode() for mime, raw in result.binary.items()},
                }
            )
        elif event.kind == "failure":
            failure = protocol.decode_failure(event.payload)
            outcome.error = {"name": failure.name, "value": failure.value, "traceback": failure.traceback}
    outcome.stdout, outcome.stderr = (text[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return outcome
