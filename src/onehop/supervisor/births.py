"""A kernel on its way into a sandbox: what the zygote is asked for, and what becomes of its answer."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from onehop.supervisor.link import Link

if TYPE_CHECKING:
    from onehop.supervisor.sandbox import Sandbox

HOME = "/workspace"


class Birth:
    """A zygotes.KernelRequest for one link."""

    def __init__(self, sandbox: Sandbox, link: Link) -> None:
        self._sandbox = sandbox
        self._link = link
        self._doors: list[int] = []
        self.what: dict[str, Any] = {
            "home": HOME,
            "limits": sandbox.around.limits(sandbox.spec),
            "environ": {},
            "nice": sandbox.around.nice,
        }

    def fds(self) -> list[int]:
        sandbox = self._sandbox
        if not self._link.alive or sandbox.state in ("dying", "gone"):
            return []
        self._doors = sandbox.group.doors() if sandbox.group is not None else []
        self.what["doors"] = len(self._doors)
        return [sandbox.init_pidfd, *self._link.kernel_fds, *self._doors, *sandbox.ruleset]

    def sent(self) -> None:
        for fd in self._doors:
            os.close(fd)
        self._doors = []

    def started(self, pid: int, pidfd: int) -> None:
        """It goes into its control groups by itself: until its first cell it runs our own code."""
        link, sandbox = self._link, self._sandbox
        if link.alive and sandbox.state not in ("dying", "gone"):
            link.pidfd = pidfd
            link.given()
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)

    def failed(self, detail: str) -> None:
        self._sandbox.die(f"no new kernel can be started in it: {detail}")

    def exited(self, code: int) -> None:
        self._sandbox.kernel_exit(self._link.name, code, self._link)
