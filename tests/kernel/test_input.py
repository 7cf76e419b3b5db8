"""`input()` and everything else that reads the request's stdin."""

from __future__ import annotations

import pytest

from tests.driver import Session
from tests.kernel.reading import value

LINES = "one\ntwo\nthree"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("(input('name? '), input(), input())", "('one', 'two', 'three')"),
        (
            "import getpass; from getpass import getpass as ask; (getpass.getpass('pw: '), ask())",
            "('one', 'two')",
        ),
        ("import sys; sys.stdin.read()", repr(LINES)),
        ("import sys; [line for line in sys.stdin]", "['one\\n', 'two\\n', 'three']"),
        (
            "import sys; (sys.stdin.readline(), sys.stdin.isatty(), sys.stdin.fileno())",
            "('one\\n', False, 0)",
        ),
        ("import sys; sys.stdin.buffer.read()", repr(LINES.encode())),
        ("open(0).read()", repr(LINES)),
        ("import os; os.read(0, 3)", "b'one'"),
        ("import subprocess; subprocess.run(['cat'], capture_output=True, text=True).stdout", repr(LINES)),
        ("import sys, io; sys.stdin = io.StringIO('own\\n'); input()", "'own'"),
    ],
)
def test_reading(session: Session, code: str, expected: str) -> None:
    outcome = session.run(code, stdin=LINES)
    assert value(outcome) == expected
    assert outcome.stderr == ""


def test_prompts_are_shown(session: Session) -> None:
    assert session.run("x = input('name? '); y = input()", stdin="a\nb\n").stdout == "name? "


def test_no_line_left(session: Session) -> None:
    outcome = session.run("a = input()\nb = input('more? ')", stdin="only\n")
    assert (outcome.status, outcome.stdout) == ("error", "more? ")
    assert outcome.error is not None
    assert outcome.error["name"] == "EOFError"
    assert "`stdin`" in outcome.error["value"]
    assert "onehop" not in outcome.error["traceback"]


def test_the_next_cell_does_not_read_what_is_left(session: Session) -> None:
    session.run("1", stdin="left over\n")
    assert session.run("input()").status == "error"
    assert value(session.run("import sys, os; sys.stdin.read(), os.read(0, 10)")) == "('', b'')"


def test_text_of_all_kinds(session: Session) -> None:
    text = "é 漢 🙂\r\n" + "x" * 300_000
    assert value(session.run("a, b = input(), input(); (a, len(b))", stdin=text)) == "('é 漢 🙂', 300000)"
