"""SIGINT ends a cell, and nothing but a cell: between cells it is taken and forgotten.

A handler of our own instead of SIG_IGN, because an ignored signal would stay ignored in the programs
that user code starts.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
from collections.abc import Iterator
from types import FrameType

_armed = False
_LOOP = (os.path.dirname(asyncio.__file__) + os.sep, selectors.__file__)
"""Where an event loop's own frames lie."""


def install() -> None:
    """Must be called in the kernel's main thread, once."""
    signal.signal(signal.SIGINT, _on_sigint)


def _on_sigint(number: int, frame: FrameType | None) -> None:
    if not _armed:
        return
    loop = asyncio._get_running_loop()
    if loop is not None and frame is not None and frame.f_code.co_filename.startswith(_LOOP):
        # Raised between two steps of the loop. In the middle of one it can lose a task for ever: the loop
        # has taken it out of its queue and the task has not asked to be put back.
        loop.call_soon_threadsafe(_raise)
        return
    raise KeyboardInterrupt


def _raise() -> None:
    raise KeyboardInterrupt


def restore() -> None:
    """Undoes what a cell did to the handler: the next one must be stoppable without losing its variables."""
    if signal.getsignal(signal.SIGINT) is not _on_sigint:
        signal.signal(signal.SIGINT, _on_sigint)


def disarm() -> None:
    """For an interrupt that came while `armed` was being left."""
    global _armed
    _armed = False


@contextlib.contextmanager
def armed() -> Iterator[None]:
    """Within this block SIGINT raises KeyboardInterrupt."""
    global _armed
    _armed = True
    try:
        yield
    finally:
        _armed = False
