"""Errors as their user should see them: where, what, and nothing of ours."""

from __future__ import annotations

import pytest

from tests.driver import Session
from tests.kernel.reading import plain, traceback


def error(session: Session, code: str) -> dict[str, str]:
    outcome = session.run(code)
    assert outcome.status == "error", outcome.document()
    assert outcome.error is not None
    for text in outcome.error.values():
        assert "IPython" not in text and "onehop" not in text and "\x1b" not in text, text
    return outcome.error


def test_plain(session: Session) -> None:
    assert error(session, "x = 1\nx / 0") == {
        "name": "ZeroDivisionError", "value": "division by zero",
        "traceback": 'Traceback (most recent call last):\n  File "<cell 1>", line 2, in <module>\n    x / 0\n    ~~^~~\n'
                     "ZeroDivisionError: division by zero",
    }  # fmt: skip


def test_a_function_of_an_earlier_cell_shows_its_line(session: Session) -> None:
    session.run("def f(x):\n    y = 1\n    return y / x")
    assert (
        '  File "<cell 1>", line 3, in f\n    return y / x\n'
        in error(session, "print('go')\nf(0)")["traceback"]
    )
    assert "return y / x" in session.run(
        "import traceback\ntry: f(0)\nexcept ZeroDivisionError: traceback.print_exc()").stderr  # fmt: skip


def test_chains(session: Session) -> None:
    text = error(session, "try: 1 / 0\nexcept ZeroDivisionError as e: raise ValueError('outer') from e")[
        "traceback"
    ]
    assert text.index("ZeroDivisionError: ") < text.index("direct cause") < text.index("ValueError: outer")
    text = error(session, "try: 1 / 0\nexcept ZeroDivisionError: raise ValueError('outer')")["traceback"]
    assert "During handling of the above exception" in text
    text = error(session, "try: 1 / 0\nexcept ZeroDivisionError: raise ValueError('outer') from None")[
        "traceback"
    ]
    assert text.count("Traceback") == 1
    text = error(
        session, "a, b = ValueError('a'), ValueError('b'); a.__cause__ = b; b.__cause__ = a\nraise a"
    )["traceback"]
    assert text.endswith("ValueError: a")


def test_groups_and_notes(session: Session) -> None:
    text = error(
        session, "raise ExceptionGroup('many', [ValueError(1), ExceptionGroup('in', [TypeError('x')])])"
    )["traceback"]
    assert "ExceptionGroup: many (2 sub-exceptions)" in text
    assert "TypeError: x" in text
    assert error(session, "e = ValueError('v'); e.add_note('remember'); raise e")["traceback"].endswith(
        "ValueError: v\nremember")  # fmt: skip


@pytest.mark.parametrize(
    ("code", "name", "shown"),
    [
        ("ok = 1\nx = (1 +\ny y", "SyntaxError", '  File "<cell 1>", line 2\n    x = (1 +\n        ^\n'),
        ("print 'x'", "SyntaxError", "    print 'x'\n    ^^^^^^^^^\n"),
        ("return 5", "SyntaxError", "    return 5\n    ^^^^^^^^\nSyntaxError: 'return' outside function"),
        ("def f():\nx = 1", "IndentationError", '  File "<cell 1>", line 2\n    x = 1\n    ^\n'),
        ("if True:\n        x = 1\n    y = 2", "IndentationError", "line 3\n    y = 2\n"),
        ("'abc", "SyntaxError", "unterminated string literal"),
        ("```python\nprint(1)\n```", "SyntaxError", '  File "<cell 1>", line 1\n    ```python\n'),
        ("for", "SyntaxError", "    for\n"),
        ("if True:\n\tx = 1\n        y = 2", "TabError", "line 3"),
        ("x = \u201chello\u201d", "SyntaxError", "invalid character"),
        ("eval('1 +')", "SyntaxError", '  File "<string>", line 1\n'),
    ],
)
def test_syntax_errors(session: Session, code: str, name: str, shown: str) -> None:
    found = error(session, code)
    assert found["name"] == name
    assert shown in found["traceback"], found["traceback"]


def test_nothing_of_a_cell_with_a_syntax_error_runs(session: Session) -> None:
    outcome = session.run("print('ran')\nx = (")
    assert (outcome.status, outcome.stdout) == ("error", "")


def test_recursion_is_bounded(session: Session) -> None:
    text = error(session, "def r(n): return r(n + 1)\nr(0)")["traceback"]
    assert "more times]" in text
    assert len(text) < 3000


@pytest.mark.parametrize(
    "body",
    [
        "def __str__(self): raise RuntimeError('no')",
        "def __str__(self): return 5",
        "__repr__ = __str__ = lambda self: 1 / 0",
        "def __getattribute__(self, name): raise RuntimeError(name)",
        "__notes__ = 5",
        "__module__ = 5",
    ],
)
def test_exceptions_that_cannot_be_printed(session: Session, body: str) -> None:
    outcome = session.run(f"class Odd(Exception):\n    {body}\nraise Odd('x')")
    assert outcome.status == "error"
    assert (outcome.error or {})["name"] in ("Odd", "RuntimeError")
    assert plain(session.run("1 + 1")) == ["2"]


def test_huge_messages_are_cut(session: Session) -> None:
    found = error(session, "raise ValueError('begin' + 'x' * 5_000_000 + 'finish')")
    assert found["value"].startswith("begin")
    assert found["value"].endswith("finish")
    assert len(found["value"]) < 10_000
    assert len(found["traceback"]) < 40_000
    found = error(session, "raise type('N' * 5000, (Exception,), {})('x')")
    assert len(found["name"]) < 400


def test_text_that_is_not_unicode(session: Session) -> None:
    assert error(session, "raise ValueError('a\\ud800é')")["value"] == "a\\ud800é"


def test_base_exceptions(session: Session) -> None:
    for code, name in (("raise GeneratorExit", "GeneratorExit"), ("raise StopIteration(4)", "StopIteration"),
                       ("raise KeyboardInterrupt", "KeyboardInterrupt"),
                       ("class B(BaseException): pass\nraise B('b')", "B")):  # fmt: skip
        assert error(session, code)["name"] == name


def test_errors_out_of_libraries_keep_their_frames(session: Session) -> None:
    text = error(session, "import json\njson.loads('{')")["traceback"]
    assert "json/decoder.py" in text
    assert text.startswith('Traceback (most recent call last):\n  File "<cell 1>", line 2, in <module>')
    assert error(session, "open('nosuch')")["traceback"].count("File ") == 1
    assert error(session, "import pandas as pd; pd.DataFrame({'a': [1]})['b']")["name"] == "KeyError"


def test_errors_in_threads(session: Session) -> None:
    outcome = session.run(
        "import threading\ndef f(): 1 / 0\nt = threading.Thread(target=f); t.start(); t.join()"
    )
    assert outcome.status == "ok"
    assert outcome.stderr.startswith("Exception in thread Thread-1 (f):\nTraceback")
    assert "    def f(): 1 / 0\n" in outcome.stderr
    assert "threading.py" not in outcome.stderr
    found = error(session, "from concurrent.futures import ThreadPoolExecutor\n"
                           "with ThreadPoolExecutor(1) as pool: pool.submit(f).result()")  # fmt: skip
    assert found["name"] == "ZeroDivisionError"


def test_import_errors(session: Session) -> None:
    found = error(session, "import nosuchmodule")
    assert (found["name"], found["value"]) == ("ModuleNotFoundError", "No module named 'nosuchmodule'")
    assert found["traceback"].count("File ") == 1


def test_warnings_have_a_readable_place_and_come_once(session: Session) -> None:
    outcome = session.run("import warnings\nfor _ in range(3): warnings.warn('old', DeprecationWarning)")
    assert outcome.stderr == ("<cell 1>:2: DeprecationWarning: old\n"
                              "  for _ in range(3): warnings.warn('old', DeprecationWarning)\n")  # fmt: skip


def test_sources(session: Session) -> None:
    outcome = session.run("def f():\n    return 'here'\nimport inspect; print(inspect.getsource(f))")
    assert outcome.stdout.startswith("def f():\n    return 'here'\n")
    assert (
        traceback(session.run("exec('1 / 0')")).splitlines()[-2] == '  File "<string>", line 1, in <module>'
    )
