"""Signals that come while readline gets ready to wait: without help they would be seen with the next key only.

CPython notes a signal and looks at it when a system call is interrupted. One that comes between readline's
prompt and its select() interrupts nothing. A thread that the interpreter's own C handler wakes sends it again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

AGAIN_S = 0.1


class Nudges:
    """For the main thread of a process."""

    def __init__(self) -> None:
        self._turns = 0
        """Odd while somebody waits for a line."""

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for a line."""
        self._turns += 1
        try:
            yield
        finally:
            self._turns += 1

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around everything: the thread lives inside."""
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(read,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(write)
            thread.join()
            os.close(read)

    def _watch(self, read: int) -> None:
        while numbers := os.read(read, 64):
            turn = self._turns
            time.sleep(AGAIN_S)
            if turn % 2 and self._turns == turn:
                os.kill(os.getpid(), numbers[-1])
