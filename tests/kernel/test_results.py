"""Rich results: what `display()` and a cell's value become."""

from __future__ import annotations

import base64
import json

import pytest

from tests.driver import Session
from tests.kernel.reading import kinds, plain, value

IMPORTS = "from IPython.display import *\n"


@pytest.mark.parametrize(
    ("code", "mime", "content"),
    [
        ("HTML('<b>x</b>')", "text/html", "<b>x</b>"),
        ("Markdown('**x**')", "text/markdown", "**x**"),
        ("Latex('$x$')", "text/latex", "$x$"),
        ("Math('x')", "text/latex", "$\\displaystyle x$"),
        ("JSON({'a': [1, None]})", "application/json", '{"a": [1, null]}'),
        ("Javascript('alert(1)')", "application/javascript", "alert(1)"),
        ("SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')", "image/svg+xml", "<svg xmlns="),
        (
            "Image(data=b'\\x89PNG-like', format='png')",
            "image/png",
            base64.b64encode(b"\x89PNG-like").decode(),
        ),
        ("IFrame('http://example', 1, 1)", "text/html", "<iframe"),
    ],
)
def test_display_objects(session: Session, code: str, mime: str, content: str) -> None:
    for cell in (code, f"display({code})"):
        outcome = session.run(IMPORTS + cell)
        assert outcome.status == "ok"
        (result,) = outcome.results
        assert content in result[mime]


def test_data_frames_and_their_styles(session: Session) -> None:
    outcome = session.run("import pandas as pd; df = pd.DataFrame({'a': [1, 2]}); df")
    (result,) = outcome.results
    assert result["text/plain"] == "   a\n0  1\n1  2"
    assert "<table" in result["text/html"]
    (result,) = session.run("df.style.highlight_max()").results
    assert "background-color" in result["text/html"]


def test_sympy(session: Session) -> None:
    (result,) = session.run("import sympy; sympy.Symbol('x') ** 2 / 3").results
    assert result["text/plain"] == "x**2/3"
    assert "\\frac{x^{2}}{3}" in result["text/latex"]


def test_pictures_of_pillow(session: Session) -> None:
    (result,) = session.run("from PIL import Image; Image.new('RGB', (3, 3))").results
    assert base64.b64decode(result["image/png"]).startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "show", ["figure", "display(figure)", "figure.show()", "import plotly; plotly.io.show(figure)"]
)
def test_plotly(session: Session, show: str) -> None:
    outcome = session.run(f"import plotly.express as px; figure = px.line(x=[1, 2], y=[3, 4])\n{show}")
    assert (outcome.status, outcome.stderr) == ("ok", "")
    (result,) = outcome.results
    assert json.loads(result["application/vnd.plotly.v1+json"])["data"][0]["type"] == "scatter"
    assert result["text/html"].startswith("<div")
    assert len(result["text/html"]) < 100_000, "the whole of plotly.js is in it"


def test_display_ids_updates_and_clearing(session: Session) -> None:
    outcome = session.run(
        IMPORTS
        + "handle = display('a', display_id='k'); update_display('b', display_id='k'); handle.update('c')\n"
        "clear_output(); clear_output(wait=True); empty = display(display_id=True); print(type(empty).__name__)"
    )
    assert outcome.status == "ok"
    assert plain(outcome) == ["'a'", "'b'", "'c'"]
    assert outcome.stdout == "DisplayHandle\n"


def test_raw_bundles_and_odd_keys(session: Session) -> None:
    outcome = session.run("display({'text/plain': 'p', 'application/x-mine': {'n': 1}, 5: 'five'}, raw=True)")
    assert outcome.results == [{"text/plain": "p", "application/x-mine": '{"n": 1}', "5": "five"}]
    outcome = session.run("display({'text/plain': '\\ud800', 'a\\ud800': object()}, raw=True); 1")
    assert outcome.status == "ok"
    assert plain(outcome) == ["?", "1"]


def test_the_value_comes_last(session: Session) -> None:
    outcome = session.run(
        "import matplotlib.pyplot as plt\ndisplay('first'); plt.plot([1, 2]); plt.figure(); plt.plot([3])\n42"
    )
    assert plain(outcome) == ["'first'", *["<Figure size 640x480 with 1 Axes>"] * 2, "42"]
    assert "image/png" in outcome.results[1]


@pytest.mark.parametrize("code", ["1;", "None", "x = 1", "# nothing", "", "\n\n", "def f(): pass", "5 ; "])
def test_no_value(session: Session, code: str) -> None:
    outcome = session.run(code)
    assert (outcome.status, outcome.results, outcome.stdout, outcome.stderr) == ("ok", [], "", "")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1 + 1", "2"), ("'a'", "'a'"), ("True", "True"), ("1.5", "1.5"), ("[1, 'a', None]", "[1, 'a', None]"),
        ("{'b': 1, 'a': 2}", "{'b': 1, 'a': 2}"), ("1 + 2j", "(1+2j)"), ("b'x'", "b'x'"), ("(1,)", "(1,)"),
        ("{3, 1}", "{1, 3}"), ("float('nan')", "nan"), ("print", "<function print(*args, sep=' ', end='\\n', file=None, flush=False)>"),
        ("...", "Ellipsis"), ("class A:\n    def __repr__(self): return 'é\\n漢'\nA()", "é\n漢"),
        ("'\\ud800'", "'\\ud800'"), ("class S(str): pass\nS('x')", "'x'"),
        ("class I(int):\n    def __repr__(self): return 'mine'\n[I()]", "[mine]"),
        ("%precision 2\n3.14159", "3.14"), ("import numpy as np; np.arange(3)", "array([0, 1, 2])"),
        ("list(range(100))[-1:]", "[99]"), ("'x' * 200", repr("x" * 200)),
    ],
)  # fmt: skip
def test_values(session: Session, code: str, expected: str) -> None:
    assert value(session.run(code)) == expected


def test_long_containers_are_broken_into_lines(session: Session) -> None:
    assert value(session.run("list(range(40))")) == "[" + ",\n ".join(map(str, range(40))) + "]"


def test_history_of_values(session: Session) -> None:
    session.run("'one'")
    session.run("'two'")
    assert value(session.run("(_, __, Out[1], _1, In[1])")) == "('two', 'one', 'one', 'one', \"'one'\")"
    assert value(session.run("Out[3][0]")) == "'two'"


def test_old_values_are_forgotten_without_a_word(session: Session) -> None:
    session.run("get_ipython().displayhook.cache_size = 20")
    first = session.run("'first'")
    assert value(first) == "'first'"
    for number in range(30):
        outcome = session.run(str(number))
        assert (value(outcome), outcome.stdout, outcome.stderr) == (str(number), "", "")
    assert value(session.run("(_, len(Out) <= 20, 'first' in Out.values(), '_2' in globals())")) == (
        "(29, True, False, False)"
    )


def test_a_printer_that_the_user_registers(session: Session) -> None:
    session.run(
        "get_ipython().display_formatter.formatters['text/html'].for_type(int, lambda n: f'<i>{n}</i>')"
    )
    assert kinds(session.run("7"))[-1] == {"text/plain", "text/html"}
    session.run(
        "get_ipython().display_formatter.formatters['text/plain'].for_type(int, lambda n, p, c: p.text('n'))"
    )
    assert value(session.run("7")) == "n"
    assert value(session.run("[7]")) == "[n]"


def test_a_value_that_cannot_be_shown(session: Session) -> None:
    outcome = session.run("class R:\n    def __repr__(self): raise ValueError('bad repr')\nR()")
    assert (outcome.status, outcome.results) == ("ok", [])
    assert outcome.stderr.startswith("Traceback")
    assert outcome.stderr.endswith("ValueError: bad repr\n")
    assert "IPython" not in outcome.stderr
    outcome = session.run(
        "class H:\n    def _repr_html_(self): raise ValueError('bad html')\n    def __repr__(self): return 'H'\nH()"
    )
    assert plain(outcome) == ["H"]
    assert "bad html" in outcome.stderr
    assert session.run("class N:\n    def __repr__(self): return 5\nN()").stderr.startswith(
        "TypeError: __repr__ returned"
    )
