"""The self-test at start: attacks of known kinds, run as user code in a real sandbox before anybody is served.

A probe that gets through stops the start. The tests under tests/security are many more; these are
the ones whose failure would make serving wrong on this machine, whatever the tests said elsewhere.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from onehop.errors import JailError, WeakIsolationError
from onehop.supervisor.messages import Event, ExecutionSpec, decode_end
from onehop.supervisor.surroundings import protections

if TYPE_CHECKING:
    from onehop.supervisor.service import Service

PROBE = r"""
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def call(name, function, *arguments):
    ctypes.set_errno(0)
    found[name] = 'through' if function(*arguments) >= 0 else errno.errorcode.get(ctypes.get_errno(), '?')
def attempt(name, action):
    try:
        action()
        found[name] = 'through'
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, '?')
call('unshare', libc.unshare, 0x10000000)
call('mount', libc.mount, b'none', b'/tmp', b'tmpfs', 0, None)
call('ptrace', libc.ptrace, 16, os.getppid() or 1, 0, 0)
attempt('netlink', lambda: socket.socket(16, socket.SOCK_RAW))
attempt('packet', lambda: socket.socket(17, socket.SOCK_RAW))
attempt('write /usr', lambda: open('/usr/bin/onehop-probe', 'w'))
attempt('write /etc', lambda: open('/etc/passwd', 'a'))
attempt('read shadow', lambda: open('/etc/shadow'))
attempt('setuid', lambda: os.setuid(0))
attempt('internet', lambda: socket.create_connection(('192.0.2.1', 80), 0.2).close())
status = dict(line.rstrip('\n').split(':\t', 1) for line in open('/proc/self/status') if ':\t' in line)
found['caps'] = status['CapEff'] + status['CapPrm'] + status['CapBnd']
found['no_new_privs'] = status['NoNewPrivs']
found['seccomp'] = status['Seccomp']
found['uid'] = os.getuid()
found['descriptors'] = sorted(int(n) for n in os.listdir('/proc/self/fd'))
def entries(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []  # Landlock forbids it, where there is no root of its own
found['others'] = [n for n in entries('/proc') if not n.isdigit() and n not in ('self', 'thread-self')]
found['root'] = entries('/')
print(json.dumps(found))
"""
NO_WAY_THROUGH = (
    "unshare",
    "mount",
    "ptrace",
    "netlink",
    "packet",
    "write /usr",
    "write /etc",
    "read shadow",
    "setuid",
    "internet",
)
ROOT_ENTRIES = {
    "bin",
    "dev",
    "etc",
    "home",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "mnt",  # a link to the workspace, as in home
    "opt",
    "proc",
    "run",
    "sbin",
    "tmp",
    "usr",
    "var",
    "workspace",
}


async def run(service: Service, *, timeout_s: float = 30.0) -> dict[str, Any]:
    """Runs the probe and judges its findings.

    Raises:
        JailError: a probe got through.
        WeakIsolationError: `strict` was asked for and a protection is weaker than active.
    """
    if service.settings["strict"]:
        weak = [
            f"{row['name']}: {row['detail']} ({row['advice']})"
            for row in protections(service.around)
            if row["state"] != "active"
        ]
        if weak:
            raise WeakIsolationError("strict was asked for, but " + "; ".join(weak))
    found = await probe(service, timeout_s)
    problems = [
        f"{name}: {found.get(name, 'not tried')}"
        for name in NO_WAY_THROUGH
        if found.get(name, "through") == "through"
    ]
    if service.around.namespaces:
        if set(found["caps"]) != {"0"}:
            problems.append(f"capabilities: {found['caps']}")
        if extra := set(found["root"]) - ROOT_ENTRIES - _prefix_entries(service):
            problems.append(f"in the root: {sorted(extra)}")
        if found["others"]:
            problems.append(f"in /proc: {found['others']}")
        # 0, 1, 2, the channel, and the one that listdir itself opens.
        if len(found["descriptors"]) > 5:
            problems.append(f"descriptors: {found['descriptors']}")
    if found["no_new_privs"] != "1" or found["seccomp"] != "2":
        problems.append(f"NoNewPrivs {found['no_new_privs']}, Seccomp {found['seccomp']}")
    if found["uid"] == 0:
        problems.append("user code is root")
    if problems:
        raise JailError("the self-test got through the walls, so nothing is served: " + "; ".join(problems))
    return found


def _prefix_entries(service: Service) -> set[str]:
    """The first directory of an interpreter that does not live in /usr."""
    return {e["base_prefix"].split("/")[1] for e in service.settings["environments"]} | {
        e["python"].split("/")[1] for e in service.settings["environments"]
    }


async def probe(service: Service, timeout_s: float) -> dict[str, Any]:
    """The probe's findings, from one fresh sandbox of the first environment."""
    first = next(iter(service.pools.values()))
    taking = asyncio.ensure_future(first.take(first._default_spec(), "self-test"))
    broken = first.zygote.broken
    awaited: set[asyncio.Future[Any]] = {taking, broken}
    await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    if not taking.done():
        taking.cancel()
        await asyncio.wait({taking})
        problem = broken.result() if broken.done() else first.failure or "the zygote did not get ready"
        raise JailError(f"no sandbox could be made: {problem}")
    sandbox = taking.result()
    try:
        spec = ExecutionSpec(id="self-test", code=PROBE, timeout_s=10)
        execution = sandbox.executions.execute("main", spec)
        ended = asyncio.get_running_loop().create_future()
        import msgspec

        events: list[Event] = []

        def follow(framed: bytes, soon: bool) -> None:
            event = msgspec.msgpack.decode(framed[4:], type=Event)
            events.append(event)
            if event.kind == "end" and not ended.done():
                ended.set_result(decode_end(event.payload))

        execution.follow(follow, 0)
        async with asyncio.timeout(15):
            end = await ended
        text = b"".join(event.payload for event in events if event.kind == "stdout").decode()
        if end.status != "ok":
            failures = [event.payload for event in events if event.kind == "failure"]
            raise JailError(f"the self-test ended with {end.status}: {end.reason} {failures}")
        found: dict[str, Any] = json.loads(text)
        return found
    finally:
        sandbox.die("the self-test is over")
