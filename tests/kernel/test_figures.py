"""matplotlib: figures are shown without being asked for, once, and closed."""

from __future__ import annotations

import base64
import json

import pytest

from tests.driver import Session
from tests.kernel.reading import kinds, plain, value

PYPLOT = "import matplotlib.pyplot as plt\n"
FIGURE = "<Figure size 640x480 with 1 Axes>"
PNG = {"text/plain", "image/png"}
SVG = {"text/plain", "image/svg+xml"}


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("plt.plot([1, 2]);", [PNG]),
        ("plt.plot([1, 2]); plt.show()", [PNG]),
        ("plt.plot([1, 2]); plt.show(block=False)", [PNG]),
        ("fig, ax = plt.subplots(); ax.plot([1]); fig", [PNG]),
        ("fig, ax = plt.subplots(); ax.plot([1]); display(fig)", [PNG]),
        ("fig, ax = plt.subplots(); ax.plot([1]); fig.show()", [PNG]),
        ("fig, ax = plt.subplots(); ax.plot([1]); plt.show(); fig", [PNG, {"text/plain"}]),
        ("fig, ax = plt.subplots(); ax.plot([1]); display(fig); fig", [PNG, {"text/plain"}]),
        ("fig, ax = plt.subplots(); ax.plot([1]); display(fig); display(fig)", [PNG, PNG]),
        ("plt.plot([1]); plt.show(); plt.plot([2]);", [PNG, PNG]),
        ("plt.plot([1]); plt.figure(); plt.plot([2]); 5", [PNG, PNG, {"text/plain"}]),
        ("plt.plot([1]); plt.savefig('a.png'); plt.close()", []),
        ("plt.figure();", []),
        ("plt.figure().suptitle('only a title');", [PNG]),
        ("plt.figimage([[1, 2], [3, 4]]);", [PNG]),
        ("from matplotlib.figure import Figure\nf = Figure(); f.subplots().plot([1]); f", [PNG]),
        ("import matplotlib; matplotlib.use('Agg'); plt.plot([1]); plt.show()", [PNG]),
        ("import seaborn as sns, numpy as np; sns.heatmap(np.eye(3));", [PNG]),
        ("import pandas as pd; pd.Series([1, 2]).plot();", [PNG]),
        ("%matplotlib inline\nplt.plot([1]);", [PNG]),
        ("plt.ion(); plt.plot([1]); plt.ioff();", [PNG]),
    ],
)
def test_shown_once(session: Session, code: str, shown: list[set[str]]) -> None:
    outcome = session.run(PYPLOT + code)
    assert (outcome.status, outcome.stderr) == ("ok", "")
    assert kinds(outcome) == shown
    for result in outcome.results:
        if "image/png" in result:
            assert base64.b64decode(result["image/png"]).startswith(b"\x89PNG\r\n\x1a\n")
    assert value(session.run("plt.get_fignums()")) == "[]", "left open"
    assert session.run("plt.get_fignums();").results == []


def test_a_figure_of_an_earlier_cell_is_shown_again_when_asked_for(session: Session) -> None:
    session.run(PYPLOT + "fig, ax = plt.subplots(); ax.plot([1]);")
    assert kinds(session.run("fig")) == [PNG]
    assert kinds(session.run("ax.set_title('changed'); display(fig)")) == [PNG]


def test_figures_come_before_what_is_printed_after_them(session: Session) -> None:
    outcome = session.run(PYPLOT + "print('a'); plt.plot([1]); plt.show(); print('b')")
    assert [event.kind for event in outcome.events] == ["stdout", "result", "stdout", "end"]


@pytest.mark.parametrize(
    "choose",
    [
        "%config InlineBackend.figure_formats = ['svg']",
        "%config InlineBackend.figure_format = 'svg'",
        "import matplotlib_inline.backend_inline as b; b.set_matplotlib_formats('svg')",
    ],
)
def test_svg(session: Session, choose: str) -> None:
    assert session.run(choose).status == "ok"
    outcome = session.run(PYPLOT + "plt.plot([1, 2]);")
    assert kinds(outcome) == [SVG]
    assert outcome.results[0]["image/svg+xml"].lstrip().startswith("<?xml")
    assert kinds(session.run("%config InlineBackend.figure_formats = ['png', 'svg']\nplt.plot([1]);")) == [
        PNG | SVG
    ]
    assert kinds(session.run("%config InlineBackend.figure_formats = ['retina']\nplt.plot([1]);")) == [PNG]


def test_a_figure_that_cannot_be_drawn_is_an_error(session: Session) -> None:
    for code in (
        "plt.plot([1]); plt.title('$\\\\nosuch$');",
        "plt.plot([1]); plt.title('$\\\\nosuch$'); plt.show()",
    ):
        outcome = session.run(PYPLOT + code)
        assert outcome.status == "error"
        assert outcome.error is not None
        assert outcome.error["name"] == "ValueError"
        assert kinds(session.run("plt.plot([1]);")) == [PNG], "the broken one was kept"


def test_a_figure_is_shown_when_the_code_fails_after_it(session: Session) -> None:
    outcome = session.run(PYPLOT + "plt.plot([1]); 1 / 0")
    assert (outcome.status, kinds(outcome)) == ("error", [PNG])


def test_capture_keeps_the_figure(session: Session) -> None:
    assert session.run(f"%%capture held\n{PYPLOT}plt.plot([1]); print('x')").results == []
    assert value(session.run("held.stdout, [sorted(o.data) for o in held.outputs]")) == (
        "('x\\n', [['image/png', 'text/plain']])"
    )


def test_plots_in_child_processes(session: Session) -> None:
    outcome = session.run(
        "open('p.py', 'w').write('import matplotlib.pyplot as plt; plt.plot([1]); plt.savefig(\"p.png\")')\n"
        "import subprocess, sys; done = subprocess.run([sys.executable, 'p.py'], capture_output=True, text=True)\n"
        "import os; (done.returncode, os.path.exists('p.png'))",
        timeout_s=60,
    )
    assert value(outcome) == "(0, True)"


def test_animation(session: Session) -> None:
    outcome = session.run(
        PYPLOT + "from matplotlib.animation import FuncAnimation; from IPython.display import HTML\n"
        "fig, ax = plt.subplots(); line, = ax.plot([0, 1]); plt.close(fig)\n"
        "HTML(FuncAnimation(fig, lambda i: (line,), frames=2).to_jshtml())",
        timeout_s=60,
    )
    assert [("text/html" in kind) for kind in kinds(outcome)] == [True]


def test_pylab(session: Session) -> None:
    outcome = session.run("%pylab inline\nplot(arange(3));", timeout_s=60)
    assert (outcome.status, plain(outcome)) == ("ok", [FIGURE])


def test_a_figures_data_where_it_is_asked_for(session: Session) -> None:
    """By the variable that E2B's sandboxes have; a figure that the package cannot read has its picture only."""
    plot = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.title('up'); plt.show()"
    assert set(session.run(plot).results[0]) == {"text/plain", "image/png"}
    session.run("import os; os.environ['E2B_SANDBOX'] = 'true'")
    shown = session.run(plot).results[0]
    assert set(shown) == {"text/plain", "image/png", "e2b/chart"}
    assert json.loads(shown["e2b/chart"])["title"] == "up"
    session.run("import e2b_charts; e2b_charts.chart_figure_to_dict = lambda figure: 1 / 0")
    assert set(session.run(plot).results[0]) == {"text/plain", "image/png"}
