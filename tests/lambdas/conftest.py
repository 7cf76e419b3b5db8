"""A gateway with the lambda lane, for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway


@pytest.fixture(scope="session")
def gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(
            supervisor.path, tmp_path_factory.mktemp("lambdas"), lambda_workers=2, memory_mb=256
        )
        yield gateway
        assert gateway.stop() == 0, gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def run(client: httpx2.Client, code: str, *args: Any, engine: str = "auto", **more: Any) -> dict[str, Any]:
    """The answer of a lambda that ran."""
    response = client.post("/api/lambda", json={"code": code, "args": list(args), "engine": engine, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
