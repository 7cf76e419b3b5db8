"""Where the time of a fresh sandbox goes, and what a kernel occupies before its warm-up. No HTTP, no gateway.

`python -m bench.engine [N]` runs the supervisor's own Service in this process, as root, with no sandbox made
ahead, so that N sandboxes pass one after the other through the stages below. It looks at the engine by
wrapping its methods and must never change what they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bench import system
from bench.measure import percentile
from bench.server import real_home
from onehop.environments import DEFAULT_NAME, ensure
from onehop.protocol import Kind
from onehop.supervisor.inits import InitChannel
from onehop.supervisor.link import Link
from onehop.supervisor.messages import ExecutionSpec, SandboxSpec
from onehop.supervisor.pipes import pid_of
from onehop.supervisor.pool import Pool
from onehop.supervisor.sandbox import Sandbox
from onehop.supervisor.service import Service
from onehop.supervisor.spawn import SupervisorSettings, describe_environment
from onehop.supervisor.zygotes import Zygote

STAGES = (
    ("asked", "forked", "seed clones the init, writes its id maps"),
    ("forked", "go", "control group made and entered"),
    ("go", "walls", "init: mounts, network, ids"),
    ("walls", "ready", "zygote forks the kernel; namespaces, control group, seccomp, shell"),
    ("cold asked", "cold ready", "  the same for a kernel without warm-up, fork included"),
    ("execute", "end", "`1+1` in it, first cell"),
    ("execute again", "end again", "`1+1`, second cell"),
    ("die", "gone", "killed, reaped, control group removed"),
)
TIMEOUT_S = 60.0


class Marks:
    """Times by sandbox and event."""

    def __init__(self) -> None:
        self.times: dict[int, dict[str, float]] = {}

    def note(self, slot: int, event: str) -> None:
        self.times.setdefault(slot, {}).setdefault(event, time.perf_counter())

    def between(self, first: str, last: str) -> list[float]:
        """Milliseconds, of those sandboxes that have both."""
        return [(t[last] - t[first]) * 1000 for t in self.times.values() if first in t and last in t]


def _wrap(
    owner: type,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            before(*args)
        try:
            return original(*args, **kwargs)
        finally:
            if after:
                after(*args)

    setattr(owner, name, wrapped)


def observe(marks: Marks) -> None:
    """Notes the stages of every sandbox from now on."""

    def control_read(sandbox: Sandbox, *_: Any) -> None:
        if sandbox._workspace >= 0:
            marks.note(sandbox.slot, "walls")

    def frame(sandbox: Sandbox, link: Link, kind: int, *_: Any) -> None:
        if kind == Kind.READY:
            marks.note(sandbox.slot, "ready" if link.name == "main" else "cold ready")

    def told(channel: InitChannel, message: dict[str, Any], *_: Any) -> None:
        if message.get("do") == "go":
            marks.note(channel._on_event.__self__.slot, "go")  # type: ignore[attr-defined]

    _wrap(Zygote, "fork", before=lambda zygote, slot, *_: marks.note(slot, "asked"))
    _wrap(Pool, "_forked", before=lambda pool, slot, pid: marks.note(slot, "forked"))
    _wrap(InitChannel, "tell", before=told)
    _wrap(Sandbox, "_on_init", after=control_read)
    _wrap(Sandbox, "on_frame", before=frame)
    _wrap(Sandbox, "die", before=lambda sandbox, *_: marks.note(sandbox.slot, "die"))


@contextlib.asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """The supervisor's Service in this process, with a pool that makes nothing ahead."""
    environment = ensure(DEFAULT_NAME, real_home(), progress=lambda line: print(line, file=sys.stderr))
    given = SupervisorSettings(environments=(environment,), pool_min=0, pool_max=0)
    settings = {name: getattr(given, name) for name in given.__dataclass_fields__}
    runtime = tempfile.mkdtemp(prefix="bench-engine-")
    os.mkdir(f"{runtime}/root")
    settings |= {
        "environments": [describe_environment(environment)],
        "runtime": runtime,
        "namespaces": True,
        "namespace_problem": "",
        "user": os.geteuid(),
        "token": secrets.token_hex(4),
        "landlock": True,
    }
    running = Service(settings)
    running.start()
    try:
        yield running
    finally:
        running.close()
        async with asyncio.timeout(10):
            await asyncio.gather(
                *(s.gone for pool in running.pools.values() for s in list(pool.sandboxes.values()))
            )
        running.around.cgroups.close()
        shutil.rmtree(runtime, ignore_errors=True)


async def _cell(sandbox: Sandbox, name: str, code: str) -> None:
    execution = sandbox.executions.execute("main", ExecutionSpec(id=name, code=code, timeout_s=30))
    await _until(lambda: execution.end is not None)
    assert execution.end is not None
    if execution.end.status != "ok":
        raise RuntimeError(f"{code!r}: {execution.end}")


async def _until(condition: Callable[[], bool]) -> None:
    """Busy, because a timer's millisecond would be most of what is measured."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)


async def _cold_kernel(marks: Marks, sandbox: Sandbox) -> int:
    """A second kernel in the sandbox that is not warmed up; its pid."""
    link = sandbox.links["cold"] = Link(sandbox, asyncio.get_running_loop(), "cold")
    marks.note(sandbox.slot, "cold asked")
    sandbox.start_kernel(link)
    await _until(lambda: "cold ready" in marks.times[sandbox.slot] and link.pidfd >= 0)
    return pid_of(link.pidfd)


def _faults(pid: int) -> int:
    """Minor page faults so far (field 10 of /proc/PID/stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def _cpu_ms(pid: int) -> float:
    """CPU time of a process with one thread so far (the first field of schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


async def _measure(count: int, *, cold: bool) -> dict[str, Any]:
    marks = Marks()
    observe(marks)
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    async with service() as running:
        pool = next(iter(running.pools.values()))
        zygote_ms = 0.0
        for number in range(count + 2):
            if number == 2:  # the first ones warm the engine itself
                marks.times.clear()
                found.clear()
            sandbox = await pool.take(SandboxSpec(), f"bench{number}")
            main = pid_of(sandbox.links["main"].pidfd)
            add("memory: init", system.memory([sandbox.pid]).private)
            add("memory: warm kernel", system.memory([main]).private)
            add("page faults: init", _faults(sandbox.pid))
            add("page faults: warm kernel", _faults(main))
            if sandbox.group is not None and (used_ns := sandbox.group.cpu_ns()) >= 0:
                add("cpu: init and kernel until ready", used_ns / 1e6)
            zygote_ms, before_ms = _cpu_ms(pool.zygote.pid), zygote_ms
            if number:
                add("cpu: zygote, per sandbox", zygote_ms - before_ms)
            marks.note(sandbox.slot, "execute")
            await _cell(sandbox, f"a{number}", "1+1")
            marks.note(sandbox.slot, "end")
            add("page faults: first cell", _faults(main) - found["page faults: warm kernel"][-1])
            marks.note(sandbox.slot, "execute again")
            await _cell(sandbox, f"b{number}", "1+1")
            marks.note(sandbox.slot, "end again")
            if cold:
                pid = await _cold_kernel(marks, sandbox)
                add("memory: cold kernel", system.memory([pid]).private)
                add("memory: init and cold kernel", system.memory([sandbox.pid, pid]).private)
                add("page faults: cold kernel", _faults(pid))
            sandbox.die("measured")
            await sandbox.gone
            marks.note(sandbox.slot, "gone")
    stages = {f"{first} → {last}": marks.between(first, last) for first, last, _ in STAGES}
    return {"stages": stages, "values": found}


def cold_memory(count: int = 10) -> list[float] | str:
    """Private bytes of init and kernel before the warm-up, per sandbox; or why that cannot be told."""
    if os.geteuid() != 0:
        return "can be measured as root only"
    command = [sys.executable, "-m", "bench.engine", str(count), "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).resolve().parent.parent
        )
    except subprocess.TimeoutExpired:
        return "bench.engine did not end in time"
    if done.returncode:
        return f"bench.engine failed: {done.stderr.strip().splitlines()[-1:]}"
    values: list[float] = json.loads(done.stdout)["values"]["memory: init and cold kernel"]
    return values


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--json"]
    if os.geteuid() != 0:
        print(
            "bench.engine needs root: it is a supervisor without the shim that makes one for a user",
            file=sys.stderr,
        )
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    import uvloop

    result = uvloop.run(_measure(int(arguments[0]) if arguments else 30, cold=True))
    if "--json" in sys.argv:
        print(json.dumps(result))
        return 0
    print(f"{'stage (one at a time, nothing made ahead)':60} {'p50 ms':>8} {'p95':>8}")
    for first, last, text in STAGES:
        values = result["stages"][f"{first} → {last}"]
        if values:
            print(f"{text:60} {statistics.median(values):8.2f} {percentile(values, 0.95):8.2f}")
    for name, values in result["values"].items():
        middle = statistics.median(values)
        scale, unit = {"memory": (2**20, "MiB"), "cpu": (1, "ms")}.get(name.partition(":")[0], (1, ""))
        print(f"{name:60} {middle / scale:8.2f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
