"""A real gateway on a real supervisor whose operator has a module of tools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx2

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway


@contextmanager
def gateway_with(environment: Environment, home: Path, code: str, **settings: Any) -> Iterator[Gateway]:
    """The module is `mine`; `tools`: what to say instead, None for nothing, where the file does."""
    home.mkdir(parents=True, exist_ok=True)
    module = home / "mine.py"
    module.write_text(dedent(code))
    module.chmod(0o644)
    with start_supervisor(environment) as supervisor:
        given = {"tools": str(module), **settings}
        gateway = Gateway(
            supervisor.path, home, **{name: one for name, one in given.items() if one is not None}
        )
        try:
            yield gateway
            assert gateway.stop() == 0, gateway.log.read_text()
        finally:
            gateway.kill()


def run(
    client: httpx2.Client, code: str, *, tools: list[Any] | None = None, **request: Any
) -> dict[str, Any]:
    """The whole answer; all tools of the operator unless others are named."""
    body = {"code": dedent(code), "tools": ["*"] if tools is None else tools, **request}
    response = client.post("/api/execute", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer
