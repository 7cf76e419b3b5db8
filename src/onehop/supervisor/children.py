"""The supervisor's child processes: told when one ends, each reaped once.

By pidfd and not by SIGCHLD, which uvloop keeps for itself. As PID 1 the supervisor also inherits
orphans; they are reaped on the way.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

OnExit = Callable[[int], None]
"""Called on the loop with the exit code, negative for a signal."""


class Children:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, tuple[int, OnExit]] = {}

    def watch(self, pid: int, on_exit: OnExit) -> None:
        """`pid` must be a child that nobody has waited for. Ends it where it cannot be watched."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor left: whoever reaps next finds it, once a second at the least
            self._known[pid] = (-1, on_exit)
            os.kill(pid, signal.SIGKILL)
            return
        self._known[pid] = (pidfd, on_exit)
        self._loop.add_reader(pidfd, self.reap)

    def pidfd(self, pid: int) -> int:
        """Of a child that is watched; it stays ours. Raises KeyError when it has ended."""
        return self._known[pid][0]

    def reap(self) -> None:
        """Takes every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            known = self._known.pop(pid, None)
            if known is None:
                continue
            pidfd, on_exit = known
            if pidfd >= 0:
                self._loop.remove_reader(pidfd)
                os.close(pidfd)
            on_exit(os.waitstatus_to_exitcode(status))
