"""THREATS.md is true: every test it names exists."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_test_that_the_page_names_exists() -> None:
    page = (HERE.parents[1] / "THREATS.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    defined = set(re.findall(r"def (test_\w+)\(", "".join(p.read_text() for p in HERE.glob("test_*.py"))))
    assert len(named) > 50
    assert named - defined == set()
