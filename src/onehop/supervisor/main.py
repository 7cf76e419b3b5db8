"""The supervisor's process: PID 1 of its PID namespace, the only part with the host's privileges."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
from typing import Any

from onehop.errors import OnehopError
from onehop.jail import syscalls
from onehop.supervisor import selftest
from onehop.supervisor.server import Connection
from onehop.supervisor.service import Service


def main() -> None:
    settings: dict[str, Any] = json.loads(os.environ.pop("ONEHOP_SUPERVISOR_SPEC"))
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    _raise_limits()
    if settings["user"] == 0:
        with contextlib.suppress(OSError):
            os.nice(-5)  # deadlines must hold while the sandboxes use every core
    import uvloop

    uvloop.run(_serve(settings))


def _raise_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # 1 and not 0: a limit of 0 does not stop a core_pattern that is a pipe, 1 does (core(5)).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))


async def _serve(settings: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    settings["landlock"] = True
    report = os.fdopen(settings["report_fd"], "w")
    listener = socket.socket(fileno=settings["listen_fd"])
    listener.setblocking(False)

    service = None
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        service = Service(settings)
        service.start()
        result = await selftest.run(service)
        server = await loop.create_unix_server(lambda: Connection(service), sock=listener)
    except OnehopError as error:
        if service is not None:
            await _close(service)
        _say(report, {"error": str(error), "weak": type(error).__name__ == "WeakIsolationError"})
        os._exit(1)  # every process of ours ends with us; the shim removes the rest
    except Exception as error:
        _say(report, {"error": f"{type(error).__name__}: {error}"})
        raise
    _say(report, {**service.describe(), "self_test": result})
    await stopping.wait()
    server.close()
    await _close(service)


async def _close(service: Service) -> None:
    service.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.gather(*(s.gone for pool in service.all_pools() for s in pool.sandboxes.values()))
    service.around.cgroups.close()


def _say(report: Any, message: dict[str, Any]) -> None:
    report.write(json.dumps(message) + "\n")
    report.close()
