"""A neighbour of each attack on resources is served all the time, and the gateway's memory stays bounded.

How much slower he is depends on the machine, and is measured by `make soak`; here only that he is served.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from tests.faults.attacks import ATTACKS, attack, percentile
from tests.faults.server import FaultServer

SECONDS = 0.3
SERVED_MS = 5_000.0
MIB = 1 << 20


@pytest.mark.parametrize("name", ATTACKS)
def test_a_neighbour_is_served(
    server: FaultServer, client: httpx2.Client, name: str, record_property: Callable[[str, object], None]
) -> None:
    noticed = attack(server, client, name, SECONDS)
    assert noticed.noisy_ms
    record_property("p99_ms", [percentile(noticed.quiet_ms, 0.99), percentile(noticed.noisy_ms, 0.99)])
    assert max(noticed.noisy_ms) < SERVED_MS
    assert noticed.gateway_growth_bytes < 64 * MIB
