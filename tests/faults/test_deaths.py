"""Who dies is told within 100 ms, with the cause, and the next request works. `make soak` has the long form.

Measured by the client, on whatever machine runs the tests: ALLOWANCE_S is for a noisy one, which also may
stand still in one of the rounds; what is wrong in ours would be late in all.
"""

from __future__ import annotations

import httpx2
import pytest

from tests.faults import deaths
from tests.faults.server import FaultServer

ALLOWANCE_S = 0.4
ROUNDS = 3


def test_a_killed_kernel(server: FaultServer, client: httpx2.Client) -> None:
    assert min(deaths.kernel_killed(server, client) for _ in range(ROUNDS)) < deaths.PROMISED_S + ALLOWANCE_S


def test_a_kernel_killed_between_two_executions(server: FaultServer, client: httpx2.Client) -> None:
    for _ in range(ROUNDS):
        deaths.kernel_killed_between(server, client)


def test_a_killed_sandbox(server: FaultServer, client: httpx2.Client) -> None:
    assert min(deaths.sandbox_killed(server, client) for _ in range(ROUNDS)) < deaths.PROMISED_S + ALLOWANCE_S


def test_a_killed_zygote(server: FaultServer, client: httpx2.Client) -> None:
    for _ in range(2):
        deaths.zygote_killed(server, client)


@pytest.mark.parametrize("who", ["supervisor", "shim"])
def test_a_killed_supervisor(server: FaultServer, who: str) -> None:
    """Promised: healthy after 3 s, the first execution after 10 s. Here with room for a machine at work."""
    took = deaths.supervisor_killed(server, server.supervisor() if who == "supervisor" else server.shim())
    assert took.healthy_s < 3 + 20
    assert took.executed_s < 10 + 30
