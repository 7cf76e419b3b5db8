"""The system calls a sandbox may make: the whole table, one by one, and the arguments of those that are half open."""

from __future__ import annotations

import json
import os
from collections import Counter

import pyseccomp
import pytest

from tests.driver import Driver
from tests.security.probes import LAST_NUMBER, NAMES, NUMBERS, X86, Case, classes, inside, judge, outside

# Named in the policy for libseccomps newer than the oldest we support (2.5.4).
NEWER_THAN_LIBSECCOMP = {
    "cachestat", "fchmodat2", "futex_requeue", "futex_wait", "futex_wake", "listmount", "map_shadow_stack",
    "mseal", "open_tree_attr", "quotactl_fd", "set_mempolicy_home_node", "statmount",
}  # fmt: skip

# uretprobe (Linux 6.11) and uprobe (6.18) of x86-64: Linux asks no filter about them, and answers with SIGILL
# whoever calls them from anywhere but the kernel's own trampoline.
UNFILTERED = {335, 336} if X86 else set[int]()

# Every call that is not open, with arguments that no call takes: the filter must be what answers.
SWEEP = f"""
for number in [n for n in range({LAST_NUMBER}) if n not in skip]:
    if number in {UNFILTERED}:
        continue
    found[number] = call(number, -1, -1, -1, -1, -1, -1)
    if {X86}:
        found[number | 0x40000000] = call(number | 0x40000000, -1, -1, -1, -1, -1, -1)
"""
# In namespaces of its own, since msgget(-1, -1) and the like succeed.
OWN_NAMESPACES = "assert libc.unshare(0x00020000 | 0x08000000 | 0x04000000 | 0x40000000) == 0\n"
ALLOWED = set(classes()["allow"]) | set(classes()["allow_when"])


def test_every_call_is_in_exactly_one_list() -> None:
    """A call that a new kernel or libseccomp brings fails here until somebody has classified it."""
    counts = Counter(name for listed in classes().values() for name in listed)
    assert len(NAMES) > 250, "libseccomp's table was not read"
    assert [name for name in NAMES.values() if counts[name] == 0] == [], "not classified"
    assert [name for name, count in counts.items() if count > 1] == [], "classified twice"


def test_every_name_of_the_policy_is_a_call() -> None:
    """A misspelt name would silently allow or deny nothing."""
    unknown = {name for listed in classes().values() for name in listed if not _known(name)}
    assert unknown <= NEWER_THAN_LIBSECCOMP


def _known(name: str) -> bool:
    try:
        return bool(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) != -1)  # __NR_SCMP_ERROR
    except ValueError:
        return False


def test_every_call_that_is_not_open_gets_the_filters_errno(driver: Driver) -> None:
    skip = {number for number, name in NAMES.items() if name in ALLOWED}
    found = inside(driver, f"skip = {skip}\n{SWEEP}")
    denied = set(classes()["deny"])
    expected = {}
    for number in set(range(LAST_NUMBER)) - skip - UNFILTERED:
        expected[str(number)] = "EPERM" if NAMES.get(number) in denied else "ENOSYS"
        if X86:
            expected[str(number | 0x40000000)] = "ENOSYS"  # the x32 table
    assert found == expected


def test_the_calls_that_linux_does_not_filter_end_only_their_caller(driver: Driver) -> None:
    probe = f"""
for number in {UNFILTERED}:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if call(number, -1, -1, -1, -1, -1, -1) in ('ENOSYS', 'ENXIO') else 1)
    found[number] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    assert set(inside(driver, probe).values()) <= {
        0,
        -4,
    }  # ENOSYS before these kernels, ENXIO from uprobe, or SIGILL


@pytest.mark.root_only
def test_outside_the_same_calls_are_answered_by_the_kernel() -> None:
    """The sweep's control: what the filter answers with EPERM, the kernel answers with something else."""
    denied = set(classes()["deny"])
    skip = {number for number in range(LAST_NUMBER) if NAMES.get(number) not in denied}
    found = outside(OWN_NAMESPACES + f"skip = {skip}\n{SWEEP}".replace(f"if {X86}:", "if False:"))
    assert len(found) > 80
    assert {NAMES[int(number)] for number, answer in found.items() if answer == "EPERM"} == set()


CLONE = """
flags = {flags}
pid = libc.syscall(ctypes.c_long(NR['clone']), ctypes.c_long(flags | 17), None, None, None, None)
if pid == 0:
    os._exit(0)
answer = name_of(ctypes.get_errno()) if pid < 0 else 'through'
if pid > 0:
    os.waitpid(pid, 0)
"""
NAMESPACES = {
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip
ARGUMENTS = {
    **{
        f"clone, new {name} namespace": Case(
            CLONE.format(flags=flag), ("EPERM",), control_needs_root=name != "user"
        )
        for name, flag in NAMESPACES.items()
    },
    **{
        f"unshare, new {name} namespace": Case(
            f"answer = call(NR['unshare'], {flag})", ("EPERM",), control_needs_root=name != "user"
        )
        for name, flag in {**NAMESPACES, "time": 0x80}.items()
    },
    "clone3": Case("answer = call(NR['clone3'], 0, 0)", ("ENOSYS",), control="EINVAL"),
    "setns, own user namespace": Case(
        "answer = call(NR['setns'], os.open('/proc/self/ns/user', os.O_RDONLY), 0)", ("EPERM",), control="EINVAL"
    ),
    "setns, own mount namespace": Case(
        "answer = call(NR['setns'], os.open('/proc/self/ns/mnt', os.O_RDONLY), 0x20000)",
        ("EPERM",), control_needs_root=True,
    ),
    "device, character": Case(
        "answer = attempt(os.mknod, f'/tmp/probe-{os.getpid()}', 0o020600, os.makedev(1, 3))\n"
        "if answer == 'through': os.unlink(f'/tmp/probe-{os.getpid()}')",
        ("EPERM",), control_needs_root=True,
    ),
    "device, block": Case(
        "answer = attempt(os.mknod, f'/tmp/probe-{os.getpid()}', 0o060600, os.makedev(7, 0))\n"
        "if answer == 'through': os.unlink(f'/tmp/probe-{os.getpid()}')",
        ("EPERM",), control_needs_root=True,
    ),
    "type into a terminal": Case("answer = call(NR['ioctl'], 0, 0x5412, 0)", ("EPERM",), control="ENOTTY"),
    # The kernel reads 32 bits of it; a filter that compares 64 lets this through (CVE-2019-7303).
    "type into a terminal, high bits": Case(
        "answer = call(NR['ioctl'], 0, 0x100005412, 0)", ("EPERM",), control="ENOTTY"
    ),
    "linger": Case(
        "answer = attempt(socket.socket().setsockopt, 1, 13, struct.pack('ii', 1, 9))", ("EPERM",)
    ),
    "linger, high bits": Case(
        "s = socket.socket(); v = struct.pack('ii', 1, 9)\n"
        "answer = call(NR['setsockopt'], s.fileno(), 1, 13 | 1 << 40, v, 8)",
        ("EPERM",),
    ),
    "limits of PID 1": Case(
        "import resource; answer = attempt(resource.prlimit, 1, resource.RLIMIT_CPU, (1, 1))"
        " if os.getpid() != 1 and os.path.exists('/workspace') else attempt(resource.prlimit, os.getpid(), 7)",
        ("EPERM",),
    ),
    "limits of the parent, or of the init": Case(
        "import resource; answer = attempt(resource.prlimit, os.getppid() or 1, resource.RLIMIT_NOFILE)",
        ("EPERM",),
    ),
    "inotify": Case("answer = call(NR['inotify_init1'], 0)", ("EPERM",)),
    "personality": Case("answer = call(NR['personality'], 0x0040000)", ("EPERM",)),
    "file handles": Case(
        "buffer = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128)); mount = ctypes.c_int()\n"
        "answer = call(NR['name_to_handle_at'], -100, b'/', buffer, ctypes.byref(mount), 0)",
        ("EPERM",),
    ),
    "keyring": Case("answer = call(NR['keyctl'], 0, -3, 1)", ("EPERM",)),
    "io_uring": Case(
        "answer = call(NR['io_uring_setup'], 4, ctypes.create_string_buffer(120))", ("EPERM",)
    ),
    "ptrace a child": Case(
        "pid = os.fork()\nif pid == 0: time.sleep(60)\nanswer = call(NR['ptrace'], 0x4206, pid, 0, 0)\n"
        "os.kill(pid, 9); os.waitpid(pid, 0)",
        ("EPERM",),
    ),
    "memory of a child": Case(
        "pid = os.fork()\nif pid == 0: time.sleep(60)\n"
        "here = ctypes.create_string_buffer(8); iov = (ctypes.c_void_p * 2)(ctypes.addressof(here), 8)\n"
        "answer = call(NR['process_vm_readv'], pid, iov, 1, iov, 1, 0)\nos.kill(pid, 9); os.waitpid(pid, 0)",
        ("EPERM",),
    ),
    "descriptor of a child": Case(
        "pid = os.fork()\nif pid == 0: time.sleep(60)\n"
        "answer = call(NR['pidfd_getfd'], os.pidfd_open(pid), 0, 0)\nos.kill(pid, 9); os.waitpid(pid, 0)",
        ("EPERM",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_call_that_works_outside_is_refused_by_the_filter(driver: Driver, name: str) -> None:
    judge(driver, ARGUMENTS[name])


def test_the_half_open_calls_are_open_where_programs_need_them(driver: Driver) -> None:
    """The filter's other side: a wall that refuses everything would pass all tests above."""
    found = inside(
        driver,
        """
found['fork'] = attempt(lambda: os.waitpid(os.fork() or os._exit(0), 0))
found['fifo'] = attempt(os.mkfifo, '/tmp/fifo')
found['ioctl'] = call(NR['ioctl'], os.pipe()[0], 0x541B, ctypes.create_string_buffer(4))
found['own limits'] = attempt(__import__('resource').setrlimit, 7, (100, 100))
found['nodelay'] = attempt(socket.socket().setsockopt, 6, 1, 1)
found['families'] = [family for family in range(46) if call(NR['socket'], family, 1, 0) == 'through']
""",
    )
    expected = dict.fromkeys(("fork", "fifo", "ioctl", "own limits", "nodelay"), "through")
    assert found == expected | {"families": [1, 2, 10]}


def test_every_other_socket_family_gets_the_filters_errno(driver: Driver) -> None:
    probe = """
for family in [n for n in range(64) if n not in (1, 2, 10)]:
    for kind in (1, 2, 3, 5):
        found[f'{family} {kind}'] = call(NR['socket'], family, kind, 0)
        found[f'{family} {kind} high'] = call(NR['socket'], family | 1 << 32, kind, 0)
found['pair'] = call(NR['socketpair'], 2, 1, 0, ctypes.create_string_buffer(8))
"""
    control = outside(probe)
    assert control["16 3"] == "through", "AF_NETLINK works outside"
    assert control["pair"] in ("EOPNOTSUPP", "ENOTSUP")  # one number
    if os.geteuid() == 0:
        assert control["17 3"] == "through", "AF_PACKET works outside"
    assert "EPERM" not in {control[f"{family} 2"] for family in (16, 38, 40)}  # NETLINK, ALG, VSOCK
    assert set(inside(driver, probe).values()) == {"EPERM"}


MEMORY_OUT_OF_SIGHT = """
found['memfd'] = call(NR['memfd_create'], b'probe', 0)
found['sysv'] = call(NR['shmget'], 0, 4096, 0o600 | 0o1000)
"""


def test_memory_that_only_a_cgroup_can_see(driver: Driver, counted: bool) -> None:
    everywhere = {"memfd": "through", "sysv": "through"}
    assert outside(MEMORY_OUT_OF_SIGHT) == everywhere
    assert inside(driver, MEMORY_OUT_OF_SIGHT) == (
        everywhere if counted else {"memfd": "EPERM", "sysv": "EPERM"}
    )


if X86:
    INT80 = r"""
import mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')  # mov eax, 20 (getpid of i386); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
found['result'] = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
found['pid'] = os.getpid()
"""

    def test_calls_of_a_foreign_architecture_are_refused_and_do_not_kill(driver: Driver) -> None:
        control = outside(INT80)
        assert control["result"] == control["pid"]
        assert inside(driver, INT80)["result"] == -38  # ENOSYS


STATUS = """
for line in open('/proc/self/status'):
    key, _, value = line.partition(':')
    if key.startswith('Cap') or key in ('NoNewPrivs', 'Seccomp', 'Uid', 'Gid', 'Groups'):
        found[key] = value.split()
"""


def test_no_capability_no_new_privileges_no_group(driver: Driver) -> None:
    found = inside(driver, STATUS)
    assert {key: int(value[0], 16) for key, value in found.items() if key.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert (found["NoNewPrivs"], found["Seccomp"]) == (["1"], ["2"])
    assert set(found["Uid"]) == set(found["Gid"]) == {"1000"}
    # An ordinary user's other groups cannot be dropped in a user namespace of its own; they are unmapped.
    assert set(found["Groups"]) <= {"1000", "65534"}


@pytest.mark.root_only
def test_a_set_user_id_program_gains_nothing(driver: Driver) -> None:
    """mount and su are set-user-id root in Debian; outside they run as root for everybody."""
    import shutil
    import stat

    program = next(
        p for p in map(shutil.which, ("su", "passwd", "mount")) if p and os.stat(p).st_mode & stat.S_ISUID
    )
    code = f"""
import os, json
pid = os.fork()
if pid == 0:
    os.execv({program!r}, [{program!r}, '--help'])
os.waitpid(pid, 0)
found = {{'uid': os.stat({program!r}).st_uid, 'nosuid': bool(os.statvfs({program!r}).f_flag & os.ST_NOSUID)}}
print(json.dumps(found))
"""
    outcome = driver.run_once(code)
    found = json.loads(outcome.stdout.splitlines()[-1])
    assert found["nosuid"] is True


def test_the_numbers_used_here_are_those_of_this_machine() -> None:
    assert NUMBERS["clone3"] == 435
    assert NUMBERS["io_uring_setup"] == 425
