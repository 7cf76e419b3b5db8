"""examples/wires/ of OpenAI and Anthropic, as their texts say, with the current SDKs and the older ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Text, Turn
from tests.wires.conftest import Models

ROOT = Path(__file__).parents[2]
OLDER = Path(sys.executable).parents[1] / "older"
DICE = "import numpy as np\nsums = np.random.default_rng(7).integers(1, 7, (1000, 2)).sum(axis=1)"
PROGRAM = """\
import asyncio
names = ["north", "south", "west"]
sold = await asyncio.gather(*(tools.sales(region=name) for name in names))
print(max(zip(map(sum, sold), names)))"""


def python(code: str) -> Call:
    return Call("python", {"code": code})


def run(gateway: Gateway, name: str, sdk: str, tmp_path: Path) -> str:
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "ANTHROPIC_"))},
        "OPENAI_BASE_URL": gateway.url + "/v1",
        "OPENAI_API_KEY": "unused",
        "ANTHROPIC_BASE_URL": gateway.url + "/anthropic",
        "ANTHROPIC_API_KEY": "unused",
        "PYTHONPATH": str(OLDER) if sdk == "older" else "",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "wires" / name), "chat"],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_older_versions_are_older() -> None:
    code = "import openai, anthropic; print(openai.__version__, anthropic.__version__)"

    def versions(path: str) -> list[int]:
        variables = {**os.environ, "PYTHONPATH": path}
        told = subprocess.run(
            [sys.executable, "-c", code],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [int(one.split(".")[0]) for one in told.stdout.split()]

    assert [new - old for new, old in zip(versions(""), versions(str(OLDER)), strict=True)] == [1, 1]


@pytest.mark.parametrize("sdk", ["current", "older"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            "openai_responses.py", marks=pytest.mark.compat("OpenAI", "Responses with code_interpreter")
        ),
        pytest.param(
            "openai_chat.py", marks=pytest.mark.compat("OpenAI", "Chat Completions with the loop inside")
        ),
        pytest.param(
            "anthropic_messages.py", marks=pytest.mark.compat("Anthropic", "Messages with code execution")
        ),
    ],
)
def test_dice(gateway: Gateway, models: Models, tmp_path: Path, name: str, sdk: str) -> None:
    models.play(
        [
            Turn([Text("I throw. "), python(DICE)]),
            [Text("Thrown.")],
            [python("print('sevens:', (sums == 7).sum())")],
            [Text("So often.")],
        ]
    )
    told = run(gateway, name, sdk, tmp_path)
    assert DICE.splitlines()[-1] in told
    assert "sevens: 1" in told.replace("sevens: 2", "sevens: 1")  # 1000 throws: one or two hundred
    assert "So often." in told
    assert told.count("(30 tokens of all turns)") == 2


@pytest.mark.compat("Anthropic", "programmatic tool calling")
@pytest.mark.parametrize("sdk", ["current", "older"])
def test_programmatic(gateway: Gateway, models: Models, tmp_path: Path, sdk: str) -> None:
    script: list[Any] = [[python(PROGRAM)], [Text("The south.")]]
    models.play(script)
    told = run(gateway, "anthropic_programmatic.py", sdk, tmp_path)
    assert told.count("--- called by code_execution_20260120: sales(") == 3
    assert "(23, 'south')" in told
    assert told.endswith("The south.\n(2 requests)\n")
    assert len(models.sent) == 2
    assert "[8, 8, 7]" not in str(models.sent)
