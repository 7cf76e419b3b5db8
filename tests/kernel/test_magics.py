"""IPython's magics and shell commands, as far as they work without network and terminal."""

from __future__ import annotations

import pytest

from tests.driver import Session
from tests.kernel.reading import plain, traceback, value


@pytest.mark.parametrize(
    ("code", "stdout", "stderr"),
    [
        ("!echo hi", "hi\n", ""),
        ("!echo hi >&2", "", "hi\n"),
        ("name = 'x'\n!echo $name {name}{1 + 1} $$HOME", "x x2 /workspace\n", ""),
        ("x = !printf 'a\\nb'\nprint(x)", "['a', 'b']\n", ""),
        ("if True:\n    !echo indented", "indented\n", ""),
        ("!false\nprint(_exit_code)", "1\n", ""),
        ("!echo a | tr a b; echo c", "b\nc\n", ""),
        ("%%bash\necho out\necho err >&2", "out\n", "err\n"),
        ("%%sh\necho sh", "sh\n", ""),
        ("%%script bash\necho script", "script\n", ""),
        ("%%python\nprint(12)", "12\n", ""),
        ("%%writefile t.txt\nhello\nworld", "Writing t.txt\n", ""),
        ("%env FOO=bar\nprint(__import__('os').environ['FOO'])", "env: FOO=bar\nbar\n", ""),
        ("%cd /tmp\n%cd -q /workspace\nprint(__import__('os').getcwd())", "/tmp\n/workspace\n", ""),
        ("a = 1; b = ''\n%who", "a\t b\t \n", ""),
        ("a = 1\n%reset -f\nprint('a' in globals())", "False\n", ""),
        ("open('t.py', 'w').write('print(__name__); z = 1')\n%run t.py\nprint(z)", "__main__\n1\n", ""),
        ("%sx echo quiet\n", "", ""),
        ("%matplotlib inline\n%matplotlib notebook\n%matplotlib", "", ""),
        ("%config InlineBackend.figure_format = 'retina'", "", ""),
        ("%load_ext autoreload\n%autoreload 2", "", ""),
        ("%gui qt", "", ""),
        ("%colors NoColor", "", ""),
    ],
)
def test_what_they_write(session: Session, code: str, stdout: str, stderr: str) -> None:
    outcome = session.run(code)
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", stdout, stderr), outcome.document()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%pwd", "'/workspace'"),
        ("%time 1 + 1", "2"),
        ("%%time\n1 + 1", "2"),
        ("x = %timeit -o -q -n 1 -r 1 pass\ntype(x).__name__", "'TimeitResult'"),
        ("get_ipython().run_line_magic('pwd', '')", "'/workspace'"),
        ("type(get_ipython()).__name__", "'Shell'"),
        ("%env HOME", "'/workspace'"),
    ],
)
def test_values(session: Session, code: str, expected: str) -> None:
    assert value(session.run(code)) == expected


def test_timing_and_help(session: Session) -> None:
    assert "Wall time: " in session.run("%%time\n1").stdout
    assert " per loop " in session.run("%timeit -n 2 -r 1 sum(range(10))").stdout
    assert "Prints the values" in session.run("print?").stdout
    session.run("def f():\n    return 'source'")
    assert "return 'source'" in session.run("f??").stdout
    assert "ncalls" in session.run("%prun sum(range(10))").stdout
    assert "def f():" in session.run("%history").stdout


def test_display_cells(session: Session) -> None:
    for magic, mime in (("html", "text/html"), ("markdown", "text/markdown"), ("latex", "text/latex"),
                        ("javascript", "application/javascript"), ("svg", "image/svg+xml")):  # fmt: skip
        (result,) = session.run(f"%%{magic}\n<svg/>").results
        assert result[mime].strip() == "<svg/>"


def test_capture(session: Session) -> None:
    outcome = session.run(
        "%%capture held\nimport sys; print('o'); print('e', file=sys.stderr); display(4); 5"
    )
    assert (outcome.status, outcome.stdout, outcome.stderr, outcome.results) == ("ok", "", "", [])
    assert value(session.run("held.stdout, held.stderr, len(held.outputs)")) == "('o\\n', 'e\\n', 2)"
    assert session.run("print('heard')").stdout == "heard\n"
    outcome = session.run("%%capture\n1 / 0")
    assert (outcome.status, (outcome.error or {})["name"]) == ("error", "ZeroDivisionError")


@pytest.mark.parametrize(
    "code",
    [
        "%time 1 / 0",
        "%%time\n1 / 0",
        "%timeit 1 / 0",
        "%prun 1 / 0",
        "open('t.py', 'w').write('1 / 0')\n%run t.py",
    ],
)
def test_an_error_inside_a_magic_is_the_cells_error(session: Session, code: str) -> None:
    outcome = session.run(code)
    assert (outcome.status, (outcome.error or {})["name"]) == ("error", "ZeroDivisionError")
    assert "IPython" not in traceback(outcome)


def test_unknown_magics_and_failing_scripts(session: Session) -> None:
    for code, message in (("%nosuch", "Line magic function `%nosuch` not found."),
                          ("%%nosuch\nx", "Cell magic `%%nosuch` not found.")):  # fmt: skip
        outcome = session.run(code)
        assert outcome.error == {
            "name": "UsageError",
            "value": message,
            "traceback": f"UsageError: {message}",
        }
    outcome = session.run("%%bash\necho before; exit 3")
    assert (outcome.status, outcome.stdout) == ("error", "before\n")
    assert "non-zero exit status 3" in traceback(outcome)
    assert "IPython" not in traceback(outcome)
    assert session.run("%run nosuch.py").status == "error"


@pytest.mark.parametrize(
    "code",
    [
        "%pip install requests", "!pip install requests", "!pip3 install -q requests", "! pip install requests",
        "%pip install -q requests", "if True:\n    !pip install requests", "!python -m pip install requests",
        "!python3 -m pip install --upgrade requests", "%conda install x", "!conda install -y x", "%uv pip install x",
        "!uv pip install x",
    ],
)  # fmt: skip
def test_installing_says_what_can_be_done_instead(session: Session, code: str) -> None:
    outcome = session.run(code)
    assert outcome.status == "ok"
    assert "no network" in outcome.stdout
    assert "environment" in outcome.stdout


def test_pip_list_and_words_that_only_look_like_it(session: Session) -> None:
    assert "\nnumpy " in session.run("!pip list").stdout
    assert "\nnumpy " in session.run("%pip list").stdout
    assert session.run("!echo pip install x").stdout == "pip install x\n"


def test_no_editor_no_debugger(session: Session) -> None:
    for code in ("%edit", "%debug"):
        assert "nobody could answer" in session.run(code).stdout
    for code in ("breakpoint()", "import pdb; pdb.set_trace()\nx = 1"):
        outcome = session.run(code)
        assert (outcome.error or {"name": ""})["name"] == "BdbQuit"
    assert plain(session.run("1 + 1")) == ["2"]


def test_line_magics_leave_python_alone(session: Session) -> None:
    assert value(session.run("x = 7\nx % 4")) == "3"
    assert value(session.run("'%pwd !ls ?'")) == "'%pwd !ls ?'"
    assert value(session.run("'''\n%pwd\n!ls\n'''")) == "'\\n%pwd\\n!ls\\n'"
    assert value(session.run(">>> 1 + 1")) == "2"
    assert value(session.run("In [3]: 1 + 2")) == "3"
    assert value(session.run("    indented = 4\n    indented")) == "4"
