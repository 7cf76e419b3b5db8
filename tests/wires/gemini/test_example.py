"""examples/wires/gemini_generate.py, as its text says, with the current SDK and the older one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.script import Text
from tests.wires.gemini.conftest import Wire
from tests.wires.gemini.flows import python
from tests.wires.gemini.test_sdk import OLDER, ROOT

EXAMPLE = ROOT / "examples" / "wires" / "gemini_generate.py"
WALK = """\
import numpy as np
import matplotlib.pyplot as plt
walk = np.random.default_rng(7).choice([-1, 1], 1000).cumsum()
plt.plot(walk); plt.show()"""


@pytest.mark.parametrize("sdk", ["current", "older"])
def test_example(wire: Wire, tmp_path: Path, sdk: str) -> None:
    wire.script.scripts[f"walk-{sdk}"] = [
        [Text("I draw it."), python(WALK)],
        [Text("There it is.")],
        [python("int(abs(walk[-1]))")],
        [Text("That far.")],
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GOOGLE_")},
        "GOOGLE_GEMINI_BASE_URL": f"{wire.url}/gemini",
        "GEMINI_API_KEY": "unused",
        "PYTHONPATH": str(OLDER) if sdk == "older" else "",
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), f"g-walk-{sdk}"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"--- code\n{WALK}" in done.stdout
    assert "There it is." in done.stdout
    assert done.stdout.count("Outcome.OUTCOME_OK") == 2
    assert "(30 tokens of all turns)" in done.stdout
    (picture,) = tmp_path.glob("picture-*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    distance = done.stdout.rpartition("OUTCOME_OK")[2].split()[0]
    assert distance.isdigit()
