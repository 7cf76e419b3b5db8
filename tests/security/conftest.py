"""A second tenant that must not notice anything, and what this machine can hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from onehop.jail import syscalls
from onehop.supervisor.spawn import SupervisorHandle
from tests.driver import Driver
from tests.timing import stillness_s

NEIGHBOUR_WORST_S = 2.0
"""Not a promise but a proof that nothing is frozen: two noisy cores with an attacker on each answer in 10-100 ms."""
FROZEN_S = 5.0
"""Later than this is frozen, even on a machine that stood still itself: the attacks that froze us took six seconds."""


@pytest.fixture(scope="session")
def isolation(driver: Driver) -> dict[str, str]:
    found: dict[str, str] = driver.wait(driver.client.describe())["isolation"]
    return found


@pytest.fixture(scope="session")
def counted(isolation: dict[str, str]) -> bool:
    """A cgroup counts the sandboxes' memory; otherwise a watcher polls it."""
    return isolation["memory"] == "cgroup"


@pytest.fixture(scope="session")
def landlock_scopes() -> bool:
    return syscalls.landlock_abi() >= 6


@pytest.fixture
def watched(
    supervisor: SupervisorHandle, record_property: Callable[[str, object], None]
) -> Callable[[], AbstractContextManager[None]]:
    """Within the block a second tenant runs cells all the time; afterwards none has failed or come late.

    It has a connection and a loop of its own: what the test itself sends and is sent is no queue before it.
    """

    @contextmanager
    def watch() -> Iterator[None]:
        driver = Driver(supervisor.path)
        with closing(driver), driver.session() as neighbour:
            neighbour.run("kept = 40 + 2")
            stop = asyncio.Event()
            times: list[float] = []

            async def live() -> None:
                while not stop.is_set():
                    started = time.monotonic()
                    outcome = await neighbour.start("kept", timeout_s=20)
                    times.append(time.monotonic() - started)
                    assert outcome.results == [{"text/plain": "42"}], outcome.document()
                    await asyncio.sleep(0.01)

            living, control = driver.submit(live()), driver.submit(stillness_s(stop))
            try:
                yield
            finally:
                driver.loop.call_soon_threadsafe(stop.set)
                living.result(30)
            still_s = control.result(30)
            record_property("neighbour_worst_ms", round(max(times) * 1000, 1))
            record_property("stood_still_ms", round(still_s * 1000, 1))
            assert max(times) < min(NEIGHBOUR_WORST_S + still_s, FROZEN_S), f"we stood still {still_s:.3f} s"

    return watch
