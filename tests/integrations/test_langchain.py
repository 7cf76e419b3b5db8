"""langchain-onehop: LangChain's suite for sandboxes, with the deepagents that it was made for, and its tool."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.api.gateway import Gateway
from tests.integrations.conftest import ROOT

COUNT = 86
LANGCHAIN = ROOT / ".venv" / "langchain"
PATH = os.pathsep.join(
    str(one) for one in (LANGCHAIN, ROOT / "integrations" / "langchain-onehop" / "src", ROOT / "src", ROOT)
)


def run(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, timeout=600, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": PATH, "ONEHOP_URL": gateway.url, "PYTEST_ADDOPTS": ""},
    )  # fmt: skip


@pytest.mark.compat("LangChain", "SandboxIntegrationTests", count=f"{COUNT} of {COUNT}")
def test_the_suite(gateway: Gateway) -> None:
    done = run(
        gateway, "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--asyncio-mode=auto", "-c", os.devnull, "--rootdir", str(ROOT),
        "tests/integrations/langchain_suite.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"^(\d+) passed(?:, \d+ warnings?)? in", done.stdout, re.MULTILINE)
    assert found is not None, f"something was skipped: {done.stdout[-3000:]}"
    assert int(found[1]) == COUNT


@pytest.mark.compat("LangChain", "the tool: text, pictures, errors; the backend: errors of files, timeouts")
def test_the_tool_and_the_backend(gateway: Gateway) -> None:
    done = run(gateway, "tests.integrations.langchain_flow")
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
