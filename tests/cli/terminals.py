"""A command on a terminal of its own, typed into and read from as a person would."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.cli.processes import ONEHOP, variables

WAIT_S = 40.0


class Terminal:
    """`onehop …` with a pseudo-terminal as its controlling one: Ctrl-C is a signal, as it is for people."""

    def __init__(self, *arguments: str, cwd: Path, **more: str) -> None:
        ours, theirs = pty.openpty()
        self._fd = ours
        self.seen = ""
        self._read_to = 0
        # setsid -c makes the terminal the controlling one, which is what turns ^C into SIGINT.
        self.process = subprocess.Popen(
            ["setsid", "-c", *ONEHOP, *arguments],
            cwd=cwd,
            env=variables(TERM="xterm", **more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        os.close(self._fd)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def expect(self, pattern: str) -> str:
        """Reads on until `pattern` (a regular expression) appears after what was expected before."""
        deadline_s = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self.seen[self._read_to :])):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0 and self._more(left_s), f"no {pattern!r} in {self.seen[self._read_to :]!r}"
        start = self._read_to
        self._read_to += found.end()
        return self.seen[start : self._read_to]

    def _more(self, timeout_s: float) -> bool:
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return True
        try:
            chunk = os.read(self._fd, 65536)
        except OSError:  # EIO: the last process with this terminal has ended
            return False
        self.seen += chunk.decode(errors="replace")
        return bool(chunk)

    def wait(self) -> int:
        """Reads to the end, and returns the exit code."""
        while self._more(WAIT_S):
            pass
        return self.process.wait(WAIT_S)
