"""Landlock rulesets, tried in child processes of this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from onehop.jail import landlock, syscalls

ABI = syscalls.landlock_abi()
needs_landlock = pytest.mark.skipif(ABI < 1, reason="this kernel has no Landlock")


@pytest.mark.parametrize(("abi", "bits"), [(1, 13), (2, 14), (3, 15), (4, 15), (5, 16), (6, 16), (99, 16)])
def test_every_known_right_is_handled(abi: int, bits: int) -> None:
    assert landlock.handled(abi) == (1 << bits) - 1


def test_grants_are_within_what_is_handled() -> None:
    assert landlock.READ_WRITE & ~landlock.handled(3) == 0
    for right in (landlock.MAKE_CHAR, landlock.MAKE_BLOCK, landlock.IOCTL_DEV):
        assert landlock.READ_WRITE & right == 0
    for right in (landlock.WRITE_FILE, landlock.MAKE_REG, landlock.REMOVE_FILE, landlock.TRUNCATE):
        assert landlock.READ_ONLY & right == 0


def restricted(ruleset: int, actions: list[Callable[[], object]]) -> list[str]:
    """What each action does in a child under the ruleset: `ok` or the error's name."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = []
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.landlock_restrict_self(ruleset)
            for action in actions:
                try:
                    action()
                    said.append("ok")
                except OSError as error:
                    said.append(type(error).__name__)
            os.write(write, ",".join(said).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as file:
        return file.read().split(",")


@needs_landlock
def test_what_a_ruleset_lets_through(tmp_path: Path) -> None:
    for name in ("readable", "writable", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    descriptor = landlock.ruleset(
        ABI,
        [str(tmp_path / "readable"), str(tmp_path / "nosuch")],
        [str(tmp_path / "writable")],
        ["/dev/null"],
    )
    try:
        expected: list[tuple[Callable[[], object], str]] = [
            (lambda: (tmp_path / "readable/f").read_text(), "ok"),
            (lambda: os.listdir(tmp_path / "readable"), "ok"),
            (lambda: (tmp_path / "readable/f").write_text("y"), "PermissionError"),
            (lambda: (tmp_path / "readable/new").write_text("y"), "PermissionError"),
            (lambda: os.remove(tmp_path / "readable/f"), "PermissionError"),
            (lambda: (tmp_path / "writable/f").write_text("y"), "ok"),
            (lambda: (tmp_path / "writable/new").write_text("y"), "ok"),
            (lambda: os.mkfifo(tmp_path / "writable/fifo"), "ok"),
            (lambda: os.remove(tmp_path / "writable/new"), "ok"),
            (lambda: (tmp_path / "closed/f").read_text(), "PermissionError"),
            (lambda: os.listdir(tmp_path / "closed"), "PermissionError"),
            (lambda: os.listdir("/"), "PermissionError"),
            (lambda: Path("/dev/null").write_text("x"), "ok"),
            (lambda: Path("/dev/zero").read_bytes(), "PermissionError"),
        ]
        if ABI >= 3:
            expected.append((lambda: os.truncate(tmp_path / "readable/f", 0), "PermissionError"))
        if ABI >= 6:
            expected.append((lambda: os.kill(os.getppid(), 0), "PermissionError"))
        assert restricted(descriptor, [action for action, _ in expected]) == [
            result for _, result in expected
        ]
        if ABI >= 3:
            assert (tmp_path / "readable/f").read_text() == "x"
        landlock.allow_reading(descriptor, str(tmp_path / "closed"))
        assert restricted(descriptor, [
            lambda: (tmp_path / "closed/f").read_text(),
            lambda: (tmp_path / "closed/f").write_text("y"),
        ]) == ["ok", "PermissionError"]  # fmt: skip
    finally:
        os.close(descriptor)


@needs_landlock
def test_tcp(tmp_path: Path) -> None:
    def bind() -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))

    for block, expected in ((False, "ok"), (True, "PermissionError" if ABI >= 4 else "ok")):
        descriptor = landlock.ruleset(ABI, ["/"], [], [], block_tcp=block)
        assert restricted(descriptor, [bind]) == [expected]
        os.close(descriptor)


@needs_landlock
def test_a_failure_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NotADirectoryError):
        landlock.ruleset(ABI, [str(tmp_path / "f/below")], [], [])
    assert os.listdir("/proc/self/fd") == before
