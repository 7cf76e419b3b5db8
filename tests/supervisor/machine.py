"""What a supervisor leaves on the machine, looked at from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from onehop.jail import cgroups
from onehop.supervisor.spawn import SupervisorHandle
from onehop.supervisor.surroundings import descendants


def supervisor_pid(handle: SupervisorHandle) -> int:
    """The supervisor itself; `handle.process` is the shim above it."""
    pid = handle.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, children
    return int(children[0])


def zygote_pid(handle: SupervisorHandle) -> int:
    """The child of the supervisor that lives in its PID namespace, beside the seed; inits have each their own."""
    return _worker(handle, "python")


def seed_pid(handle: SupervisorHandle) -> int:
    return _worker(handle, "onehop-seed")


def _worker(handle: SupervisorHandle, name: str) -> int:
    supervisor = supervisor_pid(handle)
    found = []
    for pid in descendants(supervisor):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        if (
            int(fields["PPid"]) == supervisor
            and len(fields["NSpid"].split()) == 2
            and fields["State"][0] not in "ZX"
            and fields["Name"] == name
        ):
            found.append(pid)
    assert len(found) == 1, found
    return found[0]


def groups(token: str) -> set[str]:
    """A supervisor's control groups and those of its sandboxes."""
    v1, v2 = cgroups.mounts()
    points = {*v1.values(), *([v2] if v2 else [])}
    tops = [path for point in points for path in point.rglob(f"{cgroups.PREFIX}{token}")]
    return {str(path) for top in tops for path in (top, *top.rglob("*")) if path.is_dir()}


def gone(pid: int) -> bool:
    """Whether no such process exists; one that nobody has waited for yet is as good as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def eventually(condition: Callable[[], bool], *, within_s: float = 30.0, what: str = "") -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what or condition
        time.sleep(0.01)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def inside_sandboxes(handle: SupervisorHandle) -> list[int]:
    """Every process that lives in a PID namespace below the supervisor's."""
    found = []
    for pid in descendants(supervisor_pid(handle)):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        if len(fields["NSpid"].split()) == 3 and fields["State"][0] not in "ZX":
            found.append(pid)
    return found
