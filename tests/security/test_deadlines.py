"""SIGINT at the deadline, SIGKILL at deadline + grace: the answer comes within 100 ms of whichever ended it.

Measured from outside by the client, on whatever machine runs the tests: `ALLOWANCE_S` is for a noisy one,
on top of the promised 100 ms, and what is late is measured again: it must not be late three times.
`bench` measures the promise itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.driver import Driver
from tests.timing import soonest_s

PROMISED_S = 0.1
ALLOWANCE_S = 0.4
IN_TIME_S = PROMISED_S + ALLOWANCE_S
TIMEOUT_S = 0.5

STUBBORN = {
    "python that ignores SIGINT": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "python that swallows KeyboardInterrupt": "import time\nwhile True:\n    try: time.sleep(1)\n    except BaseException: pass",
    "SIGINT blocked": "import signal, time; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); time.sleep(60)",
    "regular expression in C": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "C that holds the GIL": "import ctypes; ctypes.PyDLL(None).pause(); ctypes.PyDLL(None).sleep(60)\nwhile True: ctypes.PyDLL(None).pause()",
    "big number": "10 ** 10 ** 9",
    "blocked in a read": "import os; r, w = os.pipe(); os.read(r, 1)\nwhile True: os.read(r, 1)",
    "blocked in a lock": "import threading; l = threading.Lock(); l.acquire()\nwhile True:\n    try: l.acquire()\n    except KeyboardInterrupt: pass",
    "stopped itself": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "stopped its group": "import os, signal; os.killpg(0, signal.SIGSTOP)",
    "children that ignore everything": "import os, signal, time\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\nfor n in range(8):\n    if os.fork() == 0: break\nwhile True: time.sleep(1)",
    "flooding its output": "import os, time\nwhile True:\n    try:\n        while True: os.write(1, b'x' * 4096); time.sleep(0.001)\n    except BaseException: pass",
    "vfork": "import ctypes; ctypes.CDLL(None).vfork(); ctypes.CDLL(None).pause()\nwhile True: pass",
    "a finaliser that never ends": "class A:\n    def __del__(self):\n        while True: pass\na = A(); del a\nwhile True: pass",
}  # fmt: skip


@pytest.mark.parametrize("name", STUBBORN)
@pytest.mark.parametrize("grace_s", [0.0, 0.3])
def test_the_answer_is_in_time_whatever_the_code_does(
    driver: Driver, name: str, grace_s: float, record_property: Callable[[str, object], None]
) -> None:
    def late_s() -> float:
        with driver.session() as session:
            session.run("1")
            started = time.monotonic()
            outcome = session.run(STUBBORN[name], timeout_s=TIMEOUT_S, grace_s=grace_s)
            late_s = time.monotonic() - started - TIMEOUT_S - grace_s
            assert outcome.status == "timeout", outcome.document()
            if grace_s == 0:
                assert outcome.end.variables == "lost"
            # The sandbox lives on, with a new kernel where the old one did not take the interrupt.
            assert session.run("6*7", timeout_s=20).results == [{"text/plain": "42"}]
            return late_s

    soonest = soonest_s(late_s, IN_TIME_S)
    record_property("late_ms", round(soonest * 1000, 1))
    assert soonest < IN_TIME_S


def test_code_that_takes_the_interrupt_keeps_its_variables(driver: Driver) -> None:
    def late_s() -> float:
        with driver.session() as session:
            session.run("kept = 1")
            started = time.monotonic()
            outcome = session.run("import time; time.sleep(60)", timeout_s=TIMEOUT_S, grace_s=5)
            late_s = time.monotonic() - started - TIMEOUT_S
            assert (outcome.status, outcome.end.variables) == ("timeout", "kept")
            assert session.run("kept").results == [{"text/plain": "1"}]
            return late_s

    assert soonest_s(late_s, IN_TIME_S) < IN_TIME_S


def test_a_daemonised_child_delays_no_answer(driver: Driver) -> None:
    """It holds the pipes and the channel, and lives on in its own session until it is deleted."""
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    os._exit(0)
print('started')
"""
    with driver.session() as session:
        started = time.monotonic()
        outcome = session.run(code, timeout_s=10)
        assert (outcome.status, outcome.stdout) == ("ok", "started\n")
        assert time.monotonic() - started < 5
        assert session.run("1+1").status == "ok"
    started = time.monotonic()
    outcome = driver.run_once(code + "\nwhile True: pass", timeout_s=TIMEOUT_S)
    assert outcome.status == "timeout"
    assert time.monotonic() - started < TIMEOUT_S + 3  # with the deletion of the sandbox


def test_a_kernel_that_stops_its_own_programs_group_can_be_deleted(driver: Driver) -> None:
    with driver.session() as session:
        session.run(
            "import subprocess; p = subprocess.Popen(['sleep', '1000'], start_new_session=True); p.send_signal(19)"
        )
        started = time.monotonic()
    assert time.monotonic() - started < 5
