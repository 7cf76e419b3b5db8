"""An interrupt ends the cell and keeps the variables."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from onehop.supervisor.messages import Event
from tests.driver import Driver, Outcome, Session
from tests.kernel.reading import traceback, value


def interrupted(driver: Driver, session: Session, code: str, *, times: int = 1) -> Outcome:
    """Runs `code`, interrupts it when it has printed `started` (and at each `again`)."""
    seen = threading.Semaphore(0)

    def listen(event: Event) -> None:
        for _ in range(
            event.payload.count(b"started") + event.payload.count(b"again") if event.kind == "stdout" else 0
        ):
            seen.release()

    running = driver.submit(session.start(code, on_event=listen, timeout_s=60, grace_s=5.0))
    for _ in range(times):
        assert seen.acquire(timeout=20), "the code did not start"
        assert session.interrupt()
    try:
        outcome: Outcome = running.result(10)
    except TimeoutError:
        # In CPython a signal that falls between its last look and a blocking call waits until that returns.
        AGAIN.append(code)
        assert session.interrupt()
        outcome = running.result(20)
    return outcome


AGAIN: list[str] = []
"""What had to be interrupted twice."""


@pytest.fixture(scope="module", autouse=True)
def few_are_interrupted_twice() -> Iterator[None]:
    yield
    assert len(AGAIN) <= 2, AGAIN


@pytest.mark.parametrize(
    "busy",
    [
        "time.sleep(100)",
        "while True: pass",
        "subprocess.run(['sleep', '100'])",
        "os.system('sleep 100')\ntime.sleep(100)",
        "!sleep 100",
        "threading.Event().wait(100)",
        "t = threading.Thread(target=time.sleep, args=(0.5,)); t.start(); time.sleep(100)",
        "await asyncio.sleep(100)",
        "asyncio.run(asyncio.sleep(100))",
        "async def spin():\n    while True: await asyncio.sleep(0)\nawait spin()",
        "import queue; queue.Queue().get()",
        "sum(i for i in iter(int, 1))",
        "open('fifo', 'r') if os.mkfifo('fifo') is None else None",
        "with __import__('concurrent.futures').futures.ThreadPoolExecutor() as p: p.submit(time.sleep, 1); time.sleep(100)",
        "class A:\n    def __repr__(self): time.sleep(100)\nA()",
        "%timeit -n 1 -r 1 print('started', flush=True); time.sleep(100)",
        "%%time\ntime.sleep(100)",
        "%%bash\nsleep 100",
    ],
)
def test_variables_survive(driver: Driver, session: Session, busy: str) -> None:
    session.run("import asyncio, os, subprocess, threading, time\nkept = 41")
    if busy.startswith("%%"):
        session.run("print('ready')")
        busy = busy.replace("time.sleep(100)", "print('started')\ntime.sleep(100)").replace(
            "\nsleep", "\necho started\nsleep"
        )
    if "started" in busy:  # says by itself when it has come to where it waits
        outcome = interrupted(driver, session, busy)
    else:
        outcome = interrupted(driver, session, f"print('started', flush=True)\n{busy}")
    assert outcome.status == "interrupted", outcome.document()
    assert outcome.end.variables == "kept"
    assert outcome.end.usage.wall_ms < 20_000
    assert "IPython" not in traceback(outcome)
    assert "onehop" not in traceback(outcome)
    assert value(session.run("kept + 1")) == "42"
    assert value(session.run("await asyncio.sleep(0, 'loop works')")) == "'loop works'"


def test_code_that_handles_it(driver: Driver, session: Session) -> None:
    outcome = interrupted(driver, session, "import time\ntry: print('started'); time.sleep(100)\n"
                                           "except KeyboardInterrupt: print('handled')\n'went on'")  # fmt: skip
    assert (outcome.status, outcome.stdout) == ("ok", "started\nhandled\n")
    assert value(outcome) == "'went on'"


def test_code_that_needs_several(driver: Driver, session: Session) -> None:
    outcome = interrupted(driver, session, "import time\nfor n in range(2):\n"
                                           "    try: print('started'); time.sleep(100)\n"
                                           "    except KeyboardInterrupt: pass\n"
                                           "print('again'); time.sleep(100)", times=3)  # fmt: skip
    assert outcome.status == "interrupted"
    assert outcome.stdout == "started\nstarted\nagain\n"


def test_handlers_of_the_user_last_for_one_cell(driver: Driver, session: Session) -> None:
    session.run("import signal, time; kept = 1; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert interrupted(driver, session, "print('started'); time.sleep(100)").status == "interrupted"
    assert value(session.run("kept")) == "1"


def test_nothing_to_interrupt(session: Session) -> None:
    assert session.interrupt() is False
    assert value(session.run("1 + 1")) == "2"


def test_a_deadline_keeps_the_variables_when_the_code_lets_it(session: Session) -> None:
    session.run("import time; kept = 1")
    outcome = session.run("time.sleep(100)", timeout_s=0.2, grace_s=5)
    assert (outcome.status, outcome.end.variables) == ("timeout", "kept")
    assert "0.2 s" in outcome.end.reason
    assert value(session.run("kept")) == "1"


def test_a_deadline_without_grace_ends_the_kernel(session: Session) -> None:
    session.run("open('kept', 'w').close(); lost = 1")
    outcome = session.run(
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        timeout_s=1.0,  # long enough to have come to where it ignores the interrupt
        grace_s=0.2,
    )
    assert (outcome.status, outcome.end.variables, outcome.end.session) == ("timeout", "lost", "alive")
    assert outcome.end.usage.wall_ms < 15_000
    assert value(session.run("import os; os.listdir(), 'lost' in globals()")) == "(['kept'], False)"


def test_figures_of_an_interrupted_cell_come_with_it(driver: Driver, session: Session) -> None:
    code = "import matplotlib.pyplot as plt, asyncio, time\nplt.plot([1]); print('started'); {}"
    for wait in ("time.sleep(100)", "await asyncio.sleep(100)"):
        outcome = interrupted(driver, session, code.format(wait))
        assert outcome.status == "interrupted"
        assert [set(result) for result in outcome.results] == [{"text/plain", "image/png"}]
        assert session.run("1;").results == []
