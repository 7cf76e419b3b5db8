"""Control groups: hard limits on memory, processes and CPU, where a probe proves that they work.

"A v2 tree exists" does not mean that it carries memory: each controller is looked for in v2 and in v1,
a limit is written and read back, and only then it counts. We stay inside our own subtree. Where
nothing works the supervisor's watcher takes over, and says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from onehop.jail import syscalls

PREFIX = "onehop-"
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
SOCKETS_SHARE = 16
"""On v1: buffers of INET sockets may hold this part of a sandbox's memory limit, beside it."""


@dataclass(frozen=True)
class Controller:
    """A controller that was proved to work: `version` 1 or 2, and the directory that is ours in it."""

    name: str
    version: int
    directory: Path


@dataclass
class Tree:
    """The supervisor's own subtree in each hierarchy; `missing` says why a controller is not there."""

    controllers: dict[str, Controller] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _locks: dict[Path, int] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name in self.controllers

    def directories(self) -> list[Path]:
        """Each of our directories once (controllers may share one)."""
        return list(dict.fromkeys(controller.directory for controller in self.controllers.values()))

    def close(self) -> None:
        """Removes what is ours; groups that still hold processes stay."""
        for directory in self.directories():
            _remove_group(directory)
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()
        self.controllers.clear()


def mounts() -> tuple[dict[str, Path], Path | None]:
    """v1 mount points by controller, and the v2 mount point (proc(5), mountinfo)."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4])
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            v2 = v2 or point
        elif kind == "cgroup":
            for name in options.split(","):
                if name in CONTROLLERS:
                    v1.setdefault(name, point)
    return v1, v2


def own_groups() -> dict[str, str]:
    """This process's group by v1 controller; v2 under the empty name (cgroups(7), /proc/pid/cgroup)."""
    groups: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            groups[name] = path
    return groups


def probe(token: str = "") -> Tree:
    """Finds and proves each controller. Leaves nothing behind where it fails.

    Args:
        token: names our groups, so that `remove` finds them when we are dead; chosen if empty.
    """
    tree = Tree()
    v1, v2 = mounts()
    own = own_groups()
    group = f"{PREFIX}{token or secrets.token_hex(6)}"
    v2_base = _v2_base(v2, own.get("", "/"), tree)
    v2_has = set((v2_base / "cgroup.controllers").read_text().split()) if v2_base else set()
    for name in CONTROLLERS:
        if name == "cpuacct" and tree.has("cpu") and tree.controllers["cpu"].version == 2:
            continue  # cpu.stat has it
        candidates: list[tuple[int, Path]] = []
        if v2_base is not None and name in v2_has:
            candidates.append((2, v2_base))
        if name in v1:
            base = v1[name] / own.get(name, "/").lstrip("/")
            candidates.append((1, base if base.is_dir() else v1[name]))
        problem = "the kernel or the container offers no such controller"
        for version, base in candidates:
            _remove_stale(base)
            try:
                tree.controllers[name] = _prove(name, version, base / group, tree)
                break
            except OSError as error:
                problem = f"{base}: {error.strerror or error}"
        if not tree.has(name):
            tree.missing[name] = problem
    return tree


def remove(token: str) -> bool:
    """Removes the groups of a supervisor that is dead; False while the kernel still keeps one of them busy."""
    v1, v2 = mounts()
    left = False
    for point in {*v1.values(), *([v2] if v2 else [])}:
        for own in {"/", *own_groups().values()}:
            directory = point / own.lstrip("/") / f"{PREFIX}{token}"
            _remove_group(directory)
            left = left or directory.exists()
    return not left


def _v2_base(v2: Path | None, own: str, tree: Tree) -> Path | None:
    """Where in v2 we may work: the top for root, our own delegated group for others."""
    if v2 is None or not (v2 / "cgroup.controllers").exists():
        return None
    base = v2 if os.geteuid() == 0 and os.access(v2 / "cgroup.procs", os.W_OK) else v2 / own.lstrip("/")
    return base if os.access(base, os.W_OK) else None


def _claim(directory: Path) -> int:
    """Makes a group and locks it. Whoever finds one unlocked may remove it, even in between: then once more."""
    while True:
        directory.mkdir(exist_ok=True)
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if os.stat(directory).st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


def _prove(name: str, version: int, directory: Path, tree: Tree) -> Controller:
    created = directory not in tree._locks
    if created:
        tree._locks[directory] = _claim(directory)
    try:
        if version == 2:
            for parent in (directory.parent, directory):
                wanted = {"memory": "+memory", "pids": "+pids", "cpu": "+cpu"}[name]
                (parent / "cgroup.subtree_control").write_text(wanted)
        elif name == "memory":
            with contextlib.suppress(OSError):  # always on since Linux 5.11
                (directory / "memory.use_hierarchy").write_text("1")
        test = directory / "probe"
        test.mkdir(exist_ok=True)
        try:
            file, value = _limit_file(name, version)
            if file:
                (test / file).write_text(value)
                if (test / file).read_text().split()[0] != value.split()[0]:
                    raise OSError(errno.EINVAL, f"{file} does not keep its value")
            elif not (test / "cpuacct.usage").exists():
                raise OSError(errno.ENOENT, "no cpuacct.usage")
        finally:
            test.rmdir()
    except OSError:
        if created:
            with contextlib.suppress(OSError):
                directory.rmdir()
            os.close(tree._locks.pop(directory))
        raise
    return Controller(name, version, directory)


def _limit_file(name: str, version: int) -> tuple[str, str]:
    if name == "memory":
        return ("memory.max" if version == 2 else "memory.limit_in_bytes", str(64 << 20))
    if name == "pids":
        return ("pids.max", "16")
    if name == "cpu":
        return ("cpu.max", "50000 100000") if version == 2 else ("cpu.cfs_quota_us", "50000")
    return ("", "")


def _remove_stale(base: Path) -> None:
    """Groups of supervisors that died: nobody holds their lock any more."""
    for directory in base.glob(f"{PREFIX}*"):
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            _remove_group(directory)
        finally:
            os.close(fd)


def _remove_group(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for child in directory.iterdir():
            if child.is_dir():
                with contextlib.suppress(OSError):
                    child.rmdir()
        directory.rmdir()


class Group:
    """The control group of one sandbox, over however many hierarchies there are. Blocking calls only."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = name
        self._files: dict[str, int] = {}
        # Text, because pathlib takes longer than the kernel's part of what is done with these.
        self._paths = [f"{directory}/{name}" for directory in tree.directories()]

    def _path(self, controller: str) -> str:
        return f"{self.tree.controllers[controller].directory}/{self.name}"

    def _version(self, controller: str) -> int:
        return self.tree.controllers[controller].version

    def create(self, *, memory_bytes: int, processes: int, cpus: float) -> None:
        for path in self._paths:
            os.mkdir(path)
        if self.tree.has("memory") and self._version("memory") == 2:
            # The sandbox dies whole: a half-killed program tells its user nothing.
            syscalls.write_file(f"{self._path('memory')}/memory.oom.group", "1")
        self.set_limits(memory_bytes=memory_bytes, processes=processes, cpus=cpus)

    def set_limits(self, *, memory_bytes: int, processes: int, cpus: float) -> None:
        if self.tree.has("memory"):
            name = "memory.max" if self._version("memory") == 2 else "memory.limit_in_bytes"
            syscalls.write_file(f"{self._path('memory')}/{name}", str(memory_bytes))
            if self._version("memory") == 1:
                # v1 counts what TCP and UDP sockets hold apart from the rest, and only where this was written;
                # without it one sandbox fills the whole machine's share through its loopback.
                with contextlib.suppress(OSError):
                    path = f"{self._path('memory')}/memory.kmem.tcp.limit_in_bytes"
                    syscalls.write_file(path, str(memory_bytes // SOCKETS_SHARE))
        if self.tree.has("pids"):
            # Two more than the user's: the sandbox's init and a porter.
            syscalls.write_file(f"{self._path('pids')}/pids.max", str(processes + 2))
        if self.tree.has("cpu") and cpus > 0:
            quota = max(1000, int(cpus * 100_000))
            if self._version("cpu") == 2:
                syscalls.write_file(f"{self._path('cpu')}/cpu.max", f"{quota} 100000")
            else:
                syscalls.write_file(f"{self._path('cpu')}/cpu.cfs_quota_us", str(quota))

    def doors(self) -> list[int]:
        """Descriptors of the files by which a process goes in itself: it writes `0` into each. The caller's to close.

        On v1 a process that moves its only thread by `tasks` needs no lock; anybody else who moves it makes every fork
        and exit of the machine wait for a grace period (cgroup_threadgroup_rwsem), four times half a millisecond.
        """
        versions = {str(one.directory): one.version for one in self.tree.controllers.values()}
        found: list[int] = []
        try:
            for path in self._paths:
                file = "tasks" if versions[path.rpartition("/")[0]] == 1 else "cgroup.procs"
                found.append(os.open(f"{path}/{file}", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            for fd in found:
                os.close(fd)
            raise
        return found

    def _read(self, controller: str, name: str) -> bytes:
        fd = self._files.get(name)
        if fd is None:
            fd = self._files[name] = os.open(
                f"{self._path(controller)}/{name}",
                os.O_RDWR | os.O_CLOEXEC
                if name == "memory.max_usage_in_bytes"
                else os.O_RDONLY | os.O_CLOEXEC,
            )
        return os.pread(fd, 8192, 0)

    def cpu_ns(self) -> int:
        """CPU time of everything that ever ran in the sandbox; -1 where it cannot be told."""
        if self.tree.has("cpuacct"):
            return int(self._read("cpuacct", "cpuacct.usage"))
        if self.tree.has("cpu") and self._version("cpu") == 2:
            return int(self._read("cpu", "cpu.stat").split()[1]) * 1000
        return -1

    def reset_peak(self) -> None:
        if self.tree.has("memory") and self._version("memory") == 1:
            self._read("memory", "memory.max_usage_in_bytes")
            with contextlib.suppress(OSError):
                os.pwrite(self._files["memory.max_usage_in_bytes"], b"0", 0)

    def peak_bytes(self) -> int:
        """Most memory since reset_peak (since creation on v2); -1 where it cannot be told."""
        if not self.tree.has("memory"):
            return -1
        if self._version("memory") == 1:
            return int(self._read("memory", "memory.max_usage_in_bytes"))
        try:
            return int(self._read("memory", "memory.peak"))  # Linux 5.19
        except OSError:
            return -1

    def out_of_memory_kills(self) -> int:
        if not self.tree.has("memory"):
            return 0
        name = "memory.events" if self._version("memory") == 2 else "memory.oom_control"
        for line in self._read("memory", name).splitlines():
            key, _, value = line.partition(b" ")
            if key == b"oom_kill":
                return int(value)
        return 0

    def remove(self) -> None:
        """Frees the group; its processes must have been reaped. Safe to call twice."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path)
