"""A gateway that dies while code waits for tools: nothing is lost, nothing is carried out twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from onehop.supervisor.spawn import SupervisorHandle
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_executions import EVENTS, parsed
from tests.api.test_tool_calls import ADD, ids, submit, value

CODE = (
    "print('once')\nimport asyncio\nfound = await asyncio.gather(tools.add(1, b=[1, 2]), tools.add(2))\nfound"
)


@pytest.fixture(scope="module")
def supervisor_of_restarts(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


@contextlib.contextmanager
def gateway_on(
    supervisor: SupervisorHandle, home: Path, **settings: Any
) -> Iterator[tuple[Gateway, httpx2.Client]]:
    """What is left of it at the end was killed by the test, or ends well."""
    gateway = Gateway(supervisor.path, home, **settings)
    with httpx2.Client(base_url=gateway.url, timeout=30) as client:
        try:
            yield gateway, client
            assert gateway.process.poll() is not None or gateway.stop() == 0, gateway.log.read_text()
        finally:
            gateway.kill()


def wait(client: httpx2.Client, path: str = "/api/execute") -> dict[str, Any]:
    answer: dict[str, Any] = client.post(path, json={"code": CODE, "tools": [ADD], "timeout_s": 5}).json()
    assert answer["status"] == "tool_call_required", answer
    return answer


def events(client: httpx2.Client, execution: str) -> list[tuple[int, str, Any]]:
    with client.stream("GET", f"/api/executions/{execution}/events", headers=EVENTS) as response:
        return parsed("".join(response.iter_text()))


@pytest.mark.parametrize("alone", [True, False])
def test_a_suspended_execution_outlives_the_gateway(
    supervisor_of_restarts: SupervisorHandle, home: Path, alone: bool
) -> None:
    with gateway_on(supervisor_of_restarts, home) as (gateway, client):
        path = "/api/execute"
        if not alone:
            path = f"/api/sessions/{client.post('/api/sessions', json={}).json()['id']}/execute"
        waiting = wait(client, path)
        one, two = waiting["tool_calls"]
        first = submit(client, waiting["id"], {"id": one["id"], "result": "first"}).json()
        assert first["tool_calls"] == [two]
        gateway.kill()
    with gateway_on(supervisor_of_restarts, home) as (_, client):
        now = client.get(f"/api/executions/{waiting['id']}").json()
        assert (now["status"], now["stdout"]) == ("tool_call_required", "once\n")
        assert now["tool_calls"] == [two]
        done = submit(client, waiting["id"], {"id": two["id"], "result": "second"}).json()
        assert value(done) == "['first', 'second']"
        assert done["stdout"] == "once\n"
        assert {call["id"]: call["status"] for call in done["tool_calls"]} == {
            one["id"]: "ok",
            two["id"]: "ok",
        }
        told = events(client, waiting["id"])
        assert [number for number, _, _ in told] == list(range(1, len(told) + 1))
        assert [kind for _, kind, _ in told].count("tool_result") == 2


@pytest.mark.parametrize("point", ["results-claimed", "call-answered", "call-answered:2"])
def test_results_that_a_dying_gateway_had_taken(
    supervisor_of_restarts: SupervisorHandle, home: Path, point: str
) -> None:
    """Whatever of them has reached the code is used once; the others can be sent again."""
    with gateway_on(supervisor_of_restarts, home, crash_at=point) as (gateway, client):
        waiting = wait(client)
        results = {name: {"id": name, "result": name} for name in ids(waiting)}
        with pytest.raises(httpx2.TransportError):
            submit(client, waiting["id"], *results.values())
        gateway.process.wait(10)
    with gateway_on(supervisor_of_restarts, home) as (_, client):
        now = client.get(f"/api/executions/{waiting['id']}").json()
        if point != "call-answered:2":  # then the first one may have been on its way, or not
            assert ids(now) == ids(waiting)
        done = submit(client, waiting["id"], *(results[name] for name in ids(now))).json()
        assert value(done) == repr(ids(waiting))
