"""Peers that are a process per request: a new interpreter, alone or inside bubblewrap.

They run on the sandbox environment's own python, with its bytecode and the variables its kernels have,
so that what they import is the same file for file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.cells import Cell, WrongAnswerError
from onehop.environments import ENVIRONMENT_VARIABLES, Environment

PYTHON = "python -c"
BWRAP = "bwrap + python"
TIMEOUT_S = 60.0


def variables() -> dict[str, str]:
    """What the peers' processes have in their environment."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp", **ENVIRONMENT_VARIABLES}


@dataclass(frozen=True)
class ProcessPeer:
    """A command that a program's text is appended to."""

    name: str
    command: tuple[str, ...]

    def run(self, cell: Cell) -> None:
        """Starts the process, waits for its end and checks what it printed."""
        done = subprocess.run(
            [*self.command, cell.script],
            env=variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise WrongAnswerError(f"{self.name} ended with {done.returncode}: {done.stderr[-500:]}")
        cell.check(done.stdout)


def python_peer(environment: Environment) -> ProcessPeer:
    return ProcessPeer(PYTHON, (f"{environment.path}/bin/python", "-c"))


def bwrap_peer(environment: Environment) -> ProcessPeer | str:
    """bubblewrap with all namespaces and a read-only root, or why it cannot be measured."""
    program = shutil.which("bwrap")
    if program is None:
        return "bwrap is not installed (apt-get install bubblewrap)"
    walls = ("--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/")
    fresh = ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp")
    peer = ProcessPeer(BWRAP, (program, *walls, *fresh, f"{environment.path}/bin/python", "-c"))
    try:
        peer.run(Cell("probe", "", "print('ready')", "ready", packages=False))
    except (WrongAnswerError, OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not work here: {error}"
    return peer


def bytecode_of(environment: Environment, package: str) -> bool:
    """Whether the package's modules have their bytecode beside them."""
    directory: Path = environment.site_packages / package
    return any((directory / "__pycache__").glob("*.pyc"))
