"""Functions stored under names: checked when they are stored, called by name, each its owner's."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from onehop.environments import Environment
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem

TOTAL = {"code": "lambda xs, start=0: sum(xs) + start"}


def test_a_life(client: httpx2.Client) -> None:
    made = client.put("/api/functions/total", json=TOTAL)
    assert made.status_code == 201, made.text
    function = made.json()
    assert (function["name"], function["code"], function["engine"]) == ("total", TOTAL["code"], "monty")
    assert client.get("/api/functions/total").json() == function
    answer = client.post("/api/functions/total", json={"args": [[1, 2]], "kwargs": {"start": 10}}).json()
    assert (answer["status"], answer["value"], answer["engine"]) == ("ok", 13, "monty")
    changed = client.put("/api/functions/total", json={"code": "import re\nlambda s: re.sub('a', 'b', s)"})
    assert changed.status_code == 200
    assert (changed.json()["engine"], changed.json()["routed"]) == ("sandbox", "import re")
    assert changed.json()["created_at"] == function["created_at"]
    answer = client.post("/api/functions/total", json={"args": ["aa"]}).json()
    assert (answer["value"], answer["engine"]) == ("bb", "sandbox")
    listed = client.get("/api/functions").json()["functions"]
    assert [one["name"] for one in listed] == ["total"]
    assert "code" not in listed[0]
    assert client.delete("/api/functions/total").status_code == 204
    for response in (
        client.get("/api/functions/total"),
        client.delete("/api/functions/total"),
        client.post("/api/functions/total", json={}),
    ):
        assert_problem(response, 404, "function-not-found")


def test_what_is_no_python_is_not_stored(client: httpx2.Client) -> None:
    problem = assert_problem(
        client.put("/api/functions/bad", json={"code": "x = 1\nlambda x: x +"}), 422, "invalid-request"
    )
    assert problem["field"] == "code"
    assert "line 2" in problem["detail"]
    assert_problem(client.get("/api/functions/bad"), 404, "function-not-found")


@pytest.mark.parametrize("name", ["1x", "a-b", "a b", "x" * 65, "ü", "a.b"])
def test_names(client: httpx2.Client, name: str) -> None:
    problem = assert_problem(client.put(f"/api/functions/{name}", json=TOTAL), 422, "invalid-request")
    assert problem["field"] == "name"


def test_functions_are_their_owners_and_outlive_the_gateway(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    alice_key, bob_key = (tenants.tenant(tmp_path, owner, "execute", "read") for owner in ("alice", "bob"))
    with start_supervisor(environment) as supervisor:
        with Gateway(supervisor.path, tmp_path) as gateway:
            with tenants.client(gateway.url, alice_key) as alice, tenants.client(gateway.url, bob_key) as bob:
                assert alice.put("/api/functions/f", json={"code": "lambda: 'hers'"}).status_code == 201
                assert_problem(bob.get("/api/functions/f"), 404, "function-not-found")
                assert_problem(bob.delete("/api/functions/f"), 404, "function-not-found")
                assert_problem(bob.post("/api/functions/f", json={}), 404, "function-not-found")
                assert bob.get("/api/functions").json() == {"functions": []}
                assert bob.put("/api/functions/f", json={"code": "lambda: 'his'"}).status_code == 201
                assert alice.post("/api/functions/f", json={}).json()["value"] == "hers"
                assert bob.post("/api/functions/f", json={}).json()["value"] == "his"
            gateway.kill()
        with Gateway(supervisor.path, tmp_path) as gateway, tenants.client(gateway.url, alice_key) as alice:
            assert alice.post("/api/functions/f", json={}).json()["value"] == "hers"


def test_without_workers_code_is_checked_in_a_sandbox(environment: Environment, tmp_path: Path) -> None:
    with start_supervisor(environment) as supervisor:
        with Gateway(supervisor.path, tmp_path, lambda_workers=0) as gateway:
            with httpx2.Client(base_url=gateway.url, timeout=60) as client:
                made = client.put("/api/functions/f", json=TOTAL)
                assert (made.status_code, made.json()["engine"]) == (201, "sandbox")
                problem = assert_problem(
                    client.put("/api/functions/f", json={"code": "x +"}), 422, "invalid-request"
                )
                assert problem["field"] == "code"
