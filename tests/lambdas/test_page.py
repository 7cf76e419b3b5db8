"""docs/lambda.md is true: its examples run as they stand, and its numbers are the code's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from onehop.api.lambdas import BODY_BYTES
from onehop.config import MIB, Settings
from onehop.lambdas import confine, plain, worker, workers
from onehop.lambdas.functions import MAX_FUNCTIONS
from onehop.lambdas.lane import LambdaAnswer
from tests.api.gateway import Gateway
from tests.lambdas.corpus import FITS

PAGE = (Path(__file__).parents[2] / "docs" / "lambda.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run(gateway: Gateway) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + "\necho\n".join(blocks)],
        env={**os.environ, "URL": gateway.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [msgspec.json.decode(line) for line in done.stdout.splitlines() if line.strip()]
    assert [(one["engine"], one["status"]) for one in answers[:2]] == [("monty", "ok"), ("sandbox", "ok")]
    assert [one["value"] for one in answers[:2]] == [6, 1.118033988749895]
    stored, called = answers[2:]
    assert (stored["name"], stored["engine"], called["value"]) == ("total", "monty", 13)
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[:1]
    decoded = msgspec.json.decode(shown, type=LambdaAnswer)
    assert msgspec.json.decode(decoded.value) == answers[0]["value"]
    assert msgspec.json.decode(shown).keys() == answers[0].keys()


def test_the_numbers_are_true() -> None:
    settings = Settings()
    for text in (
        f"corpus of {len(FITS)} programs",
        f"`lambda_slice_s` ({settings.lambda_slice_s:g} s)",
        f"`lambda_memory_mb` ({settings.lambda_memory_mb})",
        f"Monty processes there are ({settings.lambda_workers})",
        f"at most {plain.MAX_VALUE_CHARS // MIB} MiB of JSON, the request {BODY_BYTES // MIB} MiB",
        f"An owner has at most {MAX_FUNCTIONS}",
        f"deeper than {worker.MAX_RECURSION}:",
        f"slice plus {workers.GRACE_S:g} s",
        f"{confine.ADDRESS_BYTES // 1024**3} GiB of address space",
    ):
        assert text in PAGE, text
