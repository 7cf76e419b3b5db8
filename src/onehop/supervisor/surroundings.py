"""What all sandboxes of a supervisor share: settings, control groups, ids, and the measuring of processes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from onehop.jail import cgroups, landlock, syscalls
from onehop.supervisor.children import Children
from onehop.supervisor.lines import line
from onehop.supervisor.messages import SandboxSpec
from onehop.supervisor.pipes import pid_of as pid_of

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
RESERVED_BYTES = 2 << 30


class Surroundings:
    """Made once, in the supervisor, before its first zygote."""

    def __init__(self, settings: dict[str, Any], watch: Callable[[Sandbox], None]) -> None:
        self.settings = settings
        self.namespaces: bool = settings["namespaces"]
        self.abi = syscalls.landlock_abi()
        self.cgroups = cgroups.probe(settings["token"])
        self.watch = watch
        self.children = Children()
        self.baseline_bytes = 0
        """Resident memory of a fresh zygote, which all its kernels share."""
        memory = "cgroup" if self.cgroups.has("memory") else "polled"
        self.nice = 0 if self.cgroups.has("cpu") else 19
        self.isolation = {
            "level": "process" if self.namespaces else "process-without-namespaces",
            "memory": memory,
            "pids": "cgroup" if self.cgroups.has("pids") else "rlimit",
            "network": "none",
        }

    @property
    def polled(self) -> bool:
        return self.isolation["memory"] == "polled"

    def log(self, text: str) -> None:
        sys.stderr.write(line("supervisor", text, self.settings["log_format"]))
        sys.stderr.flush()

    def limits(self, spec: SandboxSpec) -> dict[str, int]:
        """rlimits of every process of a sandbox (see jail/enter.py)."""
        limits = {
            "CORE": 1,  # no core, also where the host pipes them to a handler (0 would not stop that)
            "NOFILE": self.settings["open_files"],
            # The init is one more. One below the group's limit, so that a porter or a new kernel, which the init
            # forks without this limit, still finds a place beside a sandbox full of processes.
            "NPROC": spec.processes + 1,
            "FSIZE": max(spec.workspace_bytes, self.settings["tmp_bytes"]),
            "MEMLOCK": 1 << 20,
            "MSGQUEUE": 0,
            "SIGPENDING": 1024,
            "RTPRIO": 0,
            "NICE": 0,
        }
        if not self.namespaces:
            del limits["NPROC"]  # counts all processes of the user, not the sandbox's
        if self.polled:
            # A stop in each process, since the watcher comes only every so often. It counts address space
            # that is only reserved, too: mimalloc inside pyarrow reserves 1 GiB at its first use.
            limits["DATA"] = self.baseline_bytes + spec.memory_bytes + RESERVED_BYTES
        return limits

    def apply_limits(self, pidfd: int, limits: dict[str, int]) -> None:
        """Changes the rlimits of a running process."""
        pid = pid_of(pidfd)
        if pid <= 0:
            return
        for name, value in limits.items():
            try:
                resource.prlimit(pid, getattr(resource, f"RLIMIT_{name}"), (value, value))
            except (OSError, ValueError) as error:
                self.log(f"RLIMIT_{name}={value}: {error}")

    def workspace_used(self, workspace: int, free_inodes: int) -> bool:
        """Whether anything lies in the workspace; without a tmpfs of its own that cannot be told so cheaply."""
        return not self.namespaces or os.fstatvfs(workspace).f_ffree != free_inodes

    def directory(self, name: str) -> str:
        """Where `make_directory` makes it; empty where there are namespaces."""
        return "" if self.namespaces else f"{self.settings['runtime']}/sandboxes/{name}"

    def make_directory(self, name: str) -> str:
        """The sandbox's directory on the host, where there is no mount namespace for a tmpfs."""
        path = self.directory(name)
        if not path:
            return ""
        for part in ("workspace", "tmp"):
            os.makedirs(f"{path}/{part}", mode=0o700)
        return path

    def remove_directory(self, path: str) -> None:
        if path:
            shutil.rmtree(path, ignore_errors=True)

    # --- processes ------------------------------------------------------------------------------------

    def kill_tree(self, pid: int) -> None:
        """Ends a sandbox by its init, a child of ours that has not been reaped."""
        if not self.namespaces:
            self._kill_descendants(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _kill_descendants(self, pid: int) -> None:
        # Stopped first, so that nobody forks on while we look; init is their subreaper, so all are below it.
        deadline_s = time.monotonic() + 2
        while (found := descendants(pid)) and time.monotonic() < deadline_s:
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for child in found:
                    try:
                        os.kill(child, number)
                    except ProcessLookupError:
                        continue

    def cpu_ns(self, pidfd: int) -> int:
        """CPU time of one process and all its threads (not of its children); -1 when it is gone."""
        pid = pid_of(pidfd) if pidfd >= 0 else -1
        if pid <= 0:
            return -1
        # The clock of another process: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), linux/posix-timers.h.
        return time.clock_gettime_ns((~pid << 3) | 2)

    def peak_bytes(self, pidfd: int) -> int:
        """Most resident memory of one process beyond what it shares with its zygote; -1 when it is gone."""
        pid = pid_of(pidfd) if pidfd >= 0 else -1
        if pid <= 0:
            return -1
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return max(0, int(line.split()[1]) * 1024 - self.baseline_bytes)
        return -1

    def private_bytes(self, init_pid: int, suspicious_bytes: int, kernel_pidfds: Iterable[int]) -> int:
        """Memory of all processes below an init; measured exactly only where the cheap figure is suspicious."""
        # Only a kernel surely holds the zygote's memory. Taken off every process, it would hide that much in each
        # child that called exec, or that was forked and holds fewer of the zygote's file pages.
        kernels = {pid_of(pidfd) for pidfd in kernel_pidfds if pidfd >= 0} - {-1}
        # A kernel is its zygote's child, and its own children may be the init's by now.
        inside = kernels.union(*(descendants(pid) for pid in (init_pid, *kernels)))
        total = 0
        for pid in inside:
            try:
                with open(f"/proc/{pid}/statm") as file:
                    resident = int(file.read().split()[1]) * PAGE_BYTES
                total += max(0, resident - self.baseline_bytes) if pid in kernels else resident
            except (OSError, ValueError):
                continue
        if total < suspicious_bytes:
            return total
        total = 0
        for pid in inside:
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    for line in file:
                        if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                            total += int(line.split()[1]) * 1024
            except (OSError, ValueError):
                continue
        return total


PF_EXITING = 0x4
"""linux/sched.h; in the flags of /proc/pid/stat (proc(5))."""


def exiting(pid: int) -> bool:
    """Whether a process is on its way out, or gone; the init of a PID namespace is while its processes die."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return True
    return fields[0] in "ZX" or bool(int(fields[6]) & PF_EXITING)


def descendants(root: int) -> list[int]:
    """All processes below `root`, from the children lists of proc(5)."""
    found: list[int] = []
    unseen = [root]
    while unseen:
        pid = unseen.pop()
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    children = [int(child) for child in file.read().split()]
            except (OSError, ValueError):
                continue
            found += children
            unseen += children
    return found


def protections(around: Surroundings) -> list[dict[str, str]]:
    """Each protection with its state (`active`, `weaker`, `missing`), what it does, and how to get more."""
    tree, settings = around.cgroups, around.settings

    def row(name: str, state: str, detail: str, advice: str = "") -> dict[str, str]:
        return {"name": name, "state": state, "detail": detail, "advice": advice}

    rows = []
    if around.namespaces:
        rows.append(row("namespaces", "active", "user, PID, mount, network, IPC, UTS, cgroup"))
        rows.append(row("root", "active", "minimal, read-only, entered by pivot_root"))
        rows.append(row("network", "active", "none but a loopback of its own"))
    else:
        advice = settings["namespace_problem"]
        rows.append(
            row("namespaces", "missing", f"refused here: {advice}", "run where namespaces are allowed")
        )
        rows.append(row("root", "weaker", "the host's, narrowed by Landlock", "needs namespaces"))
        rows.append(row("network", "weaker", "INET sockets refused by seccomp", "needs namespaces"))
    rows.append(row("seccomp", "active", "allowlist, default ENOSYS"))
    if around.abi >= landlock.STRICT_ABI:
        rows.append(row("landlock", "active", f"ABI {around.abi}"))
    elif around.abi:
        rows.append(row("landlock", "weaker", f"ABI {around.abi}", "Linux 6.2 or later"))
    else:
        rows.append(
            row(
                "landlock",
                "missing",
                "the kernel has none",
                "boot with lsm=landlock,… or Linux 5.13 or later",
            )
        )
    if settings["user"] == 0 and around.namespaces:
        rows.append(row("uids", "active", f"a host uid per sandbox from {settings['uid_base']}"))
    else:
        rows.append(
            row(
                "uids",
                "weaker",
                "sandboxes share the server's uid; namespaces separate them",
                "start as root",
            )
        )
    for name, without in (
        ("memory", "a watcher looks every 100 ms; memfd and SysV memory are refused"),
        ("pids", "RLIMIT_NPROC"),
        ("cpu", "sandboxes run at nice 19"),
    ):
        if tree.has(name):
            rows.append(row(f"cgroup {name}", "active", f"v{tree.controllers[name].version}"))
        else:
            rows.append(
                row(
                    f"cgroup {name}",
                    "weaker",
                    f"{without} ({tree.missing[name]})",
                    "start as root, or by: systemd-run --user --scope -p Delegate=yes",
                )
            )
    return rows
