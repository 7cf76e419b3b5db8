"""A gateway for all tests of the API; those that restart something start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments import Environment
from onehop.errors import WeakIsolationError
from onehop.supervisor.spawn import SupervisorHandle, SupervisorSettings, start
from tests.api.gateway import Gateway


def start_supervisor(environment: Environment) -> SupervisorHandle:
    try:
        return start(SupervisorSettings(environments=(environment,), pool_max=4))
    except WeakIsolationError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """On a supervisor of its own: a gateway that starts discards sandboxes that it does not know."""
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(
            supervisor.path,
            tmp_path_factory.mktemp("gateway"),
            code_bytes=100_000,
            body_bytes=4_000_000,
            allowed_origins="https://app.example",
            allowed_hosts="onehop.example",
        )
        yield gateway
        assert gateway.stop() == 0, gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, timeout=60) as client:
        yield client


@pytest.fixture
def session_id(client: httpx2.Client) -> Iterator[str]:
    created = client.post("/api/sessions", json={})
    assert created.status_code == 201, created.text
    name: str = created.json()["id"]
    yield name
    assert client.delete(f"/api/sessions/{name}").status_code in (204, 410)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
