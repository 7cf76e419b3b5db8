"""Named points at which the gateway ends itself by SIGKILL, for tests that ask what such a death loses.

`ONEHOP_CRASH_AT=point[:n]`: when `point` is reached the n-th time (default: the first). `ONEHOP_CRASH_AT=@FILE`
reads the same text from a file each time a point is reached, so that a test can aim at a running server. Before it
crashes it renames the file to FILE.PID: of a test that takes its order back and a gateway that carries it out,
exactly one has the file. Without the variable `reached` does nothing; this must never cost a request more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

POINTS = (
    "execution-claimed",  # its id is chosen and its row is on the way; the supervisor knows nothing
    "execution-started",  # the supervisor runs it; nobody has been told
    "first-event",
    "end-received",  # the outcome is known; nobody has been told
    "answer-complete",  # the answer is made, and not yet on its way into the store
    "before-commit",
    "after-commit",
    "before-acknowledge",  # committed; the supervisor keeps the events still
    "session-created",  # its sandbox exists, its row does not
    "session-stored",
    "session-ending",  # marked as ended; its sandbox lives
    "session-gone",  # its sandbox is gone; the row may say nothing of it
    "idempotency-claimed",  # committed; nothing has been begun for the key
    "file-half-written",
    "call-dispatched",  # a tool is about to be called; what becomes of it will not be known
    "call-answered",  # the tool has answered, the code has not been told
    "results-claimed",  # the client's results are checked; none has been used
    "recovery-half-done",  # a new gateway dies while it takes over from the last one
)
"""Every name that may be given."""

TOOL_POINTS = ("call-dispatched", "call-answered", "results-claimed")
"""Those that only an execution with tools comes to."""


def _nothing(point: str) -> None:
    """The usual `reached`."""


class _Armed:
    """Counts how often each point is reached under one order."""

    def __init__(self, value: str) -> None:
        self._file = value[1:] if value.startswith("@") else ""
        self._order = "" if self._file else _checked(value)
        self._count = 0

    def __call__(self, point: str) -> None:
        if self._file:
            self._read()
        name, _, times = self._order.partition(":")
        if name != point:
            return
        self._count += 1
        if self._count < int(times or 1):
            return
        if self._file:
            try:
                os.rename(self._file, f"{self._file}.{os.getpid()}")  # the next gateway lives
            except FileNotFoundError:
                return  # taken back meanwhile
        os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> None:
        try:
            with open(self._file) as file:
                order = file.read().strip()
        except OSError:  # there is none, or no descriptor for it
            order = ""
        if order != self._order:
            self._order, self._count = order and _checked(order), 0


def _checked(order: str) -> str:
    name, _, times = order.partition(":")
    if name not in POINTS or (times and not times.isdigit()):
        raise ValueError(f"ONEHOP_CRASH_AT={order!r}: expected one of {', '.join(POINTS)}, and :N")
    return order


def _resolved(value: str) -> Callable[[str], None]:
    return _Armed(value) if value else _nothing


reached = _resolved(os.environ.get("ONEHOP_CRASH_AT", ""))
"""`reached("point")` says that the code is there."""
