"""Short attacks and the two places they run in: a sandbox, and a plain process outside as positive control.

A probe is a string of Python that fills the dict `found`. The same string runs in both places, so that
what fails inside is known to work outside. A control must never do harm: dangerous calls get arguments
that the kernel refuses with an errno of its own.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pyseccomp

from onehop.jail.seccomp import load_policy
from tests.driver import Driver

SYSTEM_PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
X86 = platform.machine() == "x86_64"
LAST_NUMBER = 600
"""Above every call of Linux 6.18; numbers up to here are tried one by one."""

PRELUDE = r"""
import ctypes, errno, json, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
found = {}
def name_of(number):
    return errno.errorcode.get(number, str(number))
def call(number, *arguments):
    ctypes.set_errno(0)
    whole = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *whole)
    return 'through' if result >= 0 else name_of(ctypes.get_errno())
def attempt(action, *arguments, **named):
    try:
        action(*arguments, **named)
    except OSError as error:
        return name_of(error.errno)
    return 'through'
"""
END = "\nprint(json.dumps(found))\n"


def names() -> dict[int, str]:
    """All calls of this machine's architecture that the installed libseccomp knows."""
    table = {}
    for number in range(LAST_NUMBER):
        try:
            table[number] = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number)
        except ValueError:
            continue
    return {number: name.decode() if isinstance(name, bytes) else name for number, name in table.items()}


NAMES = names()
NUMBERS = {name: number for number, name in NAMES.items()}


def classes() -> dict[str, list[str]]:
    """The policy's lists: each call under every list that names it (`allow_when` once)."""
    policy = load_policy()
    lists = {
        kind: [name for entry in policy.get(kind, []) for name in entry["calls"]]
        for kind in ("allow", "deny", "not_implemented")
    }
    lists["allow_when"] = sorted({entry["call"] for entry in policy["allow_when"]})
    return lists


@dataclass(frozen=True)
class Case:
    """One row: `probe` sets `answer`, to `control` outside and to one of `walls` inside."""

    probe: str
    walls: tuple[str, ...]
    control: str = "through"
    control_needs_root: bool = False


def outside(probe: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
    """The probe's findings in a plain process of this user, in a session of its own, with the system's python."""
    code = f"NR = {NUMBERS!r}\n{PRELUDE}{probe}{END}"
    done = subprocess.run(
        [SYSTEM_PYTHON, "-I", "-c", code],
        capture_output=True, text=True, timeout=timeout_s, start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def inside(driver: Driver, probe: str, **limits: Any) -> dict[str, Any]:
    """The same in a fresh sandbox."""
    outcome = driver.run_once(f"NR = {NUMBERS!r}\n{PRELUDE}{probe}{END}", **limits)
    assert outcome.status == "ok", (outcome.status, outcome.end.reason, outcome.error)
    result: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return result


def judge(driver: Driver, case: Case) -> None:
    """Control first: a probe that fails outside, too, proves nothing."""
    probe = f"{case.probe}\nfound['answer'] = answer"
    if not case.control_needs_root or os.geteuid() == 0:
        assert outside(probe)["answer"] == case.control, "the positive control"
    assert inside(driver, probe)["answer"] in case.walls
