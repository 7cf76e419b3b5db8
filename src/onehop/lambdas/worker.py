"""A Monty worker: confines itself, then runs one call after the other in a Monty process of its own.

It knows no tenant and no secret, opens no file and keeps nothing of a call but the checked form of its
code. It must never take its own word for the time: the gateway kills it, with its child, at the deadline.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import socket
import sys
import time
from collections import OrderedDict
from typing import Any

import pydantic_monty as monty
from pydantic_monty._binary import find_monty_binary

from onehop.errors import JailError
from onehop.lambdas import fit, model, plain, program
from onehop.lambdas.confine import confine
from onehop.lambdas.model import Job, Reply

GRACE_S = 0.1
"""What Monty gets beyond a call's slice before its process is killed from here."""
MAX_RECURSION = 400
"""Well below CPython's 1000 minus the frames of a kernel: who gets deeper runs in a sandbox."""
PLANS = 512
MAX_TEXT_CHARS = 32_768
_EXOTIC = re.compile(rb"[^ -~]|\\u")
_LIMIT = re.compile(r"(?:feed|turn) time limit exceeded|memory limit exceeded")


class Worker:
    def __init__(self, pool: monty.Monty) -> None:
        self._pool = pool
        self._child_cpu_s = 0.0
        self._plans: OrderedDict[tuple[str, bool], program.Program | fit.UnfitError] = OrderedDict()

    def run(self, job: Job) -> Reply:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        self._child_cpu_s = 0.0
        try:
            reply = self._check(job.code) if job.only_check else self._run(job)
        except fit.UnfitError as error:
            reply = Reply("unfit", str(error))
        except monty.MontyCrashedError as error:
            reply = Reply("time" if error.timed_out else "lost", _cut(str(error)))
        except monty.MontyError as error:
            reply = _raised(error)
        except plain.NotPlainError as error:
            reply = Reply("refused", str(error))
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            # values that Monty or the protocol to it does not take
            reply = Reply("unfit", f"{type(error).__name__}: {error}"[:200])
        reply.run_ms = (time.perf_counter() - started_s) * 1000
        reply.cpu_ms = (time.process_time() - cpu_s + self._child_cpu_s) * 1000
        return reply

    def _check(self, code: str) -> Reply:
        try:
            compile(code, "<lambda>", "exec", ast.PyCF_ONLY_AST)
        except SyntaxError as error:
            return Reply("raised", _cut(f"line {error.lineno}: {error.msg}"), type(error).__name__)
        self._plan(code, True)
        return Reply("value")

    def _run(self, job: Job) -> Reply:
        plan = self._plan(job.code, not _EXOTIC.search(job.arguments))
        inputs = dict(zip((program.ARGS, program.KWARGS), json.loads(job.arguments), strict=True))
        if plan.quick:
            value = self._feed(job, plan.quick, inputs)
            if not plan.doubtful(value):
                return Reply("value", plain.encode(value))
        fits, value = self._feed(job, plan.full, inputs)
        if not fits:
            raise fit.UnfitError("its value is of a type that Monty does not hand over")
        return Reply("value", plain.encode(value))

    def _feed(self, job: Job, source: str, inputs: dict[str, Any]) -> Any:
        limits: monty.ResourceLimits = {
            "max_feed_duration_secs": job.slice_s,
            "max_memory": job.memory_bytes,
            "max_recursion_depth": MAX_RECURSION,
            "max_suspensions": 1,
        }
        with self._pool.checkout(limits=limits, os_policy={"sleep": "zero"}) as session:
            pid = session.worker_pid or 0
            before_s = _cpu_s(pid)
            try:
                return session.feed_run(source, inputs=inputs)
            finally:
                self._child_cpu_s += max(0.0, _cpu_s(pid) - before_s)

    def _plan(self, code: str, plain_arguments: bool) -> program.Program:
        key = (code, plain_arguments)
        plan = self._plans.get(key)
        if plan is None:
            try:
                plan = program.monty_source(fit.check(code, plain_arguments=plain_arguments))
            except fit.UnfitError as error:
                plan = error
            self._plans[key] = plan
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        if isinstance(plan, fit.UnfitError):
            raise fit.UnfitError(str(plan))
        return plan


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process, 0 when it has ended."""
    try:
        return time.clock_gettime(
            ~pid << 3 | 2
        )  # MAKE_PROCESS_CPUCLOCK, CPUCLOCK_SCHED: linux/posix-timers.h
    except OSError:
        return 0.0


def _raised(error: monty.MontyError) -> Reply:
    inner = error.exception()
    text = str(inner)
    if isinstance(inner, TimeoutError) and _LIMIT.search(text):
        return Reply("time", text)
    if isinstance(inner, MemoryError):
        return Reply("memory", text)
    return Reply("raised", _cut(text), type(inner).__name__, _cut(f"{type(inner).__name__}: {text}"))


def _cut(text: str) -> str:
    return text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode()


def _stay(number: int) -> None:
    """One processor for this worker and its child, which take turns.

    On two, each turn wakes a processor that has gone to sleep: 0.4 ms for a call instead of 0.1. Where others
    keep that processor busy, one call of a hundred takes milliseconds longer.
    """
    ours = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):  # of a cpuset that changes at this moment
        os.sched_setaffinity(0, {ours[number % len(ours)]})


def serve(channel: socket.socket, worker: Worker) -> None:
    """Until the gateway hangs up."""
    reader = channel.makefile("rb", buffering=65536)
    channel.sendall(model.frame(Reply("ready")))
    while True:
        header = reader.read(model.HEADER.size)
        if len(header) < model.HEADER.size:
            return
        (length,) = model.HEADER.unpack(header)
        body = reader.read(length)
        if len(body) < length:
            return
        channel.sendall(model.frame(worker.run(model.decode_job(body))))


def main(arguments: list[str]) -> int:
    """`python -m onehop.lambdas.worker FD PARENT NUMBER`: socket to the gateway, the gateway's pid, which worker."""
    fd, parent, number = map(int, arguments)
    os.set_inheritable(fd, False)
    _stay(number)
    binary = find_monty_binary()
    try:
        confine(binary, parent=parent)
    except JailError as error:
        sys.stderr.write(f"onehop: {error}\n")
        return 1
    with socket.socket(fileno=fd) as channel:
        pool = monty.Monty(
            binary_path=binary,
            max_processes=1,
            feed_duration_limit_grace=GRACE_S,
            turn_duration_limit_grace=GRACE_S,
        )
        with pool:
            worker = Worker(pool)
            # Loads what is loaded at first use, in both processes.
            worker.run(Job("lambda x: x + 1", b"[[1],{}]", 1.0, 64 * 1024 * 1024))
            with contextlib.suppress(ConnectionError):  # the gateway died and left half of a call
                serve(channel, worker)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
