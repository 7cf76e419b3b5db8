"""The tour, README and docs/sdk.md: what they show is what happens, embedded and on a server."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import onehop
from onehop.environments import Environment
from tests.api.gateway import Gateway
from tests.cli.processes import variables
from tests.client.test_public import PAIRS

ROOT = Path(__file__).parent.parent.parent
TOUR = ROOT / "examples" / "sdk_tour.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOOLS = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n```\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
KEYS = "\n12. Keys\n"


def python(*arguments: str, folder: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=variables(**more),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def printed(onehop_home: Path, environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the tour prints with an engine of its own."""
    return python(str(TOUR), folder=tmp_path_factory.mktemp("tour"), ONEHOP_HOME=str(onehop_home))


def test_the_tour_prints_what_it_shows(printed: str) -> None:
    assert printed == (TOUR.with_suffix(".txt")).read_text(encoding="utf-8")


def test_the_tour_prints_the_same_on_a_server(printed: str, gateway: Gateway, tmp_path: Path) -> None:
    on_server = python(str(TOUR), folder=tmp_path, ONEHOP_URL=gateway.url)
    assert KEYS in printed
    assert on_server == printed.partition(KEYS)[0]


def test_the_tour_makes_every_public_call() -> None:
    text = TOUR.read_text(encoding="utf-8")
    missing = [name for name in onehop.__all__ if f"onehop.{name}" not in text]
    for face, _ in PAIRS:
        calls = [name for name in vars(face) if not name.startswith("_")]
        calls += [
            name
            for name, value in inspect.getmembers(face, callable)
            if not name.startswith("_") and name not in calls
        ]
        missing += [f"{face.__name__}.{name}" for name in calls if not re.search(rf"\.{name}\b", text)]
    assert missing == []


@pytest.mark.parametrize(
    ("page", "least"),
    [(README, 1), (GUIDE, 5), (TOOLS, 1)],
    ids=["README.md", "docs/sdk.md", "docs/tools.md"],
)
def test_the_examples_print_what_is_shown(page: str, least: int, gateway: Gateway, tmp_path: Path) -> None:
    examples = EXAMPLE.findall(page)
    assert len(examples) >= least
    assert page.count("```python") == len(examples), "an example without its output"
    mark = "--- next ---"
    program = f"print({mark!r})\n".join(code for code, _ in examples)
    shown = python("-c", program, folder=tmp_path, ONEHOP_URL=gateway.url)
    assert shown.split(f"{mark}\n") == [output for _, output in examples]


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", GUIDE) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
