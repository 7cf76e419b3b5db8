"""Limits per key: what is over one is refused with a true Retry-After, and costs nobody else anything."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from onehop.environments import Environment
from onehop.errors import TooManyError
from onehop.sessions import Caller, Limits
from onehop.sessions.quotas import Hours, Quotas
from onehop.store import Store
from onehop.supervisor.messages import ExecutionSpec
from onehop.supervisor.spawn import SupervisorHandle
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem

TAMPER = "import os; os.write(3, b'\\xff' * 64)"
BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n'burnt'"


@pytest.fixture(scope="module")
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def place(own_supervisor: SupervisorHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("limits")
    (home / "state").mkdir(mode=0o700)
    tenants.tenant(home, "ops", "admin")
    gateway = Gateway(own_supervisor.path, home)
    yield gateway
    assert gateway.stop() == 0, gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()


@contextlib.contextmanager
def limited(gateway: Gateway, owner: str, **limits: Any) -> Iterator[httpx2.Client]:
    """A client with a key of its own, which works already."""
    with tenants.client(gateway.url, tenants.tenant(gateway.log.parent, owner, **limits)) as found:
        tenants.until(lambda: found.get("/api/info").status_code == 200)
        yield found


def refused(response: httpx2.Response, limit: str) -> int:
    assert_problem(response, 429, "too-many", limit=limit)
    return int(response.headers["retry-after"])


def test_sessions_and_one_shots_at_once(place: Gateway) -> None:
    with limited(place, "alice", max_sessions=2) as alice, limited(place, "bob", max_sessions=1) as bob:
        paths = [alice.post("/api/sessions", json={}).headers["location"] for _ in range(2)]
        assert refused(alice.post("/api/sessions", json={}), "max_sessions") >= 1
        assert refused(alice.post("/api/execute", json={"code": "1"}), "max_sessions") >= 1
        assert alice.post(f"{paths[0]}/execute", json={"code": "1"}).json()["status"] == "ok"
        assert bob.post("/api/execute", json={"code": "1"}).json()["status"] == "ok"
        assert alice.delete(paths[0]).status_code == 204
        for _ in range(3):
            assert alice.post("/api/execute", json={"code": "1"}).json()["status"] == "ok"
        assert alice.post("/api/sessions", json={"memory_mb": 1}).status_code == 422, "takes no place"
        assert alice.post("/api/execute", json={"code": ""}).status_code == 422
        again = alice.post("/api/sessions", json={})
        assert again.status_code == 201
        # A session that ends by itself gives its place back as well.
        ended = alice.post(f"{paths[1]}/execute", json={"code": TAMPER}).json()
        assert ended["status"] == "protocol_error"
        tenants.until(lambda: alice.post("/api/execute", json={"code": "1"}).status_code == 200)
        assert alice.delete(again.headers["location"]).status_code == 204


def test_executions_per_minute(place: Gateway) -> None:
    with limited(place, "alice", executions_per_minute=3) as alice:
        path = alice.post("/api/sessions", json={}).headers["location"]
        began_s = time.time()
        assert alice.post(f"{path}/execute", json={"code": "1"}).status_code == 200
        first_s = time.time()
        assert alice.post("/api/execute", json={"code": "1"}).status_code == 200
        assert alice.post("/api/execute", json={}).status_code == 422, "not a start"
        assert alice.post(f"{path}/execute", json={"code": "1"}).status_code == 200
        for _ in range(3):  # what is refused does not count either
            asked_s = time.time()
            wait_s = refused(alice.post(f"{path}/execute", json={"code": "1"}), "executions_per_minute")
            # The first start was between began_s and first_s; whole seconds, rounded up.
            assert began_s + 60 - time.time() <= wait_s < first_s + 60 - asked_s + 1.1
        refused(alice.post("/api/execute", json={"code": "1"}), "executions_per_minute")
        refused(alice.post(f"{path}/commands", json={"command": "true"}), "executions_per_minute")
        assert alice.get(path).status_code == 200, "looking is free"


def test_cpu_seconds_per_hour_outlive_the_gateway(own_supervisor: SupervisorHandle, home: Path) -> None:
    key = tenants.tenant(home, "alice", cpu_s_per_hour=1.0)
    gateway = Gateway(own_supervisor.path, home)
    with tenants.client(gateway.url, key) as alice:
        assert alice.post("/api/execute", json={"code": BURN.format(0.3)}).json()["status"] == "ok"
        # The second may use what is left, and not more.
        stopped = alice.post("/api/execute", json={"code": BURN.format(30), "timeout_s": 40}).json()
        assert stopped["status"] == "timeout"
        assert 300 < stopped["usage"]["cpu_ms"] < 3000
        assert refused(alice.post("/api/execute", json={"code": "1"}), "cpu_s_per_hour") > 1
        tenants.until(lambda: _cpu_s(alice) > 0.9)
    gateway.kill()
    with Gateway(own_supervisor.path, home) as again, tenants.client(again.url, key) as alice:
        assert refused(alice.post("/api/execute", json={"code": "1"}), "cpu_s_per_hour") > 1


def _cpu_s(client: httpx2.Client) -> float:
    return float(sum(row["cpu_s"] for row in client.get("/api/usage").json()["usage"]))


def test_sessions_of_a_killed_gateway_count_on(own_supervisor: SupervisorHandle, home: Path) -> None:
    key = tenants.tenant(home, "alice", max_sessions=1)
    gateway = Gateway(own_supervisor.path, home)
    with tenants.client(gateway.url, key) as alice:
        path = alice.post("/api/sessions", json={}).headers["location"]
    gateway.kill()
    with Gateway(own_supervisor.path, home) as again, tenants.client(again.url, key) as alice:
        refused(alice.post("/api/sessions", json={}), "max_sessions")
        assert alice.delete(path).status_code == 204
        assert alice.post("/api/sessions", json={}).status_code == 201


def test_ceilings(place: Gateway) -> None:
    with limited(place, "alice", max_memory_mb=128, max_workspace_mb=4) as alice:
        made = alice.post("/api/sessions", json={})
        limits = made.json()["limits"]
        assert (limits["memory_mb"], limits["workspace_mb"]) == (128, 4), "the defaults are above"
        assert_problem(
            alice.post("/api/sessions", json={"memory_mb": 129}), 422, "invalid-request", field="memory_mb"
        )
        too_large = {"code": "1", "workspace_mb": 5}
        assert_problem(
            alice.post("/api/execute", json=too_large), 422, "invalid-request", field="workspace_mb"
        )
        code = "open('a', 'wb').write(bytes(8_000_000))"
        answer = alice.post(f"{made.headers['location']}/execute", json={"code": code}).json()
        assert answer["error"]["name"] == "OSError", "and they hold"


def test_who_is_over_a_limit_slows_nobody(place: Gateway) -> None:
    with limited(place, "greedy", executions_per_minute=1) as greedy, limited(place, "bob") as bob:
        assert greedy.post("/api/execute", json={"code": "1"}).status_code == 200
        stop = threading.Event()

        refusals = [0, 0]

        def hammer(place_in_list: int) -> None:
            with tenants.client(place.url, None) as client:
                client.headers = greedy.headers
                while not stop.is_set():
                    assert client.post("/api/execute", json={"code": "1"}).status_code == 429
                    refusals[place_in_list] += 1

        def went_on(least: int) -> bool:
            return min(refusals) > least or any(one.done() for one in hammers)

        with ThreadPoolExecutor(2) as pool:
            hammers = [pool.submit(hammer, number) for number in range(2)]
            try:
                path = bob.post("/api/sessions", json={}).headers["location"]
                slowest_s = 0.0
                for number in range(30):
                    began_s = time.monotonic()
                    answer = bob.post(f"{path}/execute", json={"code": str(number)}).json()
                    assert answer["results"] == [{"text/plain": str(number)}]
                    slowest_s = max(slowest_s, time.monotonic() - began_s)
                    tenants.until(functools.partial(went_on, number))
            finally:
                stop.set()
            for one in hammers:
                one.result()
        assert slowest_s < 5


def test_who_sends_slowly_leaves_room_for_others(place: Gateway) -> None:
    """Large bodies have a budget of 512 MiB; four requests of 64 MiB that never come are one tenant's share."""
    with limited(place, "slow") as slow, limited(place, "bob") as bob, contextlib.ExitStack() as stack:
        key = slow.headers["authorization"]
        head = (
            "POST /api/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Authorization: {key}\r\nContent-Length: {64 << 20}\r\n\r\n{{"
        )
        large = {"code": "len(open('a').read())", "files": {"a": "x" * (2 << 20)}, "workspace_mb": 8}
        assert slow.post("/api/execute", json=large).json()["status"] == "ok", "the control"
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", place.port)))
            connection.sendall(head.encode())
        tenants.until(lambda: slow.post("/api/execute", json=large).status_code == 429)
        assert slow.post("/api/execute", json={"code": "1"}).status_code == 200, "small ones go on"
        assert bob.post("/api/execute", json=large).json()["results"] == [{"text/plain": str(2 << 20)}]
        stack.close()
        tenants.until(lambda: slow.post("/api/execute", json=large).status_code == 200)


# --- the windows, at times of our own choice ------------------------------------------------------------


@pytest.mark.parametrize("at", [0.0, 1000.0, 3599.0])
@pytest.mark.parametrize("amounts", [(10.0, 0.0), (0.0, 10.0), (10.0, 4.0), (4.0, 10.0), (100.0, 100.0)])
def test_the_wait_is_true(at: float, amounts: tuple[float, float]) -> None:
    hours = Hours()
    begin = 500 * 3600.0
    hours.add(amounts[0], begin - 1)
    hours.add(amounts[1], begin + at)
    now = begin + at
    assert hours.total(now) == pytest.approx(amounts[1] + amounts[0] * (1 - at / 3600))
    wait_s = hours.wait_s(5.0, now)
    if wait_s > 0:
        assert hours.total(now) > 5
        assert wait_s <= 7200
        later = Hours(hours.hour, hours.now, hours.before)
        assert later.total(now + wait_s * 0.99 - 1) > 5, "not earlier"
    assert hours.total(now + wait_s + 0.01) <= 5.0


def test_time_that_goes_back_frees_nothing() -> None:
    hours = Hours()
    hours.add(10.0, 7200.0)
    assert hours.total(3600.0) >= 10


def test_hours_pass() -> None:
    hours = Hours()
    hours.add(10.0, 3600.0)
    assert hours.total(2 * 3600.0) == 10
    assert hours.total(2.5 * 3600.0) == 5
    assert hours.total(3 * 3600.0) == 0
    hours.add(1.0, 10 * 3600.0)
    assert hours.total(10 * 3600.0) == 1


def test_starts_within_any_minute() -> None:
    now = [1e9]
    quotas = Quotas(cast(Store, SimpleNamespace(cpu_since=lambda _: [])), clock=lambda: now[0])
    caller = Caller("alice", "key_1", frozenset({"execute"}), Limits(executions_per_minute=2))
    other = Caller("alice", "key_2", frozenset({"execute"}), Limits(executions_per_minute=2))

    def start(who: Caller = caller) -> None:
        quotas.admit(who, ExecutionSpec("exe_1", "1"))

    start()
    now[0] += 50
    start()
    with pytest.raises(TooManyError) as refusal:
        start()
    assert refusal.value.retry_after_s == pytest.approx(10)
    start(other)  # every key has its own
    now[0] += refusal.value.retry_after_s
    start()
    with pytest.raises(TooManyError) as refusal:
        start()
    assert refusal.value.retry_after_s == pytest.approx(50)
