"""The scenarios with each vendor whose key is in the environment, and with the scripted model, so that they are known
to hold before somebody pays for them.

A vendor's model is named by ONEHOP_TEST_LIVE_<VENDOR>, else it is a small one. ONEHOP_TEST_LIVE may name another
server: its value is one of `--upstreams`, and ONEHOP_TEST_LIVE_MODEL the model there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.live.scenarios import SCENARIOS
from tests.models.script import Call, Reply, Request, Text
from tests.models.server import ModelServer

VENDORS = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY", "gpt-4o-mini"),
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY", "claude-haiku-4-5"),
    "gemini": ("https://generativelanguage.googleapis.com", "GEMINI_API_KEY", "gemini-2.5-flash"),
}
REQUEST_S = 300.0


def upstreams() -> dict[str, tuple[str, str]]:
    """Each vendor's setting and model."""
    found = {
        name: (f"{name}={url}", os.environ.get(f"ONEHOP_TEST_LIVE_{name.upper()}", model))
        for name, (url, variable, model) in VENDORS.items()
        if os.environ.get(variable)
    }
    if other := os.environ.get("ONEHOP_TEST_LIVE"):
        found["other"] = (other, os.environ.get("ONEHOP_TEST_LIVE_MODEL", ""))
    return found


@pytest.fixture(
    scope="module", params=["scripted", *(pytest.param(one, marks=pytest.mark.live) for one in upstreams())]
)
def served(
    request: pytest.FixtureRequest, environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[openai.OpenAI, str]]:
    """A gateway with one upstream, and its model."""
    with ModelServer(react, seed=7) as server, start_supervisor(environment) as supervisor:
        setting, model = (
            (f"up=chat+{server.url('chat')}", "scripted")
            if request.param == "scripted"
            else upstreams()[request.param]
        )
        with Gateway(supervisor.path, tmp_path_factory.mktemp("live"), upstreams=setting) as gateway:
            url = gateway.url + "/v1"
            with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=REQUEST_S) as sdk:
                yield sdk, model


@pytest.mark.timeout(4 * REQUEST_S)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: str(one.__name__))
def test_scenario(served: tuple[openai.OpenAI, str], scenario: Callable[[openai.OpenAI, str], None]) -> None:
    scenario(*served)


def react(request: Request) -> Reply:
    """What a model of sense would say."""
    messages: list[dict[str, Any]] = request.body["messages"]
    last = messages[-1]
    if last["role"] == "tool":
        return [Text(f"It is {last['content'].strip()}.")]
    text = last["content"]
    if "function weather" in text:
        return [Call("weather", {"city": "Oslo"})]
    if found := re.search(r"Run Python to (set|print) ?(.+?)(?:, then|\. Say)", text):
        verb, what = found.groups()
        code = what if verb == "set" else f"import hashlib\nprint({what})"
        return [Call("python", {"code": code})]
    return [Text("one two three")]
