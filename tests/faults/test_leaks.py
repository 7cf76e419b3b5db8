"""The machine is the same before and after sessions of every way to end. `make soak` does it in hundreds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onehop.environments.model import Environment
from tests.cli.conftest import make_home
from tests.faults import leaks
from tests.faults.endings import ENDINGS
from tests.faults.server import FaultServer

STEADY = ("--pool-min", "2", "--pool-max", "2", "--grace-s", "0.2")


@pytest.fixture
def steady(tmp_path: Path, onehop_home: Path, environment: Environment) -> Iterator[FaultServer]:
    """A server whose pool is of one size, so that numbers can be compared."""
    server = FaultServer(make_home(tmp_path, onehop_home), tmp_path, *STEADY)
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()


def test_no_way_to_end_leaves_anything(steady: FaultServer) -> None:
    def every_way() -> None:
        with steady.client() as client:
            for ending in ENDINGS:
                ending(steady, client)

    every_way()  # what is made once and kept is made now
    before = leaks.at_rest(steady)
    every_way()
    after = leaks.at_rest(steady, before)
    assert leaks.grown(before, after) == []
    life = leaks.Life(steady)
    steady.close()
    assert life.left() == []
