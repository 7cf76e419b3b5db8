"""The command line as real processes: each server has its own home, port and temporary files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onehop.environments.model import Environment
from tests.cli.processes import Server


@pytest.fixture
def home(tmp_path: Path, onehop_home: Path, environment: Environment) -> Path:
    """A home without state, with the environments that are built already."""
    return make_home(tmp_path, onehop_home)


@pytest.fixture
def serve(home: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers; what is left of them at the end of the test is ended."""
    servers: list[Server] = []

    def start(*flags: str) -> Server:
        server = Server(home, tmp_path, flags)
        servers.append(server)
        server.wait_for_screen()
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def shared_server(
    tmp_path_factory: pytest.TempPathFactory, onehop_home: Path, environment: Environment
) -> Iterator[Server]:
    """One server for the tests of a file that leave it as it was."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(make_home(folder, onehop_home), folder)
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()


def make_home(folder: Path, onehop_home: Path) -> Path:
    home = folder / "home"
    home.mkdir()
    os.symlink(onehop_home / "environments", home / "environments")
    return home
