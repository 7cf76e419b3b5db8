"""docs/commands.md is true: its examples run as they stand, in this order."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from onehop import errors
from onehop.config import Settings
from onehop.sessions.requests import MAX_COMMAND_BYTES
from onehop.supervisor.command import LEFT_BYTES_PER_S, MAX_UNREAD_BYTES
from onehop.supervisor.commands import MAX_ENDED, MAX_SHOWN
from tests.api.gateway import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run(gateway: Gateway, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 4
    script = "set -euo pipefail\n" + "echo; echo ---\n".join(blocks) + "curl -sf -X DELETE $S\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "URL": gateway.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    _, contexts, command, background = ([*documents(part)] for part in done.stdout.split("---\n"))
    made, execution, restarted, listed = contexts
    assert (made["name"], restarted["name"]) == ("plots", "plots")
    assert execution["results"] == [{"text/plain": "False"}]
    assert [one["name"] for one in listed["contexts"]] == ["main", "plots"]
    (answer,) = command
    assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("2\n", "hello\n", 3)
    info, ended = background
    assert (info["background"], info["stdin_open"]) == (True, True)
    assert (ended["status"], ended["exit_code"]) == ("error", None)
    assert "SIGTERM" in str(ended["reason"])


def documents(text: str) -> list[dict[str, Any]]:
    """Answers that follow each other without anything between them."""
    decoder, found = json.JSONDecoder(), []
    text = text.strip()
    while text:
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:].strip()
    return found


def test_the_numbers() -> None:
    settings = {field: getattr(Settings, field) for field in ("max_contexts", "max_commands")}
    for name, value in settings.items():
        assert f"`{name}` ({value})" in PAGE
    assert (MAX_COMMAND_BYTES, "131 071 bytes" in PAGE) == (131_071, True)
    assert (MAX_ENDED, "last hundred" in PAGE) == (100, True)
    assert f"first {MAX_SHOWN} characters" in PAGE
    assert (MAX_UNREAD_BYTES >> 20, "up to 1 MiB" in PAGE) == (1, True)
    assert f"at {LEFT_BYTES_PER_S >> 20} MiB a second" in PAGE


def test_every_refusal_is_one_that_exists() -> None:
    rows = re.findall(r"^\| (\d{3}) `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert len(rows) == 7
    assert {(int(status), name) for status, name in rows} <= {(p.status, p.type) for p in errors.PROBLEMS}
