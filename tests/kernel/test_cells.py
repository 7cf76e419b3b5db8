"""Plain cells take a short way of our own; whatever can be seen of it is the same as on IPython's way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver import Driver, Session

TO_IPYTHON = "import ast\nget_ipython().ast_transformers.append(ast.NodeTransformer())"
"""A transformer that changes nothing: from here on IPython runs every cell."""
SHORT = "get_ipython().cells.take('1')"

STATE = (
    "[(name, value) for name, value in sorted(globals().items()) if name.startswith(('_i', '_1', '_2', '_3', '_4', '_5'))"
    " and name not in ('_ih', '_ii', '_iii')], In[2:], sorted(Out.items()), [_i, _ii, _iii], get_ipython().execution_count"
)

CELLS = [
    ["1 + 1", "_ * 10", "_ + __", "Out"],
    ["x = 1", "x", "x;", "x; ", "x # ;", "';'", "x; x"],
    ["_ = 5", "7", "_", "del _", "8", "_"],
    ["None", "print(1)", "'a'", "[1, 'b']", "{'a': [1.5]}", "range(3)"],
    ["a = 1\nb = 2\na + b", "for i in range(2):\n    i\n", "if True: 3", "(1,\n 2)"],
    ["print('before')\nreturn 1", "def f():\n    return g()\n", "f()", "1/0", "_"],
    ["print('one')\nprint('two')\n1 +", "'''open", "  1", "x = 1\n  y = 2", "break"],
    ["raise SystemExit", "raise SystemExit(3)", "raise KeyboardInterrupt", "1"],
    ["import sys\nsys.displayhook = print", "5", "sys.excepthook is sys.__excepthook__"],
    ["import builtins\nbuiltins._ = str", "5", "_", "6", "del builtins._", "7", "_"],
    ["Out.clear()", "5", "_", "del Out, _oh", "1", "_oh", "2"],
    ["class A:\n    def __repr__(self):\n        return 'an a'\nA()", "_", "type(_).__name__", "A"],
    ["class B:\n    def __repr__(self):\n        raise ValueError('no')\nB()", "1"],
    ["def f(n):\n    return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError:\n    print('deep')", "1"],
    ["\u00fc = '\u00fc'", "\u00fc", "'\\ud800'", "# only a comment", "\n\n1\n\n"],
    ["x: int = 3\nx", "x += 1", "x", "lambda: 0", "global y\ny = 1", "y", "assert x == 5, 'not five'"],
    ["1\n2\n3", "print(_)", "1; 2", "x = yield", "nonlocal z"],
    ["get_ipython().run_cell('7').result", "_ + 1", "get_ipython().run_cell('1/0').success", "2"],
    ["f'{1 + 1}'", "with open('a.txt', 'w') as f: f.write('x')", "open('a.txt').read()"],
]


@pytest.fixture(scope="module")
def both(driver: Driver) -> Iterator[tuple[Session, Session]]:
    """Two fresh sessions each time would cost more than all cells: %reset starts the names anew."""
    with driver.session() as short, driver.session() as long:
        short.run("pass")
        long.run(TO_IPYTHON)
        yield short, long


@pytest.mark.parametrize("cells", CELLS, ids=[cells[0][:24] for cells in CELLS])
def test_like_ipython(both: tuple[Session, Session], cells: list[str]) -> None:
    seen = []
    for session in both:
        session.run("%reset -f in out")
        session.run("%reset -f")
        session.run("get_ipython().execution_count = 1")
        came = []
        for code in [*cells, STATE]:
            outcome = session.run(code)
            came.append(
                (code, outcome.status, outcome.stdout, outcome.stderr, outcome.results, outcome.error)
            )
        seen.append(came)
    assert seen[0] == seen[1]


def test_both_ways_were_taken(both: tuple[Session, Session]) -> None:
    short, long = both
    assert "True" in str(short.run(SHORT).results)
    assert "False" in str(long.run(SHORT).results)


@pytest.mark.parametrize(
    "custom",
    [
        "get_ipython().ast_transformers = [__import__('ast').NodeTransformer()]",
        "get_ipython().ast_node_interactivity = 'all'",
        "get_ipython().events.register('pre_run_cell', lambda info: print('before'))",
        "get_ipython().events.register('pre_execute', lambda: print('before'))",
        "get_ipython().set_custom_exc((ValueError,), lambda *a, **k: print('mine'))",
        "get_ipython().input_transformers_post.append(lambda lines: lines)",
    ],
)
def test_customised_shells_are_ipythons(session: Session, custom: str) -> None:
    session.run(custom)
    plain = session.run("get_ipython().shortcuts.is_plain('1') and get_ipython().cells.take('1')")
    assert "False" in str(plain.results)


def test_interactivity_all(session: Session) -> None:
    session.run("get_ipython().ast_node_interactivity = 'all'")
    assert len(session.run("1\n2").results) == 2
