"""docs/wires/README.md: every mark leads to a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "wires" / "README.md"
LINK = re.compile(r"\]\(([^)#]+)(?:#(\w+))?\)")
MARK = re.compile(r"·|\u2013|\[✓\]\([^)]+#\w+\)")


def test_every_mark_is_a_test() -> None:
    links = LINK.findall(PAGE.read_text())
    tests = [(path, name) for path, name in links if name]
    assert len(tests) > 40
    for path, name in links:
        file = (PAGE.parent / path).resolve()
        assert file.is_file(), path
        if not name:
            continue
        source = file.read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{path} has no {name}"
        if not name.startswith("test_"):  # a flow: another file runs all of them
            assert re.search(rf"^FLOWS\b[^\0]*\b{name}\b", source, re.MULTILINE), f"{name} is run by nobody"


def test_every_cell_has_a_mark() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    head, *body = rows
    assert len(body) > 15
    for feature, *cells in body:
        assert len(cells) == len(head) - 1, feature
        assert all(MARK.fullmatch(cell.strip()) for cell in cells), feature
        assert any("✓" in cell for cell in cells), feature
