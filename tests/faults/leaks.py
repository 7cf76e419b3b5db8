"""What a server holds on the machine, counted from outside: it must be the same before and after any work.

Everything is read from /proc, /sys and the file system; the server is not asked.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from pathlib import Path

from onehop.jail import cgroups
from tests.cli.processes import children, started
from tests.faults.server import FaultServer

NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
REST_S = 40.0
SLACK = {"descriptors of the gateway": 1, "threads of the gateway": 1}
"""SQLite and the loop open one more now and then and close it again; what leaks, leaks each time."""
_TOKEN = re.compile(r"onehop-[0-9a-f]+")


def below(pid: int) -> list[int]:
    found: list[int] = []
    unseen = [pid]
    while unseen:
        new = children(unseen.pop())
        found += new
        unseen += new
    return found


def groups(pids: list[int]) -> set[str]:
    """Control groups of the servers that the processes belong to."""
    tokens = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            tokens.update(_TOKEN.findall(Path(f"/proc/{pid}/cgroup").read_text()))
    v1, v2 = cgroups.mounts()
    points = {*v1.values(), *([v2] if v2 else [])}
    found: set[str] = set()
    for point in points:
        for folder, names, _ in os.walk(point):  # others' groups come and go meanwhile, which it takes
            inside = tokens.intersection(folder.split("/"))
            found.update(f"{folder}/{name}" for name in names if inside or name in tokens)
    return found


class Life:
    """What one supervisor and its gateway have; nothing of it may outlive them."""

    def __init__(self, server: FaultServer) -> None:
        pids = below(server.process.pid)
        self._processes = {(pid, started(pid)) for pid in pids}
        self._groups = groups(pids)
        self._folders = set(server.temporary.iterdir())
        assert len(self._processes) > 4
        assert self._folders

    def left(self) -> list[str]:
        found = [f"process {pid}" for pid, since in self._processes if since and started(pid) == since]
        found += sorted(path for path in self._groups if os.path.exists(path))
        found += [str(path) for path in self._folders if path.exists()]
        mounts = Path("/proc/self/mounts").read_text()
        found += [f"mount of {path}" for path in self._folders if str(path) in mounts]
        return found


def holding(server: FaultServer) -> dict[str, int]:
    """Numbers of everything there is of a server just now."""
    master, supervisor, shim = server.process.pid, server.supervisor(), server.shim()
    (gateway,) = server.children("onehop.cli.gateway")
    pids = below(master)
    counts: Counter[str] = Counter()
    counts["processes"] = len(pids)
    counts["threads of the gateway"] = len(os.listdir(f"/proc/{gateway}/task"))
    counts["zombies"] = sum(_state(pid) == "Z" for pid in pids)
    for name in sorted(_namespaces([master, *pids])):
        counts[f"{name.partition(':')[0]} namespaces"] += 1
    counts["control groups"] = len(groups(pids))
    for role, pid in (("master", master), ("shim", shim), ("supervisor", supervisor), ("gateway", gateway)):
        counts[f"descriptors of the {role}"] = _entries(f"/proc/{pid}/fd")
        counts[f"mounts of the {role}"] = _lines(f"/proc/{pid}/mountinfo")
    counts["mounts of the machine"] = _lines("/proc/self/mountinfo")
    counts["temporary files"] = sum(1 for _ in server.temporary.rglob("*"))
    counts["state files"] = sum(1 for _ in (server.home / "state").rglob("*"))
    counts["uids in use"] = len(_uids(pids))
    return dict(counts)


def at_rest(server: FaultServer, like: dict[str, int] | None = None) -> dict[str, int]:
    """`holding`, once it does not change any more; with `like`, once it is that, or after REST_S."""
    deadline_s = time.monotonic() + REST_S
    before: dict[str, int] = {}
    same = 0
    now: dict[str, int] = {}
    while time.monotonic() < deadline_s:
        try:
            now = holding(server)
        except (OSError, ValueError):  # something ended while we looked
            now = {}
        same = same + 1 if now and now == before else 0
        if (like is None and same >= 5) or (like is not None and now and not grown(like, now)):
            return now
        before = now
        time.sleep(0.2)
    return before


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """One line for all that there is more of."""
    return [
        f"{name}: {old} before, {after[name]} after"
        for name, old in before.items()
        if after[name] > old + SLACK.get(name, 0)
    ]


def _namespaces(pids: list[int]) -> set[str]:
    """As lsns(8). Numbers of namespaces that are gone are given out again at once: only to be counted."""
    found = set()
    for pid in pids:
        for kind in NAMESPACES:
            try:
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
            except OSError:
                continue  # it has ended, or is closed to us
    return found


def _uids(pids: list[int]) -> set[int]:
    """Host uids that the processes run as."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}").st_uid)
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _entries(path: str) -> int:
    try:
        return len(os.listdir(path))
    except PermissionError:
        return -1  # closed to an ordinary user, as the supervisor is


def _lines(path: str) -> int:
    try:
        return len(Path(path).read_text().splitlines())
    except PermissionError:
        return -1
