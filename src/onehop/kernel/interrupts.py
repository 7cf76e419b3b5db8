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
import threading
from collections.abc import Iterator
from types import FrameType

_armed = False
_held = False
_missed = False
_main = 0
_LOOP = (os.path.dirname(asyncio.__file__) + os.sep, selectors.__file__)
"""Where an event loop's own frames lie."""


def install() -> None:
    """Must be called in the kernel's main thread, once."""
    global _main
    _main = threading.get_ident()
    signal.signal(signal.SIGINT, _on_sigint)


def _on_sigint(number: int, frame: FrameType | None) -> None:
    global _missed
    if not _armed:
        return
    if _held:
        _missed = True
        return
    loop = asyncio._get_running_loop()
    if loop is not None and frame is not None and frame.f_code.co_filename.startswith(_LOOP):
        # Raised between two steps of the loop. In the middle of one it can lose a task for ever: the loop
        # has taken it out of its queue and the task has not asked to be put back.
        loop.call_soon_threadsafe(strike)
        return
    raise KeyboardInterrupt


def strike() -> None:
    """Ends what runs now."""
    raise KeyboardInterrupt


def restore() -> None:
    """Undoes what a cell did to the handler: the next one must be stoppable without losing its variables."""
    if signal.getsignal(signal.SIGINT) is not _on_sigint:
        signal.signal(signal.SIGINT, _on_sigint)


def disarm() -> None:
    """For an interrupt that came while `armed` was being left."""
    global _armed
    _armed = False


_held = False
_missed = False


def hold() -> bool:
    """From now on an interrupt waits for `release`: half a frame on the channel could not be repaired.

    For the main thread, which is where signals are handled; in others nothing happens. What is returned is
    for `release`.
    """
    global _held
    before = _held
    if threading.get_ident() == _main:
        _held = True
    return before


def release(before: bool) -> None:
    """As it was before `hold`. Raises KeyboardInterrupt when one came meanwhile."""
    global _held, _missed
    if threading.get_ident() != _main:
        return
    _held = before
    if _missed and not before:
        _missed = False
        raise KeyboardInterrupt


@contextlib.contextmanager
def armed() -> Iterator[None]:
    """Within this block SIGINT raises KeyboardInterrupt."""
    global _armed, _held, _missed
    _held = _missed = False
    _armed = True
    try:
        yield
    finally:
        _armed = False


_held = False
_missed = False
