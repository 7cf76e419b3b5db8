"""The policy file and its compiled form, loaded in child processes of this one."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import struct
import subprocess
import sys

import pytest

from onehop.jail import seccomp

COMBINATIONS = list(itertools.product((False, True), (False, True)))
PROBE = r"""
import ctypes, errno, json, os, socket, sys
sys.path.insert(0, sys.argv[1])
from onehop.jail import syscalls
libc = ctypes.CDLL(None, use_errno=True)
def attempt(action):
    try:
        action()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
def call(function, *arguments):
    def action():
        ctypes.set_errno(0)
        if function(*arguments) < 0:
            raise OSError(ctypes.get_errno(), '')
    return attempt(action)
def look():
    return {
        'inet': attempt(lambda: socket.socket().close()),
        'inet6': attempt(lambda: socket.socket(socket.AF_INET6).close()),
        'unix': attempt(lambda: socket.socket(socket.AF_UNIX).close()),
        'pair': attempt(lambda: [s.close() for s in socket.socketpair()]),
        'netlink': attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
        'memfd': attempt(lambda: os.close(os.memfd_create('x'))),
        'shm': call(libc.shmget, 0, 4096, 0o600 | 0o1000),
        'keyctl': call(libc.syscall, 250, 0, 0, 0, 0, 0),
        'personality': call(libc.personality, 0xFFFFFFFF),
        'nosuchcall': call(libc.syscall, 4000),
        'fork': attempt(lambda: os.waitpid(os.fork() or os._exit(0), 0)),
        'fifo': attempt(lambda: os.mkfifo('/nosuchdirectory/fifo')),
        'read': attempt(lambda: open('/etc/hostname').close()),
        'thread': attempt(lambda: [t.start() or t.join() for t in [__import__('threading').Thread(target=int)]]),
    }
before = look()
syscalls.prctl(38, 1)
syscalls.load_seccomp(bytes.fromhex(sys.argv[2]))
print(json.dumps([before, look()]))
"""


def probe(program: bytes) -> tuple[dict[str, str], dict[str, str]]:
    source = os.path.dirname(os.path.dirname(os.path.dirname(seccomp.__file__)))
    done = subprocess.run([sys.executable, "-c", PROBE, source, program.hex()], capture_output=True, text=True,
                          timeout=30)  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    return before, after


@pytest.mark.parametrize(("cgroup_memory", "network_namespace"), COMBINATIONS)
def test_all_combinations_compile_and_hold(cgroup_memory: bool, network_namespace: bool) -> None:
    program = seccomp.compile_policy(cgroup_memory=cgroup_memory, network_namespace=network_namespace)
    assert len(program) % 8 == 0
    assert 0 < len(program) // 8 <= 4096  # BPF_MAXINSNS
    before, after = probe(program)
    sockets = "ok" if network_namespace else "EPERM"
    memory = "ok" if cgroup_memory else "EPERM"
    assert after == {
        "inet": sockets, "inet6": sockets if before["inet6"] == "ok" or sockets != "ok" else before["inet6"],
        "unix": sockets, "pair": "ok", "netlink": "EPERM", "memfd": memory, "shm": memory, "keyctl": "EPERM",
        "personality": "EPERM", "nosuchcall": "ENOSYS", "fork": "ok", "fifo": "ENOENT", "read": before["read"],
        "thread": "ok",
    }  # fmt: skip
    # The control: without the filter the same calls are not refused by that errno.
    assert (before["inet"], before["unix"], before["memfd"], before["netlink"], before["personality"]) == (
        "ok",
    ) * 5


def test_the_program_ends_in_errors_never_in_kills() -> None:
    allow, error = 0x7FFF0000, 0x00050000
    for cgroup_memory, network_namespace in COMBINATIONS:
        program = seccomp.compile_policy(cgroup_memory=cgroup_memory, network_namespace=network_namespace)
        returned = {k for code, _, _, k in struct.iter_unpack("HBBI", program) if code & 7 == 6}
        assert returned <= {allow, error | errno.ENOSYS, error | errno.EPERM, error | errno.EACCES}


def test_the_policy_is_one_word_per_call() -> None:
    policy = seccomp.load_policy()
    allowed = [call for entry in policy["allow"] for call in entry["calls"]]
    denied = [call for entry in policy["deny"] for call in entry["calls"]]
    conditional = {entry["call"] for entry in policy["allow_when"]}
    assert len(allowed) == len(set(allowed))
    assert len(denied) == len(set(denied))
    assert not set(allowed) & set(denied)
    assert not conditional & (set(allowed) | set(denied))
    for entry in policy["allow"] + policy["deny"] + policy["allow_when"]:
        assert len(entry["reason"]) >= 8
    for entry in policy["allow_when"]:
        assert hasattr(errno, entry["errno"])
        assert set(entry) <= {"call", "reason", "errno", "arguments", "network", "cgroup"}
        for condition in entry["arguments"]:
            assert set(condition) <= {"index", "equals", "mask", "differs"}


def test_it_is_quick_enough_to_load() -> None:
    assert len(seccomp.compile_policy(cgroup_memory=True, network_namespace=True)) // 8 < 2000
    assert ctypes.sizeof(ctypes.c_void_p) == 8
