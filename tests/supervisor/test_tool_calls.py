"""Calls of tools as the supervisor keeps them: numbered, answered once, and a deadline that stands still meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onehop import protocol
from onehop.protocol import Return
from onehop.supervisor.messages import CallEnd, Event, decode_call_end, encode
from onehop.supervisor.spawn import SupervisorHandle
from tests.calls import Answering, Host, entry
from tests.driver import Driver, Session
from tests.kernel.reading import value
from tests.supervisor.machine import eventually

TEXT = {"type": "string"}
ASK = [entry("ask", "Asks somebody.", waits=True, question=TEXT), entry("echo", "Gives it back.", value={})]
FUNCTIONS: dict[str, Callable[..., Any]] = {"echo": lambda value: value}


@pytest.fixture
def host(driver: Driver) -> Host:
    return Host(driver, ASK, FUNCTIONS)


def test_events_of_a_call_are_numbered_and_become_short(driver: Driver, session: Session, host: Host) -> None:
    host.run(session, "tools.echo(0)")
    started = host.begin(session, "tools.echo('x' * 100_000)[:1]")
    started._ended.wait(20)
    assert [event.kind for event in started.events] == ["call", "return", "result", "end"]
    assert decode_call_end(started.events[1].payload) == CallEnd(call=1, status="ok", ms=0.0)
    again: list[Event] = []

    def listen(event: Event | None) -> None:
        if event is not None:
            again.append(event)

    driver.wait(driver.client.attach(started.id, listen))
    eventually(lambda: len(again) == 4)
    call = protocol.decode_call(again[0].payload[4:])
    assert (protocol.call_number(again[0].payload), call.name, call.arguments) == (1, "echo", {})
    assert [event.number for event in again] == [1, 2, 3, 4]


def test_an_answer_counts_once_and_only_for_what_is_pending(
    driver: Driver, session: Session, host: Host
) -> None:
    started = host.begin(session, "tools.ask('x')")
    started.until_event("blocked")
    (number,) = started.pending
    for call, given in ((number + 1, "never made"), (0, "nought"), (number, "first"), (number, "second")):
        end = encode(CallEnd(call=call, status="ok", ms=0.0))
        driver.loop.call_soon_threadsafe(
            driver.client.return_call, started.id, call, encode(Return(value=given)), end
        )
    driver.loop.call_soon_threadsafe(driver.client.return_call, "no-such-execution", 1, b"", b"")
    assert value(started.wait()) == "'first'"
    assert started.count("return") == started.count("call")


def test_a_suspended_execution_uses_no_time_and_no_processor(
    driver: Driver, session: Session, host: Host
) -> None:
    host.run(session, "tools.echo(1)")
    started = host.begin(session, "tools.ask('x')", timeout_s=2.0)
    started.until_event("blocked")
    started.suspend()
    time.sleep(2.5)  # not for something to happen: this is the time that must not count
    assert started.running
    started.answer(1, "late")
    outcome = started.wait()
    assert value(outcome) == "'late'"
    assert outcome.end.usage.wall_ms < 2000
    assert outcome.end.usage.cpu_ms < 200


def test_what_is_left_of_the_deadline_counts_afterwards(session: Session, host: Host) -> None:
    started = host.begin(session, "tools.ask('x')\nwhile True: pass", timeout_s=2.0, grace_s=0.0)
    started.until_event("blocked")
    started.suspend()
    started.suspend()  # twice is once
    started.answer(next(iter(started.pending)), 1)
    outcome = started.wait()
    assert outcome.status == "timeout"
    assert "longer than 2 s" in outcome.end.reason
    assert 1900 < outcome.end.usage.wall_ms < 15_000


def test_without_results_it_ends(session: Session, host: Host) -> None:
    host.run(session, "kept = 5")
    started = host.begin(session, "tools.ask('x')")
    started.until_event("blocked")
    started.suspend(0.3)
    outcome = started.wait()
    assert (outcome.status, outcome.end.variables) == ("timeout", "kept"), outcome.document()
    assert outcome.end.reason == "no results of its tool calls came within 0.3 s"
    assert value(session.run("kept")) == "5"


def test_code_that_goes_on_cannot_be_suspended(session: Session, host: Host) -> None:
    """Only its own last word that it is blocked makes its clock stand still."""
    started = host.begin(session, "call = tools.ask.aio('x')\nwhile True: pass", timeout_s=2.0, grace_s=0.0)
    started.until_event("call", 2)
    started.suspend()
    assert started.wait().status == "timeout"


def test_code_that_says_it_is_blocked_and_works_has_a_deadline(session: Session, host: Host) -> None:
    """A lie of the kernel: it says BLOCKED by itself, and computes."""
    lie = (
        "import os, socket, struct\ncall = tools.ask.aio('x')\n"
        "channel = socket.socket(fileno=os.dup(3))\n"
        "channel.sendall(struct.pack('>IBQI', 4, 23, int(number), returned))\nwhile True: pass"
    )
    host.run(session, "tools.echo(1)")  # the second execution, which knows its catalogue
    started = host.begin(
        session, lie.replace("int(number)", "2").replace("returned", "0"), timeout_s=2.0, grace_s=0.0
    )
    started.until_event("blocked")
    started.suspend(60)
    outcome = started.wait(30)
    assert outcome.status == "timeout", outcome.document()
    assert "longer than 2 s" in outcome.end.reason


@pytest.mark.parametrize("how", ["kernel", "session", "interrupt"])
def test_the_end_of_a_suspended_execution(driver: Driver, host: Host, how: str) -> None:
    with driver.session() as session:
        host.run(session, "kept = 1")
        code = "tools.ask('x')"
        if how == "kernel":
            code = (
                "import os, signal, threading\n"
                "os.fork() or os.execvp('sh', ['sh', '-c', f'while [ ! -e go ]; do sleep 0.02; done; kill -9 {os.getppid()}'])\n"
                + code
            )
        started = host.begin(session, code)
        started.until_event("blocked")
        started.suspend()
        if how == "kernel":
            session.command("touch go")
        elif how == "session":
            session.delete()
        else:
            session.interrupt()
        outcome = started.wait()
        expected = {"kernel": "kernel_died", "session": "killed", "interrupt": "interrupted"}[how]
        assert outcome.status == expected, outcome.document()
        started.answer(next(iter(started.pending)), "too late")
        if how != "session":
            assert value(host.run(session, "tools.echo(1)")) == "1"
    eventually(lambda: session.id not in {info.id for info in driver.wait(driver.client.sandboxes())})


def test_an_interrupt_that_the_code_takes_lets_time_go_on(session: Session, host: Host) -> None:
    code = "try:\n    tools.ask('x')\nexcept KeyboardInterrupt:\n    while True: pass"
    started = host.begin(session, code, timeout_s=2.0, grace_s=0.0)
    started.until_event("blocked")
    started.suspend()
    session.interrupt()
    assert started.wait().status in ("timeout", "interrupted")


GATEWAY = """
import asyncio, sys
from onehop.supervisor.client import SupervisorClient
from onehop.supervisor.messages import ExecutionSpec
async def main():
    client = await SupervisorClient.connect(sys.argv[1])
    def listen(event):
        if event is not None and event.kind == 'call' and b'$catalogue' in event.payload:
            from onehop import protocol
            from onehop.supervisor.messages import CallEnd, encode
            ask = protocol.ToolEntry('ask', 'ask', '', {'properties': {'question': {}}}, waits=True)
            client.return_call(event.execution, 1, encode(protocol.Return([protocol.plain(ask)])), encode(CallEnd(1, 'ok', 0.0)))
        if event is not None and event.kind == 'blocked':
            client.suspend(event.execution, 60.0)
            print('suspended', flush=True)
    spec = ExecutionSpec(id='outlives', code="kept = 2\\nkept + tools.ask('x')", timeout_s=3.0, catalogue='c', context_data=b'opaque')
    await client.execute(sys.argv[2], spec, listen)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_a_suspended_execution_survives_the_gateway(
    driver: Driver, session: Session, supervisor: SupervisorHandle, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "gateway.py").write_text(GATEWAY)
    gateway = subprocess.Popen(
        [sys.executable, str(tmp_path / "gateway.py"), str(supervisor.path), session.id],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"suspended\n"
        gateway.send_signal(signal.SIGKILL)
    finally:
        gateway.kill()
        gateway.wait()
        if gateway.stdout is not None:
            gateway.stdout.close()
    found = {one.id: one for one in driver.wait(driver.client.executions())}
    assert found["outlives"].context_data == b"opaque"
    after = Answering(host, "outlives")
    session._begun.append("outlives")
    driver.wait(driver.client.attach("outlives", after))
    after.until_event("blocked")
    ((number, call),) = after.pending.items()
    assert call.arguments == {"question": "x"}
    after.answer(number, 40)
    assert value(after.wait()) == "42"


def test_text_is_not_cut_because_of_calls(session: Session, host: Host) -> None:
    """MAX_EVENTS is about floods of text: 20 000 events of calls are none."""
    started = host.begin(session, "for n in range(11_000): tools.echo(n)\nprint('the end')", timeout_s=60)
    outcome = started.wait(80)
    assert (outcome.status, outcome.stdout) == ("ok", "the end\n"), outcome.document()
    assert not outcome.end.truncated
