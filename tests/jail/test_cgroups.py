"""Control groups: what is read from the system's files, and what is proved before it counts."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onehop.jail import cgroups

V1 = """\
22 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
32 31 0:28 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,memory
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpu,cpuacct
34 31 0:30 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,pids
35 31 0:31 / /sys/fs/cgroup/net_cls,net_prio rw,relatime shared:17 - cgroup cgroup rw,net_cls,net_prio
"""
V2 = """\
22 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
HYBRID = (
    V1
    + "36 31 0:32 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
)
OPTIONAL_FIELDS = (
    "41 40 0:38 /docker/a1b2 /sys/fs/cgroup ro,nosuid master:4 propagate_from:2 - cgroup2 cgroup rw\n"
)
NONE = "22 28 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b\n"

OWN_V1 = "4:pids:/user.slice/user-1000.slice\n3:cpu,cpuacct:/\n2:memory:/user.slice\n1:name=systemd:/user.slice\n0::/user.slice/session-2.scope\n"


class Files:
    """Stands in for /proc, with sample texts of real machines; everything else is the real file system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mountinfo: str, cgroup: str) -> None:
        (tmp_path / "mountinfo").write_text(mountinfo)
        (tmp_path / "cgroup").write_text(cgroup)

        def path(*parts: str) -> Path:
            if parts and parts[0].startswith("/proc/self/"):
                return tmp_path / parts[0].rpartition("/")[2]
            return Path(*parts)

        monkeypatch.setattr(cgroups, "Path", path)


@pytest.mark.parametrize(
    ("mountinfo", "v1", "v2"),
    [
        (V1, {"memory": "memory", "cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "pids": "pids"}, None),
        (V2, {}, "/sys/fs/cgroup"),
        (HYBRID, {"memory": "memory", "cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "pids": "pids"},
         "/sys/fs/cgroup/unified"),
        (OPTIONAL_FIELDS, {}, "/sys/fs/cgroup"),
        (NONE, {}, None),
    ],
)  # fmt: skip
def test_mount_points(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mountinfo: str, v1: dict[str, str], v2: str | None
) -> None:
    Files(monkeypatch, tmp_path, mountinfo, "0::/\n")
    found_v1, found_v2 = cgroups.mounts()
    assert found_v1 == {name: Path("/sys/fs/cgroup", point) for name, point in v1.items()}
    assert found_v2 == (Path(v2) if v2 else None)


def test_own_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Files(monkeypatch, tmp_path, V2, OWN_V1)
    assert cgroups.own_groups() == {
        "pids": "/user.slice/user-1000.slice", "cpu": "/", "cpuacct": "/", "memory": "/user.slice",
        "name=systemd": "/user.slice", "": "/user.slice/session-2.scope",
    }  # fmt: skip
    Files(monkeypatch, tmp_path, V2, "0::/init.scope:odd\n")
    assert cgroups.own_groups() == {"": "/init.scope:odd"}


def test_nothing_mounted_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Files(monkeypatch, tmp_path, NONE, "0::/\n")
    tree = cgroups.probe()
    assert tree.controllers == {}
    assert set(tree.missing) == set(cgroups.CONTROLLERS)
    assert all("no such controller" in why for why in tree.missing.values())
    tree.close()


def test_a_tree_that_carries_nothing_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What looks like a v2 tree with all controllers, and is a plain directory that keeps what is written."""
    tree_path = tmp_path / "tree"
    tree_path.mkdir()
    (tree_path / "cgroup.controllers").write_text("hugetlb\n")
    (tree_path / "cgroup.procs").write_text("")
    Files(monkeypatch, tmp_path, f"30 22 0:26 / {tree_path} rw - cgroup2 cgroup2 rw\n", "0::/\n")
    tree = cgroups.probe()
    assert tree.controllers == {}
    tree.close()
    (tree_path / "cgroup.controllers").write_text("memory pids cpu\n")
    (tree_path / "cgroup.subtree_control").mkdir()  # cannot be written
    tree = cgroups.probe()
    assert tree.controllers == {}
    assert set(tree.missing) == set(cgroups.CONTROLLERS)
    tree.close()
    assert sorted(entry.name for entry in tree_path.iterdir()) == [
        "cgroup.controllers", "cgroup.procs", "cgroup.subtree_control"]  # fmt: skip


def test_what_was_proved_holds() -> None:
    tree = cgroups.probe()
    try:
        if os.geteuid() == 0 and (cgroups.mounts()[0] or cgroups.mounts()[1]):
            assert tree.controllers or tree.missing
        if not tree.controllers:
            assert all(tree.missing.values())
            return
        group = cgroups.Group(tree, "test")
        group.create(memory_bytes=96 << 20, processes=9, cpus=0.5)
        try:
            doors = group.doors()
            enter = (
                f"import os, time; [os.write(fd, b'0') for fd in {doors}]; print(flush=True); time.sleep(100)"
            )
            command = [sys.executable, "-I", "-c", enter]
            with subprocess.Popen(command, pass_fds=doors, stdout=subprocess.PIPE) as process:
                for fd in doors:
                    os.close(fd)
                assert process.stdout is not None
                assert process.stdout.readline() == b"\n"
                for directory in tree.directories():
                    assert (directory / "test/cgroup.procs").read_text().split() == [str(process.pid)]
                assert group.out_of_memory_kills() == 0
                group.reset_peak()
                assert group.peak_bytes() < 96 << 20
                assert -1 <= group.cpu_ns() < 60e9
                process.kill()
        finally:
            group.remove()
            group.remove()
        assert not any((directory / "test").exists() for directory in tree.directories())
    finally:
        directories = tree.directories()
        tree.close()
    assert not any(directory.exists() for directory in directories)


def test_groups_of_the_dead_are_removed_and_of_the_living_kept() -> None:
    alive, other = cgroups.probe(), cgroups.probe("00ff00ff00ff")
    try:
        if not alive.controllers:
            return
        for directory in other.directories():
            (directory / "sbx1").mkdir()
        for lock in other._locks.values():  # as when the process that held them has died
            os.close(lock)
        other._locks.clear()
        third = cgroups.probe()
        third.close()
        assert all(directory.exists() for directory in alive.directories())
        assert not any(directory.exists() for directory in other.directories())
    finally:
        other.close()
        alive.close()


def test_remove_by_token() -> None:
    tree = cgroups.probe("00ee00ee00ee")
    for directory in tree.directories():
        (directory / "sbx7").mkdir()
    directories = tree.directories()
    assert cgroups.remove("00ee00ee00ee") is True
    assert not any(directory.exists() for directory in directories)
    tree.close()


def test_a_claim_survives_somebody_who_cleans_up(tmp_path: Path) -> None:
    lock = cgroups._claim(tmp_path / "group")
    other = os.open(tmp_path / "group", os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    cgroups._remove_stale(tmp_path)
    assert (tmp_path / "group").exists()
    os.close(other)
    os.close(lock)
