"""docs/batch.md is true: its examples run as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from onehop import errors
from onehop.config import Settings
from onehop.sessions.batches import MAX_ANSWERS_BYTES
from tests.api.gateway import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "batch.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run(gateway: Gateway, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    script = "set -euo pipefail\n" + "echo; echo ---\n".join(blocks)
    script += "curl -sf -X DELETE $URL/api/sessions/$ID\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "URL": gateway.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    first, second = done.stdout.split("\n---\n")
    once, written, read, refused = json.loads(first)["answers"]
    assert (once["results"], written["files"][0]["path"]) == ([{"text/plain": "45"}], "a.txt")
    assert (read["stdout"], refused["type"]) == ("hi", "urn:onehop:problem:session-not-found")
    kinds = re.findall(r"^event: (\w+)$", second, re.MULTILINE)
    assert sorted(kinds) == ["batch_end", "end", "problem", "stdout"]
    assert kinds[-1] == "batch_end"


def test_the_numbers() -> None:
    for name in ("batch_items", "batch_parallel"):
        assert f"`{name}` ({getattr(Settings, name)})" in PAGE
    assert (MAX_ANSWERS_BYTES >> 20, "64 MiB" in PAGE) == (64, True)


def test_every_problem_exists() -> None:
    named = {(int(status), kind) for status, kind in re.findall(r"(\d{3}) `([a-z-]+)`", PAGE)}
    assert len(named) == 4
    assert named <= {(one.status, one.type) for one in errors.PROBLEMS}
