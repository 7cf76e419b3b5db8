"""rlimits: from a sandbox's specification to what its processes have."""

from __future__ import annotations

import ast
import os
import resource

import pytest

from onehop.jail import enter
from onehop.supervisor.messages import SandboxSpec
from tests.driver import Driver
from tests.kernel.reading import value


def in_child(limits: dict[str, int], names: tuple[str, ...]) -> list[tuple[int, int]]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter.set_limits(limits)
            os.write(
                write,
                repr([resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]).encode(),
            )
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as file:
        found: list[tuple[int, int]] = ast.literal_eval(file.read())
    return found


def test_soft_and_hard_alike_and_never_above_the_hard_one() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert in_child({"NOFILE": 50}, ("NOFILE",)) == [(50, 50)]
    expected = hard if hard != resource.RLIM_INFINITY else resource.RLIM_INFINITY
    assert in_child({"NOFILE": -1}, ("NOFILE",)) == [(expected, expected)]
    assert in_child({"CORE": 0, "FSIZE": 1 << 20}, ("CORE", "FSIZE")) == [(0, 0), (1 << 20, 1 << 20)]
    assert in_child({"FSIZE": 4096}, ("FSIZE",)) == [(4096, 4096)]


@pytest.mark.parametrize(
    "spec", [SandboxSpec(one_shot=True), SandboxSpec(one_shot=True, processes=20, workspace_bytes=1 << 30)]
)
def test_a_kernel_has_them(driver: Driver, spec: SandboxSpec) -> None:
    code = ("import resource as r\n{n: r.getrlimit(getattr(r, 'RLIMIT_' + n)) for n in "
            "('NOFILE', 'FSIZE', 'MEMLOCK', 'MSGQUEUE', 'SIGPENDING', 'RTPRIO', 'NICE', 'CORE')}")  # fmt: skip
    found = ast.literal_eval(value(driver.run_once(code, sandbox=spec)).replace("\n", ""))
    assert all(soft == hard for soft, hard in found.values())
    assert found["NOFILE"] == (256, 256)
    assert found["FSIZE"][0] == max(spec.workspace_bytes, 256 << 20)
    assert found["CORE"][0] <= 1
    assert found["MSGQUEUE"] == found["RTPRIO"] == found["NICE"] == (0, 0)


def test_they_cannot_be_raised(driver: Driver) -> None:
    code = "import resource as r\nr.setrlimit(r.RLIMIT_NOFILE, (257, 257))"
    outcome = driver.run_once(code)
    assert (outcome.error or {"name": ""})["name"] in ("ValueError", "PermissionError")


def test_a_file_over_the_limit_is_an_error_and_no_death(driver: Driver) -> None:
    with driver.session() as session:
        outcome = session.run(
            "import os; fd = os.open('big', os.O_CREAT | os.O_WRONLY); os.ftruncate(fd, 1 << 40)"
        )
        assert outcome.status == "error"
        assert value(session.run("1 + 1")) == "2"
