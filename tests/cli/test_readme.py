"""README shows what a run prints, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onehop.cli.serve import curl
from tests.cli.processes import onehop

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_is_shown(tmp_path: Path, onehop_home: Path) -> None:
    (command,) = re.findall(r"^onehop (run .*)$", README, re.MULTILINE)
    arguments = [str(ROOT / word) if word.startswith("examples/") else word for word in command.split()]
    done = onehop(*arguments, cwd=tmp_path, ONEHOP_HOME=str(onehop_home))
    assert f"\n```\n{done.stdout}```\n" in README
    names = [line.split()[0] for line in done.stderr.splitlines() if line.startswith("  ")]
    assert names == re.findall(r"^  (\S+) +[\d.]+ kB$", README, re.MULTILINE)


def test_the_curl_line_is_that_of_the_start_screen() -> None:
    assert f"\n{curl('http://127.0.0.1:8000')}\n" in README


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
