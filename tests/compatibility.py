"""COMPATIBILITY.md from the tests: `make compatibility` runs those marked `compat` and writes down what they gave.

A row is a feature of a client; its columns are the versions that the locks pin. A row exists only by a test, and a
test that fails gives no document. test_compatibility.py holds that the document has exactly the rows of the tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "COMPATIBILITY.md"
OUTSIDE = Path(__file__).parent / "outside.md"
"""Public suites that no registry carries: run by hand, dated."""

CLIENTS = {
    "OpenAI": ("openai",),
    "Anthropic": ("anthropic",),
    "Gemini": ("google-genai",),
    "E2B": ("e2b-code-interpreter", "e2b"),
    "SandboxAI": ("sandboxai-client",),
    "AWS Lambda": ("boto3",),
    "Tutorial": (),
    "LibreChat": (),
    "dify": (),
    "Otari": (),
    "Jupyter": ("jupyter-client", "jupyter-kernel-client"),
    "MCP": ("mcp",),
    "LangChain": ("deepagents", "langchain-tests"),
    "pydantic-ai": ("pydantic-ai-slim",),
    "smolagents": ("smolagents",),
    "AI SDK": (),
}
"""What a marker may name, and the packages whose versions stand beside it."""
PLAIN = "HTTP"
"""The version of a client that is a protocol only."""
LOCKS = {"current": "dev", "older": "older"}
FOLDERS = {"LangChain": "langchain"}

HEAD = """\
# Compatibility

What was tried with unmodified clients, by tests that run with every change; each ✓ is a link to its test. This file is
written by `make compatibility`, which runs them.
"""


@dataclass(frozen=True, order=True)
class Row:
    """One mark of the document.

    Args:
        version: the packages' versions, as the lock has them.
        cannot: why it does not work; the test is of the error that says so.
        count: of a public suite: how many of its tests passed.
    """

    client: str
    feature: str
    version: str
    test: str
    cannot: str = ""
    count: str = ""


def versions(client: str, sdk: str) -> str:
    """From the lock that `sdk` (current or older) is installed by."""
    lock = (ROOT / f"requirements-{FOLDERS.get(client, LOCKS[sdk])}.lock").read_text()
    found = []
    for package in CLIENTS[client]:
        match = re.search(rf"^{re.escape(package)}==(\S+)", lock, re.MULTILINE)
        assert match is not None, f"{package} is not in the lock of {sdk}"
        found.append(f"{package} {match[1]}")
    return ", ".join(found) or PLAIN


def row(item: pytest.Item, count: str = "") -> Row | None:
    """Of a test with `@pytest.mark.compat(client, feature, cannot=…, version=…, sdk=…, count=…)`; `sdk`, also as its
    parameter, is current or older; `count` is of a suite, and the test holds that it is so."""
    marker = item.get_closest_marker("compat")
    if marker is None:
        return None
    client, feature = marker.args
    callspec = getattr(item, "callspec", None)
    given = callspec.params.get("sdk") if callspec is not None else None
    name = str(given or marker.kwargs.get("sdk", "current"))
    test = f"{item.nodeid.partition('::')[0]}#{item.location[2].partition('[')[0]}"
    version = marker.kwargs.get("version") or versions(client, name)
    count = marker.kwargs.get("count", count)
    return Row(client, feature, version, test, marker.kwargs.get("cannot", ""), count)


def document(rows: list[Row]) -> str:
    """The whole text."""
    lines = [HEAD]
    for client in CLIENTS:
        mine = sorted({one for one in rows if one.client == client})
        if not mine:
            continue
        columns = sorted({one.version for one in mine}, reverse=True)
        lines += [f"## {client}", "", f"| | {' | '.join(columns)} |", f"|---|{':-:|' * len(columns)}"]
        for feature in dict.fromkeys(one.feature for one in mine):
            cells = [
                _cell([one for one in mine if (one.feature, one.version) == (feature, column)])
                for column in columns
            ]
            lines.append(f"| {feature} | {' | '.join(cells)} |")
        lines.append("")
    if OUTSIDE.exists():
        lines.append(OUTSIDE.read_text())
    return "\n".join(lines)


def _cell(rows: list[Row]) -> str:
    if not rows:
        return ""
    one = rows[0]
    if len(rows) > 1:
        # A suite whose tests are a class's: the row links to that.
        count, test = f"{len(rows)} of {len(rows)}", one.test.rpartition(".")[0]
        return f"[{count}]({test})"
    mark = f"[{one.count or ('no' if one.cannot else '✓')}]({one.test})"
    return f"{mark}: {one.cannot}" if one.cannot else mark


class Recorder:
    """The plugin behind `--compatibility`."""

    def __init__(self, *, collect_only: bool) -> None:
        self.rows: list[Row] = []
        self._items: dict[str, pytest.Item] = {}
        self._collect_only = collect_only

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._items = {item.nodeid: item for item in session.items}
        if self._collect_only:
            self.rows = [found for item in session.items if (found := row(item)) is not None]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or not report.passed:
            return
        count = str(dict(report.user_properties).get("suite", ""))
        found = row(self._items[report.nodeid], count)
        if found is not None:
            self.rows.append(found)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == 0 and not self._collect_only:
            DOCUMENT.write_text(document(self.rows))
