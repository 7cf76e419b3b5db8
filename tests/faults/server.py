"""`onehop serve` as the tests of faults see it: its processes by role, and ways to hurt them.

Used by the tests here and by `make soak`, which runs the same suites with larger numbers.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from onehop.supervisor.client import SupervisorClient
from tests.cli.processes import Server, children, only, wait_until

BACK_S = 30.0
"""How long a gateway may take to come back on a machine with other work."""


class FaultServer(Server):
    """One server whose gateway crashes on order."""

    def __init__(self, home: Path, folder: Path, *flags: str) -> None:
        self._orders = home / "state" / "crash-at"
        super().__init__(home, folder, flags, ONEHOP_CRASH_AT=f"@{self._orders}")
        self.kills = 0

    def client(self, *, timeout_s: float = 60.0) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=timeout_s)

    # --- roles ----------------------------------------------------------------------------------------

    def supervisor(self) -> int:
        return only(lambda: children(self.shim()))

    def zygotes(self) -> list[int]:
        """Children of the supervisor in its own PID namespace, the seed beside them has another name."""
        supervisor = self.supervisor()
        depth = _depth(supervisor)
        return [
            pid
            for pid in children(supervisor)
            if _depth(pid) == depth and _read(f"/proc/{pid}/comm").strip() == "python"
        ]

    def named(self, mark: str) -> int:
        """The process that gave itself the name `mark` (see `MARK`)."""

        def look() -> list[int]:
            pids = _below(self.supervisor())
            return [pid for pid in pids if _read(f"/proc/{pid}/comm").strip() == mark]

        return only(look)

    def describe(self) -> dict[str, Any]:
        """What the supervisor itself says it holds."""
        (path,) = self.temporary.glob("onehop-*/s")

        async def ask() -> dict[str, Any]:
            client = await SupervisorClient.connect(str(path))
            try:
                return await client.describe()
            finally:
                await client.close()

        return asyncio.run(ask())

    # --- hurting --------------------------------------------------------------------------------------

    def crash_at(self, point: str, times: int = 1) -> None:
        """The gateway ends itself when it reaches `point` for the `times`-th time from now on."""
        scratch = self._orders.with_suffix(".new")
        scratch.write_text(f"{point}:{times}")
        scratch.chmod(0o644)  # the gateway is a service user
        scratch.replace(self._orders)

    def no_crash(self) -> bool:
        """Takes the order back; True when it was not carried out, otherwise whoever did so is dead."""
        try:
            self._orders.unlink()
        except FileNotFoundError:
            for taken in self._orders.parent.glob(f"{self._orders.name}.*[0-9]"):
                pid = int(taken.suffix[1:])
                wait_until(lambda: _dead(pid), BACK_S, "the gateway has crashed")  # noqa: B023 - called here
                taken.unlink()
                self.kills += 1
            return False
        return True

    def kill_gateway(self) -> None:
        """SIGKILL, if one is there just now."""
        for pid in self.children("onehop.cli.gateway"):
            with _gone_is_fine():
                os.kill(pid, signal.SIGKILL)
                self.kills += 1

    def health(self) -> str:
        """The status that /healthz gives; empty when there is no answer."""
        try:
            return str(self.call("GET", "/healthz")["status"])
        except OSError:
            return ""

    def wait_healthy(self) -> None:
        wait_until(self.healthy, BACK_S, "the gateway is back")

    @contextmanager
    def stopped(self, pid: int) -> Iterator[None]:
        """SIGSTOP inside the context."""
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with _gone_is_fine():
                os.kill(pid, signal.SIGCONT)

    def settled(self, client: httpx2.Client) -> dict[str, int]:
        """The counts, once nothing runs and everything is stored."""
        deadline_s = time.monotonic() + BACK_S
        while True:
            counts: dict[str, int] = client.get("/api/info").json()["counts"]
            if counts["running"] == counts["unstored"] == 0:
                return counts
            assert time.monotonic() < deadline_s, f"not everything gets stored: {counts}"
            time.sleep(0.02)


def mark() -> str:
    """A name that no other process has."""
    return f"m-{secrets.token_hex(6)}"


def marking(name: str) -> str:
    """Code by which a kernel takes a name that can be seen from outside (prctl(2), PR_SET_NAME)."""
    return f"import ctypes; _ = ctypes.CDLL(None).prctl(15, b{name!r}, 0, 0, 0)"


def orphaning(name: str) -> str:
    """Code that leaves a process of that name to the sandbox's init."""
    return (
        "import ctypes, os, time\n"
        "middle = os.fork()\n"
        "if middle == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        ctypes.CDLL(None).prctl(15, b{name!r}, 0, 0, 0)\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "_ = os.waitpid(middle, 0)"
    )


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        pass


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _dead(pid: int) -> bool:
    """Gone, or to be reaped."""
    status = _read(f"/proc/{pid}/stat")
    return not status or status.rpartition(")")[2].split()[0] in "ZX"


def _depth(pid: int) -> int:
    """In how many PID namespaces it has a number; 0 when it is gone."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) - 1
    return 0


def _below(pid: int) -> list[int]:
    found: list[int] = []
    unseen = [pid]
    while unseen:
        below = children(unseen.pop())
        found += below
        unseen += below
    return found


def post(client: httpx2.Client, path: str, body: Any, *, key: str = "") -> httpx2.Response:
    return client.post(path, json=body, headers={"Idempotency-Key": key} if key else {})
