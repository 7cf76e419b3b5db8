"""One gateway for all wires, with every kind of upstream on one scripted server of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from onehop.environments import Environment
from tests.api.conftest import client, home, session_id, start_supervisor
from tests.api.gateway import Gateway
from tests.models.script import Reply, Script
from tests.models.server import ModelServer

__all__ = ["client", "gateway", "home", "models", "server", "session_id"]

KINDS = [
    one
    for one in ("chat", "responses", "messages", "gemini")
    if find_spec(f"onehop.agent.upstreams.{one}") is not None
]


@pytest.fixture(scope="session")
def server() -> Iterator[ModelServer]:
    """Its upstreams are named by their kinds; `blind` is a model of Chat Completions that takes no pictures."""
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="session")
def gateway(
    environment: Environment, server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    upstreams = {
        kind: {"kind": kind, "url": server.url(kind), "models": [kind], "retries": 0} for kind in KINDS
    }
    upstreams["blind"] = {**upstreams["chat"], "models": ["blind"], "images": False}
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(supervisor.path, tmp_path_factory.mktemp("wires"), upstreams=json.dumps(upstreams))
        yield gateway
        assert gateway.stop() == 0, gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


class Models:
    """The scripted server, for one test."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server

    def play(self, script: list[Reply] | Script) -> None:
        """From now on; requests are counted from 1 again."""
        self.server.requests.clear()
        self.server.script = script

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The bodies of the requests since then."""
        return [one.body for one in self.server.requests]


@pytest.fixture
def models(server: ModelServer) -> Models:
    return Models(server)
