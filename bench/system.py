"""What a server left on the machine: its processes, their memory, mounts, control groups and folders.

Read from /proc and the file system only, so that it does not believe what the server says about itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
_TREE = re.compile(r"/(onehop-[0-9a-f]+)(?:/|$)", re.MULTILINE)
"""A supervisor's own control group in the path of one of its sandboxes."""


def children() -> dict[int, list[int]]:
    """Pids by their parent's pid."""
    found: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended while we looked
            found.setdefault(parent, []).append(int(entry))
    return found


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    below = children()
    found, todo = [], [pid]
    while todo:
        for child in below.get(todo.pop(), ()):
            found.append(child)
            todo.append(child)
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def namespace_depth(pid: int) -> int:
    """In how many PID namespaces the process has a number; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) - 1
    except OSError:
        pass
    return 0


def namespace(pid: int, kind: str = "net") -> str:
    """As `readlink /proc/self/ns/net` says inside; empty when it is gone or closed to us."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def supervisor_of(server_pid: int) -> int:
    """The supervisor's pid, 0 when it cannot be found."""
    for pid in descendants(server_pid):
        if "onehop.supervisor.main" in command_line(pid):
            return pid
    return 0


def sandboxes(server_pid: int) -> dict[int, list[int]]:
    """All sandboxes, ready ones included: the init's pid to all pids of the sandbox, init first.

    An init is a child of the supervisor in a PID namespace of its own. Kernels are in the same, as children of
    a zygote.
    """
    supervisor = supervisor_of(server_pid)
    depth = namespace_depth(supervisor)
    inside: dict[str, list[int]] = {}
    for pid in descendants(supervisor):
        if namespace_depth(pid) > depth and (name := namespace(pid, "pid")):
            inside.setdefault(name, []).append(pid)
    return {
        pid: [pid, *(one for one in inside.get(namespace(pid, "pid"), descendants(pid)) if one != pid)]
        for pid in children().get(supervisor, ())
        if namespace_depth(pid) == depth + 1
    }


@dataclass(frozen=True)
class Memory:
    """Memory of some processes in bytes, from smaps_rollup (proc(5)).

    private: pages that one process alone has mapped, clean and dirty. proportional: PSS.
    """

    private: int
    proportional: int


def memory(pids: Iterable[int]) -> Memory:
    """Processes that ended meanwhile count nothing. Raises PermissionError for those closed to this user."""
    private = proportional = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in text.splitlines()[1:]:
            name, value, *_ = line.split()
            if name in ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"):
                private += int(value) * 1024
            elif name == "Pss:":
                proportional += int(value) * 1024
    return Memory(private, proportional)


def available_bytes() -> int:
    """MemAvailable of the machine."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def mounts(pid: int) -> list[str]:
    """The mount points that a process sees."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[4] for line in lines]


@dataclass(frozen=True)
class Traces:
    """What one server has outside of its processes, noted while it runs; other servers may run beside it.

    groups: names of its trees of control groups. runtime: its folder for temporary files.
    """

    groups: frozenset[str]
    runtime: str

    @classmethod
    def of(cls, server_pid: int) -> Traces:
        names: set[str] = set()
        for init in sandboxes(server_pid):
            try:
                names.update(_TREE.findall(Path(f"/proc/{init}/cgroup").read_text()))
            except OSError:
                continue  # it ended while we looked
        runtimes = [_runtime(pid) for pid in descendants(server_pid)]
        return cls(frozenset(names), next((path for path in runtimes if path), ""))

    def directories(self) -> list[Path]:
        """The control groups that exist now, in every hierarchy."""
        found = []
        for directory, names, _ in os.walk(CGROUP_ROOT):
            inside = self.groups.intersection(Path(directory).parts)
            found += [Path(directory, name) for name in names if inside or name in self.groups]
        return found

    def empty_groups(self) -> list[Path]:
        """Groups of sandboxes without any process: what one that is gone left behind."""
        found = []
        for group in self.directories():
            try:
                if group.name not in self.groups and not (group / "cgroup.procs").read_text():
                    found.append(group)
            except OSError:
                continue  # removed while we looked
        return found

    def left(self) -> list[str]:
        """One line per thing that is still there; for after the server's end."""
        lines = [f"control group {path}" for path in self.directories()]
        if self.runtime and os.path.exists(self.runtime):
            lines.append(f"folder {self.runtime}")
        lines += [f"mount {point}" for point in mounts(os.getpid()) if self.runtime and self.runtime in point]
        return lines


def _runtime(pid: int) -> str:
    """The folder that a supervisor's shim was told to use, empty for other processes."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    for variable in variables:
        name, _, value = variable.partition(b"=")
        if name == b"ONEHOP_SUPERVISOR_SPEC":
            return str(json.loads(value)["runtime"])
    return ""
