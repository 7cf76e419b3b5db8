"""What a server left on the machine: its processes, their memory, mounts, control groups and folders.

Read from /proc and the file system only, so that it does not believe what the server says about itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
PREFIX = "onehop-"
"""How onehop names its control groups and its folders under /tmp."""


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

    An init is a child of the supervisor in a PID namespace of its own.
    """
    supervisor = supervisor_of(server_pid)
    depth = namespace_depth(supervisor)
    below = children()
    return {
        pid: [pid, *descendants(pid)]
        for pid in below.get(supervisor, ())
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
    private = proportional = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
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


def groups() -> list[Path]:
    """onehop's control groups, in every hierarchy, at whatever depth."""
    found = []
    for directory, names, _ in os.walk(CGROUP_ROOT):
        found += [Path(directory, name) for name in names if name.startswith(PREFIX) or PREFIX in directory]
    return found


def empty_groups() -> list[Path]:
    """Leaf groups without any process: what a sandbox that is gone left behind."""
    found = []
    for group in groups():
        try:
            if (
                not any(entry.is_dir() for entry in group.iterdir())
                and not (group / "cgroup.procs").read_text()
            ):
                found.append(group)
        except OSError:
            continue  # removed while we looked
    return found


def mounts(pid: int) -> list[str]:
    """The mount points that a process sees."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[4] for line in lines]


def folders() -> list[str]:
    """onehop's folders in the directory for temporary files."""
    import tempfile

    return sorted(entry for entry in os.listdir(tempfile.gettempdir()) if entry.startswith(PREFIX))


@dataclass(frozen=True)
class Leftovers:
    """What is on the machine at one moment, to compare with another."""

    mounts: int
    groups: frozenset[Path] = field(default_factory=frozenset)
    folders: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def now(cls) -> Leftovers:
        return cls(len(mounts(os.getpid())), frozenset(groups()), frozenset(folders()))

    def since(self, before: Leftovers) -> list[str]:
        """One line per thing that was not there before."""
        lines = [f"control group {path}" for path in sorted(self.groups - before.groups)]
        lines += [f"folder {name}" for name in sorted(self.folders - before.folders)]
        if self.mounts > before.mounts:
            lines.append(f"{self.mounts - before.mounts} mounts")
        return lines
