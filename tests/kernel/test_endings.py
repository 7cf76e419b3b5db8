"""Ways in which a cell, or its kernel, ends; and what is left for the next one."""

from __future__ import annotations

import pytest

from tests.driver import Driver, Session
from tests.kernel.reading import plain, value


@pytest.mark.parametrize("code", ["import sys; sys.exit()", "import sys; sys.exit(0)", "exit()", "quit()", "exit",
                                  "raise SystemExit", "exit(0)", "exit(None)"])  # fmt: skip
def test_leaving_well(session: Session, code: str) -> None:
    outcome = session.run(f"kept = 5; print('before')\n{code}\n")
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "before\n", "")
    assert value(session.run("kept")) == "5"


@pytest.mark.parametrize(
    ("code", "message"), [("exit(2)", "2"), ("import sys; sys.exit('why')", "why"), ("quit(1)", "1")]
)
def test_leaving_with_a_code_is_an_error(session: Session, code: str, message: str) -> None:
    outcome = session.run(f"kept = 5\n{code}")
    assert outcome.status == "error"
    assert outcome.stderr == ""
    assert outcome.error is not None
    assert (outcome.error["name"], outcome.error["value"]) == ("SystemExit", message)
    assert value(session.run("kept")) == "5"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "exited with code 3"),
        ("import os; os._exit(0)", "exited with code 0"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
        ("import os; os.kill(0, 9)", "SIGKILL"),
        ("import os; os.execv('/bin/true', ['true'])", ""),
        (
            "import sys; sys.setrecursionlimit(10**9)\ndef f():\n    return [f for f in map(lambda _: f(), [1])]\nf()",
            "SIG",
        ),
        ("import os; os.close(3)", ""),
        ("import os; os.dup2(os.open('/dev/null', os.O_RDWR), 3)", ""),
    ],
)
def test_a_dead_kernel_is_replaced(session: Session, code: str, reason: str) -> None:
    session.run("open('kept.txt', 'w').write('kept'); lost = 1")
    outcome = session.run(f"print('before')\n{code}\nprint('after')", timeout_s=30)
    assert outcome.status == "kernel_died", outcome.document()
    assert (outcome.end.variables, outcome.end.session) == ("lost", "alive")
    assert reason in outcome.end.reason
    assert outcome.stdout.startswith("before\n")
    assert value(session.run("open('kept.txt').read(), 'lost' in globals()")) == "('kept', False)"


def test_a_kernel_that_dies_between_executions(session: Session) -> None:
    session.run("import os, threading, time\n"
                "def die():\n    go.wait(10); time.sleep(0.02); os.kill(os.getpid(), 9)\n"
                "go = threading.Event(); threading.Thread(target=die).start(); pid = os.getpid(); go.set()")  # fmt: skip
    outcomes = [session.run("import time; time.sleep(1); 'ran'")]
    while outcomes[-1].status == "ok" and len(outcomes) < 5:
        outcomes.append(session.run("1"))
    assert outcomes[-1].status == "kernel_died"
    assert outcomes[-1].end.variables == "lost"
    assert value(session.run("6 * 7")) == "42"


def test_files_stay_when_the_kernel_dies_often(session: Session) -> None:
    for n in range(4):
        assert session.run(f"open('f{n}', 'w').close(); import os; os._exit(1)").status == "kernel_died"
    assert value(session.run("import os; sorted(os.listdir())")) == "['f0', 'f1', 'f2', 'f3']"


def test_children_end_with_their_kernel(session: Session) -> None:
    session.run(
        "import subprocess, os; p = subprocess.Popen(['sleep', '1000']); open('pid', 'w').write(str(p.pid))"
    )
    assert session.run("os._exit(1)").status == "kernel_died"
    assert value(session.run("import os, time\nfor _ in range(1500):\n"
                             "    if not os.path.exists('/proc/' + open('pid').read()): break\n    time.sleep(0.01)\n"
                             "os.path.exists('/proc/' + open('pid').read())")) == "False"  # fmt: skip


def test_a_one_shot_sandbox_ends_with_its_kernel(driver: Driver) -> None:
    outcome = driver.run_once("import os; os._exit(4)")
    assert (outcome.status, outcome.end.session, outcome.end.variables) == ("kernel_died", "ended", "lost")


def test_a_forked_child_that_reaches_the_end_of_the_cell(session: Session) -> None:
    outcome = session.run("import os\npid = os.fork()\nprint('child' if pid == 0 else 'parent' if os.waitpid(pid, 0) else '')\n"
                          "display(1)\n'value'")  # fmt: skip
    assert (outcome.status, outcome.stdout, plain(outcome)) == ("ok", "child\nparent\n", ["1", "'value'"])
    outcome = session.run(
        "pid = os.fork()\nif pid == 0: raise ValueError('in the child')\nos.waitpid(pid, 0)[1] >> 8"
    )
    assert value(outcome) == "1"
    assert outcome.stderr.endswith("ValueError: in the child\n")
    assert value(session.run("pid = os.fork()\nif pid == 0: exit(7)\nos.waitpid(pid, 0)[1] >> 8")) == "7"
    assert value(session.run("1 + 1")) == "2"
