"""README's table of protocols: every mark leads to a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "wires" / "README.md"
TABLE = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
LINK = re.compile(r"\]\(([^)#]+)(?:#(\w+))?\)")
MARK = re.compile(r"·|\u2013|\[✓\]\([^)]+#\w+\)")


def test_every_mark_is_a_test() -> None:
    links = [(ROOT, *one) for one in LINK.findall("\n".join(TABLE))]
    links += [(PAGES.parent, *one) for one in LINK.findall(PAGES.read_text())]
    tests = [name for _, path, name in links if name and path.endswith(".py")]
    assert len(tests) > 40
    for folder, path, name in links:
        file = (folder / path).resolve()
        assert file.is_file(), path
        if not name or file.suffix != ".py":
            continue
        source = file.read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{path} has no {name}"
        if not name.startswith("test_"):  # a flow: another file runs all of them
            assert re.search(rf"^FLOWS\b[^\0]*\b{name}\b", source, re.MULTILINE), f"{name} is run by nobody"


def test_every_cell_has_a_mark() -> None:
    rows = [line.strip("|").split("|") for line in TABLE]
    head, *body = rows
    assert len(body) > 15
    for feature, *cells in body:
        assert len(cells) == len(head) - 1, feature
        assert all(MARK.fullmatch(cell.strip()) for cell in cells), feature
        assert any("✓" in cell for cell in cells), feature
