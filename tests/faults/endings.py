"""Every way in which a session or an execution can end, for the search of what it leaves behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx2

from tests.cli.processes import wait_until
from tests.faults import deaths
from tests.faults.deaths import session, value
from tests.faults.server import FaultServer, post

BUSY = (
    "import os, subprocess\n"
    "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    "open('big', 'wb').write(bytes(1 << 20))\n"
    "print('x' * 3_000_000)\n"
)
"""Leaves a process, a file and spilled output."""
MEMORY = "x = bytearray(3 << 30); x[::4096] = b'y' * len(x[::4096])"
LIE = "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\xff' * 64)\n    except OSError: pass\nimport time; time.sleep(5)"
END_S = 40.0

Ending = Callable[[FaultServer, httpx2.Client], None]


def deleted(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    value(client, path, BUSY)
    assert client.delete(path).status_code == 204


def deleted_while_it_runs(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    with client.stream("POST", f"{path}/execute", json={"code": deaths.SLEEP}, headers=_EVENTS) as response:
        next(response.iter_lines())
        assert client.delete(path).status_code == 204


def idle(server: FaultServer, client: httpx2.Client) -> None:
    path = f"/api/sessions/{post(client, '/api/sessions', {'idle_timeout_s': 0.2}).json()['id']}"
    value(client, path, BUSY)
    _ends(client, path, "expired")


def too_old(server: FaultServer, client: httpx2.Client) -> None:
    path = f"/api/sessions/{post(client, '/api/sessions', {'max_age_s': 0.5}).json()['id']}"
    value(client, path, BUSY)
    _ends(client, path, "expired")


def killed(server: FaultServer, client: httpx2.Client) -> None:
    deaths.sandbox_killed(server, client)


def kernel_killed(server: FaultServer, client: httpx2.Client) -> None:
    deaths.kernel_killed(server, client)


def out_of_memory(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    if value(client, path, MEMORY) == "out_of_memory":
        _ends(client, path, "out_of_memory")
    else:  # without a cgroup the address space ends first, and only the code fails
        assert client.delete(path).status_code == 204


def lied(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    assert value(client, path, LIE) == "protocol_error"
    _ends(client, path, "protocol_error")


def timed_out(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    body = {"code": f"{BUSY}\nimport signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"}
    assert post(client, f"{path}/execute", {**body, "timeout_s": 0.3}).json()["status"] == "timeout"
    assert client.delete(path).status_code == 204


def alone(server: FaultServer, client: httpx2.Client) -> None:
    """One-shots: well, by error, at the deadline, dead, out of memory."""
    for code, timeout_s in (
        (BUSY, 20.0),
        ("1/0", 20.0),
        ("while True: pass", 0.2),
        ("import os; os._exit(3)", 20.0),
        (MEMORY, 20.0),
    ):
        assert post(client, "/api/execute", {"code": code, "timeout_s": timeout_s}).status_code == 200


def gateway_killed(server: FaultServer, client: httpx2.Client) -> None:
    """With a session that lives on, code alone that runs, and a transfer under way."""
    path = session(client)
    value(client, path, BUSY)
    with client.stream(
        "POST", "/api/execute", json={"code": "import time; time.sleep(0.5)"}, headers=_EVENTS
    ):
        server.kill_gateway()
    server.wait_healthy()
    assert client.delete(path).status_code == 204
    server.settled(client)


def stopped_kernel(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    os.kill(deaths.kernel_of(server, client, path), signal.SIGSTOP)
    assert post(client, f"{path}/execute", {"code": "1", "timeout_s": 0.2}).json()["status"] == "timeout"
    assert client.delete(path).status_code == 204


ENDINGS: tuple[Ending, ...] = (
    gateway_killed,  # first, so that the next one has done the same work as the last when it is looked at
    deleted,
    deleted_while_it_runs,
    idle,
    too_old,
    killed,
    kernel_killed,
    out_of_memory,
    lied,
    timed_out,
    alone,
    stopped_kernel,
)

_EVENTS = {"Accept": "text/event-stream"}


def _ends(client: httpx2.Client, path: str, reason: str) -> None:
    wait_until(lambda: client.get(path).status_code == 410, END_S, f"the session ends as {reason}")
    assert client.get(path).json()["reason"] == reason
