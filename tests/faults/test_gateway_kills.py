"""kill -9 of the gateway loses no session and no result and runs nothing twice, wherever it was just then.

A short form; `make soak ARGS="--only gateway-kills"` is the long one.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.faults import walks
from tests.faults.server import FaultServer


@pytest.mark.parametrize("point", walks.POINTS)
def test_a_crash_at_every_named_point(server: FaultServer, point: str) -> None:
    walks.past(server, point)


# Without shrinking: here a failure is to be told soon. The soak shrinks.
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(walks.steps)
def test_walks_with_kills_at_random(server: FaultServer, steps: list[walks.Step]) -> None:
    walks.walk(server, steps)
