"""E2B's unmodified clients, of two versions, against this server: only their environment says where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.gateway import Gateway
from tests.wires.test_examples import OLDER

ROOT = Path(__file__).parents[3]
KEY = "e2b_" + "0" * 40


def environ(url: str, sdk: str, key: str = KEY) -> dict[str, str]:
    return {
        **os.environ,
        "E2B_API_URL": url + "/e2b",
        "E2B_SANDBOX_URL": url + "/e2b",
        "E2B_API_KEY": key,
        "PYTHONPATH": os.pathsep.join([*([str(OLDER)] if sdk == "older" else []), str(ROOT)]),
    }


FLOWS = {
    "lifecycle": "create, connect, list, kill, timeout, metrics, env, metadata",
    "run_code": "run_code: streamed output, state, errors",
    "rich_results": "run_code: tables, HTML, Markdown, LaTeX, JSON",
    "charts": "run_code: figures as PNG and as data (e2b-charts)",
    "contexts": "contexts: create, list, restart, remove; cells wait their turn",
    "languages": "languages: Python and bash",
    "interrupt": "interrupt by hang-up; variables stay",
    "files": "files: read, write, list, rename, remove, exists, info, make_dir",
    "signed": "files: signed addresses, up and down",
    "commands": "commands: run, background, stdin, list, kill, connect, timeout",
    "async_client": "AsyncSandbox",
}


@pytest.mark.parametrize("sdk", ["current", "older"])
@pytest.mark.parametrize(
    "flow", [pytest.param(name, marks=pytest.mark.compat("E2B", feature)) for name, feature in FLOWS.items()]
)
def test_flow(gateway: Gateway, flow: str, sdk: str) -> None:
    run(gateway.url, flow, sdk)


@pytest.mark.compat(
    "E2B",
    "watch, PTY, pause, snapshot, fork",
    cannot="not built; a clear error says which of them there is not",
)
@pytest.mark.parametrize("sdk", ["current", "older"])
def test_what_there_is_not(gateway: Gateway, sdk: str) -> None:
    run(gateway.url, "unsupported", sdk)


@pytest.mark.compat("E2B", "the migration example: only the environment differs")
@pytest.mark.parametrize("sdk", ["current", "older"])
def test_the_migration(gateway: Gateway, sdk: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "wires" / "e2b_migration.py")],
        env=environ(gateway.url, sdk), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "rows: 3",
        "printed: {'Bergen': 5, 'Oslo': 7}",
        "chart: bar [('Bergen', 5.0), ('Oslo', 7.0)]",
        "error: AttributeError",
        "shell: 4 lines",
        "files: ['sales.csv']",
    ], done.stdout + done.stderr[-4000:]


def run(url: str, flow: str, sdk: str, key: str = KEY) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.wires.e2b.flows", flow],
        cwd=ROOT, env=environ(url, sdk, key), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
