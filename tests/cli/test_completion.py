"""Completion scripts as the shells themselves run them, and `onehop help`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onehop.cli.completion import SHELLS, bash, nodes
from onehop.cli.main import COMMANDS
from tests.cli.processes import onehop


def complete(*words: str) -> set[str]:
    """What bash offers for the last of `words`."""
    script = (
        bash(nodes())
        + '\nCOMP_WORDS=(onehop "$@"); COMP_CWORD=$#; _onehop; printf \'%s\\n\' "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_actions_and_flags() -> None:
    assert set(COMMANDS) < complete("")
    assert complete("se") == {"serve", "sessions"}
    assert complete("env", "") >= {"add", "list", "show", "remove"}
    assert complete("env", "add", "--pre") == {"--preload"}
    assert complete("env", "add", "name", "-r", "wanted.txt", "--py") == {"--python-packages"}
    assert complete("serve", "--idle") == {"--idle-timeout-s"}
    assert complete("completion", "") >= set(SHELLS)
    assert complete("chat", "--up") == {"--upstreams"}
    assert complete("help", "do") == {"doctor"}
    assert complete("run", "notebook") == set()  # files: bash's own business


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.needs_apt("zsh"))])
def test_the_script_is_valid(tmp_path: Path, shell: str) -> None:
    script = onehop("completion", shell, cwd=tmp_path).stdout
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=20)


@pytest.mark.needs_apt("fish")
def test_fish_takes_it(tmp_path: Path) -> None:
    (tmp_path / "onehop.fish").write_text(onehop("completion", "fish", cwd=tmp_path).stdout)
    command = f"source {tmp_path}/onehop.fish; complete -C 'onehop env add --pre'"
    done = subprocess.run(["fish", "-c", command], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.startswith("--preload")


def test_help_says_what_a_command_does(tmp_path: Path) -> None:
    assert onehop("help", cwd=tmp_path).stdout == onehop("--help", cwd=tmp_path).stdout
    text = onehop("help", "env", "add", cwd=tmp_path).stdout
    assert text == onehop("env", "add", "--help", cwd=tmp_path).stdout
    assert "--python-packages" in text
    assert "usage: onehop" in onehop("help", "frobnicate", cwd=tmp_path, code=2).stderr


def test_every_command_has_json() -> None:
    """But the shell, which is for a person at a terminal (on a pipe it prints what the code prints), and `mcp`, which
    speaks JSON only."""
    without = {node.path for node in nodes() if node.flags and not node.words and "--json" not in node.flags}
    assert without == {"mcp", "repl"}
