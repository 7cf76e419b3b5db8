"""COMPATIBILITY.md has exactly the rows of the tests that are marked `compat`."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.compatibility import DOCUMENT, ROOT, Row, document

COLLECT = """
import json, sys, dataclasses, pytest
from tests.compatibility import Recorder
recorder = Recorder(collect_only=True)
code = pytest.main(["-q", "--collect-only", "-m", "compat", "-p", "no:cacheprovider", "tests"], plugins=[recorder])
json.dump([int(code), [dataclasses.asdict(row) for row in recorder.rows]], sys.stderr)
"""


def test_the_document_is_what_the_tests_say() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True, timeout=110, check=True
    )
    code, found = json.loads(done.stderr)
    assert code == 0, done.stdout
    rows = [Row(**one) for one in found]
    assert rows
    # What only a run knows, the counts of public suites, is between brackets.
    wanted = [_without_marks(line) for line in document(rows).splitlines()]
    written = [_without_marks(line) for line in DOCUMENT.read_text().splitlines()]
    assert written == wanted, "run `make compatibility`"


def _without_marks(line: str) -> str:
    before, *rest = line.split("[")
    return before + "".join("[" + one.partition("]")[1] + one.partition("]")[2] for one in rest)
