"""Import rules over HTTP: of one-shot code, of sessions, and what is no rule. docs/imports.md is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.api.test_commands_page import documents

PAGE = (Path(__file__).parents[2] / "docs" / "imports.md").read_text(encoding="utf-8")
ALLOW = {"imports": {"allow": ["json"]}}


def run(client: httpx2.Client, path: str, code: str, **more: Any) -> str:
    """The value, or the error's message."""
    response = client.post(path, json={"code": code, **more})
    assert response.status_code == 200, response.text
    answer = response.json()
    found: str = answer["error"]["value"] if answer["error"] else answer["results"][-1]["text/plain"]
    return found


def test_one_shot(client: httpx2.Client) -> None:
    assert run(client, "/api/execute", "import json; 1", **ALLOW) == "1"
    said = run(client, "/api/execute", "import os; 1", **ALLOW)
    assert said == (
        "'os' may not be imported here: the import rule allows only json, and modules of the workspace (imports.allow)"
    )
    assert run(client, "/api/execute", "import os; 1") == "1"


def test_a_session_keeps_its_rule_and_an_execution_replaces_it(
    environment: Environment, tmp_path: Path
) -> None:
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(supervisor.path, tmp_path)
        with httpx2.Client(base_url=gateway.url, timeout=60) as client:
            path = f"/api/sessions/{client.post('/api/sessions', json=ALLOW).json()['id']}/execute"
            assert "may not be imported" in run(client, path, "import os; 1")
            assert run(client, path, "import os; 1", imports={"deny": ["subprocess"]}) == "1"
            assert "may not be imported" in run(client, path, "import os; 1")
        gateway.kill()
        gateway = Gateway(supervisor.path, tmp_path)
        with httpx2.Client(base_url=gateway.url, timeout=60) as client:
            assert "may not be imported" in run(client, path, "import os; 1")
            assert run(client, path, "import json; 1") == "1"
        assert gateway.stop() == 0


def test_tools_need_no_permission(client: httpx2.Client) -> None:
    tool = {"name": "shop.ask", "parameters": {"type": "object", "properties": {}}}
    for code in ("from tools import shop\nshop.ask()", "import tools\ntools.shop.ask()", "tools.shop.ask()"):
        body: dict[str, Any] = {"code": code, "tools": [tool], "imports": {"allow": []}}
        answer = client.post("/api/execute", json=body).json()
        assert answer["status"] == "tool_call_required", answer
        results = {"results": [{"id": answer["tool_calls"][0]["id"], "result": 5}]}
        answer = client.post(f"/api/executions/{answer['id']}/tool_results", json=results).json()
        assert answer["results"] == [{"text/plain": "5"}]


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({}, "imports"),
        ({"allow": ["a"], "deny": ["b"]}, "imports"),
        ({"allow": "os"}, "imports.allow"),
        ({"allow": ["os", "not a name"]}, "imports.allow[1]"),
        ({"deny": ["os."]}, "imports.deny[0]"),
        ({"deny": ["a"] * 1001}, "imports.deny"),
        ({"except": ["a"]}, "imports.except"),
    ],
)
def test_what_is_no_rule(client: httpx2.Client, session_id: str, rules: Any, field: str) -> None:
    for path in ("/api/execute", f"/api/sessions/{session_id}/execute"):
        response = client.post(path, json={"code": "1", "imports": rules})
        assert_problem(response, 422, "invalid-request", field=field)
    assert_problem(client.post("/api/sessions", json={"imports": rules}), 422, "invalid-request", field=field)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_run(gateway: Gateway, tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + script + "curl -sf -X DELETE $S\n"],
        cwd=tmp_path,
        env={**os.environ, "URL": gateway.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    first, second, third = documents(done.stdout)
    assert first["results"] == [{"text/plain": "3.0"}]
    assert f"ImportError: {second['error']['value']}" in PAGE
    assert third["results"] == [{"text/plain": "6.283185307179586"}]
