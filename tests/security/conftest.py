"""A second tenant that must not notice anything, and what this machine can hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from onehop.jail import syscalls
from tests.driver import Driver

NEIGHBOUR_WORST_S = 2.0
"""Not a promise but a proof that nothing is frozen: two noisy cores with an attacker on each answer in 10-100 ms."""


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
    driver: Driver, record_property: Callable[[str, object], None]
) -> Callable[[], AbstractContextManager[None]]:
    """Within the block a second tenant runs cells all the time; afterwards none has failed or come late."""

    @contextmanager
    def watch() -> Iterator[None]:
        with driver.session() as neighbour:
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

            living = driver.submit(live())
            try:
                yield
            finally:
                driver.loop.call_soon_threadsafe(stop.set)
                living.result(30)
            record_property("neighbour_worst_ms", round(max(times) * 1000, 1))
            assert max(times) < NEIGHBOUR_WORST_S

    return watch
