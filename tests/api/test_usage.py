"""What was used is counted once, by key and day, whatever happens to the gateway, and has its price."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.api.test_executions import EVENTS
from tests.api.test_limits import BURN


@pytest.fixture(scope="module")
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


def usage(client: httpx2.Client, **query: str) -> list[dict[str, Any]]:
    response = client.get("/api/usage", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["usage"]
    return found


def counted(client: httpx2.Client) -> int:
    return sum(row["executions"] for row in usage(client))


def test_by_key_and_owner_with_their_price(own_supervisor: SupervisorHandle, home: Path) -> None:
    keys = {name: tenants.tenant(home, owner) for name, owner in (("a1", "a"), ("a2", "a"), ("b", "b"))}
    prices = {"price_per_execution": 0.5, "price_per_cpu_hour": 3600, "price_per_gb_hour": 1e6}
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(own_supervisor.path, home, currency="EUR", **prices))
        clients = {name: stack.enter_context(tenants.client(gateway.url, key)) for name, key in keys.items()}
        admin = stack.enter_context(tenants.client(gateway.url, tenants.tenant(home, "ops", "admin")))
        path = clients["a1"].post("/api/sessions", json={}).headers["location"]
        burnt = clients["a1"].post(f"{path}/execute", json={"code": BURN.format(0.2)}).json()["usage"]
        # The key that asks is charged, not the one that made the session.
        assert clients["a2"].post(f"{path}/execute", json={"code": "1"}).status_code == 200
        assert clients["b"].post("/api/execute", json={"code": "1 / 0"}).json()["status"] == "error"
        assert clients["b"].post("/api/execute", json={"code": ""}).status_code == 422
        tenants.until(lambda: counted(clients["a1"]) == 2 and counted(clients["b"]) == 1)
        tenants.until(lambda: admin.get("/api/info").status_code == 200)
        rows = usage(clients["a1"])
        assert {row["owner"] for row in rows} == {"a"}
        assert [row["executions"] for row in rows] == [1, 1]
        (row,) = (row for row in rows if row["cpu_s"] > 0.1)
        assert row["cpu_s"] == pytest.approx(burnt["cpu_ms"] / 1000, abs=1e-6)
        memory_mb_s = burnt["peak_memory_bytes"] / 2**20 * burnt["wall_ms"] / 1000
        assert row["memory_mb_s"] == pytest.approx(memory_mb_s, abs=0.01)
        assert row["day"] in _days_around_now()
        price = 0.5 + row["cpu_s"] + row["memory_mb_s"] / 1024 / 3600 * 1e6
        assert row["cost"] == pytest.approx(price, rel=1e-3)
        assert sorted(row["owner"] for row in usage(admin)) == ["a", "a", "b"], "all of them"
        day = row["day"]
        assert usage(clients["a1"], **{"from": day, "to": day}) == rows
        tomorrow = (datetime.fromisoformat(day) + timedelta(days=2)).date().isoformat()
        assert usage(clients["a1"], **{"from": tomorrow, "to": tomorrow}) == []
        assert usage(clients["a1"], to="2000-01-01") == []


def _days_around_now() -> set[str]:
    now = datetime.now(UTC)
    return {now.date().isoformat(), (now - timedelta(minutes=5)).date().isoformat()}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-13-01"}, "from"),
        ({"to": "20261122"}, "to"),
        ({"from": "2026-11-22", "to": "2026-11-21"}, "from"),
        ({"from": "1990-01-01"}, "from"),
    ],
)
def test_days_that_are_none(client: httpx2.Client, query: dict[str, str], field: str) -> None:
    assert_problem(client.get("/api/usage", params=query), 422, "invalid-request", field=field)


def test_without_keys_and_prices(client: httpx2.Client) -> None:
    before = counted(client)
    assert client.post("/api/execute", json={"code": "1"}).status_code == 200
    tenants.until(lambda: counted(client) == before + 1)
    answer = client.get("/api/usage").json()
    assert answer["currency"] == ""
    assert (answer["usage"][-1]["key"], answer["usage"][-1]["owner"]) == ("", "")
    assert answer["usage"][-1]["cost"] is None


def test_a_killed_gateway_neither_loses_nor_doubles(own_supervisor: SupervisorHandle, home: Path) -> None:
    """Killed right after an answer, when its result may be stored, or not yet, or not yet acknowledged."""
    key = tenants.tenant(home, "a", "execute", "admin")
    done = 0
    for number in range(6):
        gateway = Gateway(own_supervisor.path, home)
        with tenants.client(gateway.url, key) as client:
            for _ in range(number):
                assert client.post("/api/execute", json={"code": "1"}).json()["status"] == "ok"
                done += 1
            if number % 2:  # some are running when it dies
                path = client.post("/api/sessions", json={}).headers["location"]
                code = "import time; print('begun', flush=True); time.sleep(0.3)"
                with client.stream("POST", f"{path}/execute", json={"code": code}, headers=EVENTS) as running:
                    next(running.iter_text())
                done += 1
            gateway.kill()
    with Gateway(own_supervisor.path, home) as gateway, tenants.client(gateway.url, key) as client:
        tenants.until(lambda: counted(client) >= done)
        assert client.post("/api/execute", json={"code": "1"}).status_code == 200
        tenants.until(lambda: counted(client) > done)
        rows = usage(client)
        assert sum(row["executions"] for row in rows) == done + 1, "and none twice"
        assert len({row["key"] for row in rows}) == 1, "all for the key that asked"
        assert gateway.stop() == 0
