"""Fixtures shared by all tests: the built environment, one supervisor for the run, and code in real sandboxes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from onehop.environments.build import ensure
from onehop.environments.model import Environment
from onehop.errors import WeakIsolationError
from onehop.supervisor.spawn import SupervisorHandle, SupervisorSettings, start
from tests.compatibility import Recorder
from tests.driver import Driver, Session

NO_SKIP = os.environ.get("ONEHOP_TEST_NO_SKIP") == "1"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compatibility", action="store_true", help="write COMPATIBILITY.md from what passes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--compatibility"):
        config.pluginmanager.register(Recorder(collect_only=False))
    # A run in the background of a shell has SIGINT ignored, and so would have all that it starts.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root_only") and os.geteuid() != 0:
        pytest.skip("needs root")
    if item.get_closest_marker("user_only") and os.geteuid() == 0:
        pytest.skip("needs an ordinary user; `scripts/test-as-user` runs it")
    for marker in item.iter_markers("needs_apt"):
        import shutil

        program = marker.kwargs.get("program", marker.args[0])
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install {marker.args[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def onehop_home() -> Path:
    """Where environments are built; shared with `make run`, since building takes half a minute."""
    return Path(os.environ.get("ONEHOP_HOME") or Path.home() / ".local/share/onehop")


@pytest.fixture(scope="session")
def environment(onehop_home: Path) -> Environment:
    return ensure("default", onehop_home, progress=lambda line: None)


@pytest.fixture(scope="session")
def supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    try:
        handle = start(SupervisorSettings(environments=(environment,), pool_max=4))
    except WeakIsolationError as error:
        pytest.skip(str(error))
    with handle:
        yield handle


@pytest.fixture(scope="session")
def driver(supervisor: SupervisorHandle) -> Iterator[Driver]:
    driver = Driver(supervisor.path)
    yield driver
    driver.close()


@pytest.fixture
def session(driver: Driver) -> Iterator[Session]:
    with driver.session() as session:
        yield session


@pytest.fixture
def run_in_jail(driver: Driver) -> Callable[[str], dict[str, Any]]:
    """One fresh sandbox per call; the answer as the API would give it."""
    return lambda code: driver.run_once(code, timeout_s=60).document()
