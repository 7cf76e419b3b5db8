"""A supervisor and a server of models for the tests of the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.agent.looping import Looping, looping
from tests.api.conftest import start_supervisor
from tests.models.server import ModelServer


@pytest.fixture(scope="module")
def loop_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    """A gateway that starts discards sandboxes that it does not know: no other may use it."""
    with start_supervisor(environment) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    with ModelServer(seed=1) as server:
        yield server


@pytest.fixture
async def loop(
    loop_supervisor: SupervisorHandle, model_server: ModelServer, tmp_path: Path
) -> AsyncIterator[Looping]:
    async with looping(loop_supervisor.path, tmp_path, model_server) as made:
        yield made
