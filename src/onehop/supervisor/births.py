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
        self.what: dict[str, Any] = {
            "home": HOME,
            "limits": sandbox.around.limits(sandbox.spec),
            "environ": {},
            "nice": sandbox.around.nice,
        }

    def fds(self) -> list[int]:
        if not self._link.alive or self._sandbox.state in ("dying", "gone"):
            return []
        return [self._sandbox.init_pidfd, *self._link.kernel_fds, *self._sandbox.ruleset]

    def started(self, pid: int, pidfd: int) -> None:
        """It runs our own code until we send it a cell, and that waits until it is in its control group."""
        link, sandbox = self._link, self._sandbox
        if not link.alive or sandbox.state in ("dying", "gone"):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            return
        link.pidfd = pidfd
        try:
            signal.pidfd_send_signal(pidfd, 0)  # so that the number is still its own
            if sandbox.group is not None:
                sandbox.group.attach(pid)
        except OSError as error:
            sandbox.die(f"its kernel cannot be put into its control group: {error}")
            return
        link.given()

    def failed(self, detail: str) -> None:
        self._sandbox.die(f"no new kernel can be started in it: {detail}")

    def exited(self, code: int) -> None:
        self._sandbox.kernel_exit(self._link.name, code, self._link)
