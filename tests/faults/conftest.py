"""One server for each file of tests, and what they need to know of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments.model import Environment
from tests.cli.conftest import make_home
from tests.faults.server import FaultServer


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, onehop_home: Path, environment: Environment
) -> Iterator[FaultServer]:
    folder = tmp_path_factory.mktemp("faults")
    server = FaultServer(make_home(folder, onehop_home), folder)
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.said(), server.said()


@pytest.fixture
def client(server: FaultServer) -> Iterator[httpx2.Client]:
    with server.client() as client:
        yield client
