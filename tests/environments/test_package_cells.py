"""Every package of the default environment works inside the jail."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.environments.package_cells import PACKAGE_CELLS


@pytest.mark.parametrize("name", PACKAGE_CELLS)
def test_package_works_in_the_jail(name: str, run_in_jail: Callable[[str], dict[str, Any]]) -> None:
    answer = run_in_jail(PACKAGE_CELLS[name])
    assert answer["status"] == "ok", answer["error"]
    assert answer["stdout"].splitlines()[-1].startswith(f"{name}: ")
