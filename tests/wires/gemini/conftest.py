"""A gateway with an upstream of Google's kind (models `g…`) and one of Chat Completions (`c…`), both scripted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.models.script import Reply, Request
from tests.models.server import ModelServer
from tests.wires.gemini.flows import SCRIPTS


@dataclass
class Scripted:
    """Says what the script of a model's name says, whatever stands before its first `-`."""

    scripts: dict[str, list[Reply]] = field(default_factory=lambda: dict(SCRIPTS))
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: Request) -> Reply:
        name = model_of(request)
        script = self.scripts[name.partition("-")[2]]
        at, self.counts[name] = self.counts[name], self.counts[name] + 1
        return script[min(at, len(script) - 1)]


def model_of(request: Request) -> str:
    if ":" in request.path:
        return request.path.partition("/models/")[2].partition(":")[0]
    return str(request.body["model"])


@dataclass
class Wire:
    """The gateway, and what its upstreams were asked."""

    gateway: Gateway
    server: ModelServer
    script: Scripted

    @property
    def url(self) -> str:
        return self.gateway.url

    def asked(self, model: str) -> list[Request]:
        return [one for one in self.server.requests if model_of(one) == model]


@pytest.fixture(scope="module")
def wire(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    script = Scripted()
    with ModelServer(script, seed=5) as server, start_supervisor(environment) as supervisor:
        given = {
            "google": {"kind": "gemini", "url": server.url("gemini"), "models": ["g*"], "retries": 0},
            "other": {"kind": "chat", "url": server.url("chat"), "models": ["c*"], "retries": 0},
        }
        gateway = Gateway(
            supervisor.path,
            tmp_path_factory.mktemp("gemini"),
            upstreams=json.dumps(given),
            models=json.dumps(
                {
                    "named": {"upstreams": ["google:g-code"]},
                    "hosted": {"upstreams": ["google:g-hosted"], "hosted": True},
                }
            ),
        )
        yield Wire(gateway, server, script)
        assert gateway.stop() == 0, gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text(), gateway.log.read_text()
