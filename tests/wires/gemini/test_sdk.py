"""Google's unmodified SDK, the current version and an older major one, against upstreams of two kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google import genai

from tests.wires.gemini.conftest import Wire
from tests.wires.gemini.flows import FLOWS, client_of

ROOT = Path(__file__).parents[3]
OLDER = Path(sys.prefix) / "older"


@pytest.fixture(scope="module")
def client(wire: Wire) -> Iterator[genai.Client]:
    with client_of(wire.url) as client:
        yield client


@pytest.mark.compat("Gemini", "codeExecution: every flow of flows.py")
@pytest.mark.parametrize("kind", ["g-", "c-"])
@pytest.mark.parametrize("name", FLOWS)
def test_flow(client: genai.Client, name: str, kind: str) -> None:
    FLOWS[name](client, kind)


@pytest.mark.compat("Gemini", "codeExecution: every flow of flows.py", sdk="older")
@pytest.mark.parametrize("kind", ["gold-", "cold-"])
def test_older_sdk(wire: Wire, kind: str) -> None:
    """All flows in one process, as importing the SDK takes seconds."""
    if not (OLDER / "google").is_dir():
        pytest.skip("the older SDKs are not installed: make older")
    environment = {**os.environ, "PYTHONPATH": f"{OLDER}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.wires.gemini.flows", wire.url, kind],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    version, *lines = done.stdout.split("\n")
    assert int(version.partition(".")[0]) < int(genai.__version__.partition(".")[0])
    assert [line.partition(" ")[0] for line in lines if line] == list(FLOWS)
