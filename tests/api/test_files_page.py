"""docs/files.md is true: its examples run as they stand, in this order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from onehop import errors
from tests.api.gateway import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run(gateway: Gateway, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    script = "set -euo pipefail\n" + "echo ---\n".join(blocks) + "curl -sf -X DELETE $S\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "URL": gateway.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    _, one, several, trees = done.stdout.split("---\n")
    assert '{"path":"data/sales.csv","bytes":22,' in one
    assert (tmp_path / "copy.csv").read_text() == "region,amount\nnorth,3\n"
    assert (tmp_path / "header.csv").read_text() == "region,amount"
    assert "content-length: 22" in one.lower()
    assert '"path":"old/sales.csv"' in several
    assert '"path":"input/sub/two.txt"' in trees
    with zipfile.ZipFile(tmp_path / "input.zip") as packed:
        assert packed.read("sub/two.txt") == b"two\n"
    names = trees.splitlines()[-4:]
    assert sorted(names) == ["input/", "input/one.txt", "input/sub/", "input/sub/two.txt"]


def test_every_refusal_is_one_that_exists() -> None:
    rows = re.findall(r"^\| (\d{3}) `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert len(rows) == 7
    assert {(int(status), name) for status, name in rows} <= {(p.status, p.type) for p in errors.PROBLEMS}
