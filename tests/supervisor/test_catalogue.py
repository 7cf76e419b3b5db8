"""Environments that appear while a supervisor runs, found by name in the operator's folder and nowhere else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onehop.environments import known
from onehop.environments.model import MANIFEST, Environment
from onehop.errors import UnavailableError, UnknownEnvironmentError, WeakIsolationError
from onehop.supervisor.catalogue import Catalogue
from onehop.supervisor.spawn import SupervisorHandle, SupervisorSettings, start
from tests.driver import Driver


@pytest.fixture
def home(tmp_path: Path, environment: Environment) -> Path:
    """With the default environment, which was built elsewhere."""
    folder = tmp_path / "home" / "environments"
    folder.mkdir(parents=True)
    (folder / environment.path.name).symlink_to(environment.path)
    return tmp_path / "home"


@pytest.fixture
def supervisor_of_home(home: Path) -> Iterator[SupervisorHandle]:
    default = known.find("default", home)
    assert default is not None
    try:
        handle = start(SupervisorSettings(environments=(default,), pool_max=2))
    except WeakIsolationError as error:
        pytest.skip(str(error))
    with handle:
        yield handle


def lay(home: Path, name: str, environment: Environment, *, preload: list[str]) -> Path:
    """An environment with the packages of the default one, as `add` leaves it."""
    lock = f"# {name}\n"
    path = known.place(name, known.digest_of(lock, known.base_python()), home)
    (path / MANIFEST).parent.mkdir(parents=True)
    for part in environment.path.iterdir():
        if part.name != "share":
            (path / part.name).symlink_to(part)
    document = json.loads(environment.manifest()) | {"name": name, "preload": preload}
    (path / MANIFEST).write_text(json.dumps(document))
    known.lock_path(name, home).write_text(lock)
    return path


def test_the_folder_is_read_again_only_when_it_changed(home: Path, environment: Environment) -> None:
    catalogue = Catalogue(home)
    assert catalogue.look()
    assert set(catalogue.found) == {"default"}
    past_ns = time.time_ns() - 10_000_000_000
    os.utime(home / "environments", ns=(past_ns, past_ns))
    assert catalogue.look()
    assert not catalogue.look()
    path = lay(home, "late", environment, preload=[])
    assert catalogue.look()
    assert catalogue.found["late"].path == path
    assert "numpy" in catalogue.packages(str(path))
    known.lock_path("late", home).unlink()
    assert catalogue.look()
    assert set(catalogue.found) == {"default"}


NOWHERE = (
    "",
    "absent",
    "../home/environments/default",
    "default-0",
    "a\0b",
    "/etc",
    ".staging",
    "A",
    "x" * 255,
)


def test_a_name_leads_nowhere_else(supervisor_of_home: SupervisorHandle) -> None:
    driver = Driver(supervisor_of_home.path)
    try:
        for name in NOWHERE:
            with pytest.raises(UnknownEnvironmentError, match="there are: default"):
                with driver.session(environment=name):
                    pass
        with driver.session(environment="default"):
            pass
    finally:
        driver.close()


def test_one_that_cannot_start_says_so_at_once_and_disturbs_nobody(
    supervisor_of_home: SupervisorHandle, home: Path, environment: Environment
) -> None:
    driver = Driver(supervisor_of_home.path)
    try:
        lay(home, "broken", environment, preload=["no_such_module"])
        started_s = time.monotonic()
        for _ in range(2):
            with pytest.raises(UnavailableError, match="the environment 'broken' does not start"):
                with driver.session(environment="broken"):
                    pass
        assert time.monotonic() - started_s < 20
        with driver.session() as session:
            assert session.run("print(1)").stdout == "1\n"
        found = {one.name: one.ready for one in driver.wait(driver.client.environments())}
        assert found == {"default": True, "broken": False}
    finally:
        driver.close()
