"""Supervisors of one test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from onehop.environments.model import Environment
from onehop.errors import WeakIsolationError
from onehop.supervisor.spawn import SupervisorHandle, SupervisorSettings, start
from tests.driver import Driver

Start = Callable[..., tuple[SupervisorHandle, Driver]]


@pytest.fixture
def start_supervisor(environment: Environment) -> Iterator[Start]:
    """Starts one with the given settings; it and its driver end with the test."""
    with ExitStack() as stack:

        def begin(**settings: Any) -> tuple[SupervisorHandle, Driver]:
            try:
                handle = start(SupervisorSettings(environments=(environment,), **{"pool_max": 4, **settings}))
            except WeakIsolationError as error:
                pytest.skip(str(error))
            stack.enter_context(handle)
            driver = Driver(handle.path)
            stack.callback(driver.close)
            return handle, driver

        yield begin
