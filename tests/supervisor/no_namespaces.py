"""Run as a program: a supervisor on a machine that refuses namespaces, which a seccomp filter plays here.

Reads `{"environment": …, "allow": …, "cells": […]}` on stdin, writes what came of it as JSON on stdout.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pyseccomp

from onehop.environments import build
from onehop.errors import InvalidArchiveError, OnehopError
from onehop.supervisor.spawn import SupervisorSettings, start
from onehop.supervisor.surroundings import descendants
from tests.driver import Driver
from tests.security.carrying import file, pieces, plain_tar, tar
from tests.security.places import InCommand, InContext

NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)


def refuse_namespaces() -> None:
    """For this process and all that it starts, as a container runtime's default profile does."""
    program = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for call in ("unshare", "setns", "mount", "pivot_root"):
        program.add_rule(pyseccomp.ERRNO(errno.EPERM), call)
    for flag in NAMESPACE_FLAGS:
        program.add_rule(
            pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag)
        )
    program.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    program.load()


async def carry(driver: Driver, sandbox: str) -> list[str]:
    """The paths in the workspace after a tree went in, out and in again, was moved and partly deleted."""
    async with await driver.client.open_porter(sandbox) as porter:
        for content in (b"old", b"new"):
            await porter.unpack("t", "tar", pieces(plain_tar({"a": content, "d/b": content})), timeout_s=20)
        _, chunks = await porter.pack("t", "zip")
        archive = b"".join([chunk async for chunk in chunks])
        await porter.unpack("u", "zip", pieces(archive), timeout_s=20)
        await porter.move("u/d", "v/w")
        await porter.delete("u", recursive=True)
        try:
            await porter.unpack("", "tar", pieces(tar(file(b"../escaped"))), timeout_s=20)
        except InvalidArchiveError:
            _, chunks = await porter.read("t/a")
            content = b"".join([chunk async for chunk in chunks])
            return [content.decode(), *(entry.path for entry in (await porter.list())[0])]
    return []


def caught(cell: str) -> str:
    """A program that says what became of the cell: its last line alone is looked at."""
    return (
        f"import os\ntry:\n    exec({cell!r}, {{'os': os, '__builtins__': __builtins__}})\n"
        "except (PermissionError, ProcessLookupError, OSError) as error: print('refused', error.errno)\n"
        "else: print('through')"
    )


def leave_unread(shim: int) -> None:
    """A message of the init's that the supervisor has not read when it dies: the init then reads an error, not an end."""
    (supervisor,) = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    (sleeper,) = [
        pid for pid in descendants(shim) if b"1000" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    kernel = _parent(sleeper)
    os.kill(int(supervisor), signal.SIGSTOP)
    os.kill(kernel, signal.SIGKILL)
    deadline_s = time.monotonic() + 30
    while Path(f"/proc/{kernel}").exists():  # until the init has reaped it, which it tells
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    time.sleep(0.1)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def sleepers(above: int, mark: str) -> int:
    """How many processes have `mark` as an argument."""
    found = 0
    for pid in descendants(above):
        with contextlib.suppress(OSError):
            found += mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return found


def main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    environment = build.ensure("default", Path(request["home"]), progress=lambda line: None)
    refuse_namespaces()
    answer: dict[str, Any] = {"cells": [], "elsewhere": []}
    try:
        handle = start(SupervisorSettings((environment,), allow_no_namespaces=request["allow"], pool_max=4))
    except OnehopError as error:
        json.dump({"refused": str(error), "kind": type(error).__name__}, sys.stdout)
        return
    with handle:
        driver = Driver(handle.path)
        answer |= {"report": handle.report, "runtime": handle.runtime}
        with driver.session() as session:
            answer["isolation"] = session.info.isolation
            for cell in request["cells"]:
                answer["cells"].append(session.run(cell, timeout_s=20, grace_s=1).document())
        with driver.session() as session:
            session.create_context("second")
            for place in (InCommand(session), InContext(session, "second")):
                for cell in request["cells"][request["walls"] :]:
                    outcome = place.run_once(caught(cell))
                    answer["elsewhere"].append([type(place).__name__, cell, outcome.stdout + outcome.stderr])
            daemon = (
                "setsid -f sleep 8642.1; sleep 8642.1 & echo $HOME $TMPDIR; pwd; cat /etc/passwd 2>&1; exit 3"
            )
            outcome = session.command(daemon)
            answer["command"] = [outcome.stdout, outcome.end.exit_code]
            deadline_s = time.monotonic() + 10
            # The shell does not wait until they are what they are called.
            while sleepers(handle.process.pid, "8642.1") < 2 and time.monotonic() < deadline_s:
                time.sleep(0.01)
            answer["daemons"] = sleepers(handle.process.pid, "8642.1")
        answer["daemons_left"] = sleepers(handle.process.pid, "8642.1")
        with driver.session() as session:
            answer["files"] = driver.wait(carry(driver, session.id))
        left = Path(handle.runtime, "sandboxes", session.id)
        deadline_s = time.monotonic() + 30
        while left.exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        answer["left"] = left.exists()
        with driver.session() as session:
            session.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
            processes = descendants(handle.process.pid)
            leave_unread(handle.process.pid)
            os.kill(handle.process.pid, signal.SIGKILL)
            session.delete = lambda: None  # type: ignore[method-assign]
        deadline_s = time.monotonic() + 30
        while (alive := [pid for pid in processes if not _gone(pid)]) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        answer |= {"processes": len(processes), "alive": alive}
        driver.close()
    json.dump(answer, sys.stdout)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


if __name__ == "__main__":
    main()
