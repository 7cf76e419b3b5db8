"""When Python that is being typed is complete, and how completions fit the word under the cursor."""

from __future__ import annotations

import pytest

from onehop.cli.reading import fit, is_complete
from onehop.cli.showing import coloured


@pytest.mark.parametrize(
    "source",
    [
        "1 + 1",
        "x = 1; y = 2",
        "await f()",
        "for i in x:\n    pass\n",
        "%timeit 1",
        "!ls",
        "x = !ls",
        "len?",
        "a = (\n  1,\n)",
        "x = 1\ny = 2",
        "%%bash\nls\n",
        "1 +",
        "'''\na'''",
    ],
)
def test_complete(source: str) -> None:
    assert is_complete(source)


@pytest.mark.parametrize(
    "source",
    [
        "def f(",
        "for i in x:",
        "for i in x:\n    pass",
        "a = (\n  1,",
        "'''a",
        "%%bash",
        "%%bash\nls",
        "x = \\",
        "for i in x:\n    !ls",
        "@cache",
        "async def f():\n    await g()",
        "!ls \\",
    ],
)
def test_not_yet(source: str) -> None:
    assert not is_complete(source)


def test_completions_end_at_the_cursor() -> None:
    assert fit("df.co", "df.co", ["df.columns", "df.copy"]) == ["df.columns", "df.copy"]
    assert fit("df.co", ".co", [".columns"]) == ["df.columns"]
    assert fit("co", "df['co", ["df['column"]) == ["column"]
    assert fit("a", "b", ["bc"]) == []
    assert fit("x", "x", ["x\nrm -rf", "x\x1b[2J", "xy"]) == ["xy"]


def test_a_traceback_in_colour_says_the_same() -> None:
    text = "Traceback (most recent call last):\n  File <cell 1>, line 1\n    1 / 0\nZeroDivisionError: division by zero\n"
    shown = coloured(text)
    assert "\x1b[31mZeroDivisionError\x1b[0m: division by zero" in shown
    assert "\x1b[36m  File <cell 1>, line 1\x1b[0m" in shown
