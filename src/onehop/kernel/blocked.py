"""Whether nothing but calls of tools can make the code go on: what every other thread of Python's is doing.

A thread that cannot be judged counts as working; then the execution just goes on until its deadline.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import selectors
import sys
import threading
from asyncio import base_events
from types import FrameType
from typing import Any

from onehop.kernel.channel import Waiter

_RUN_ONCE = base_events.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]
_CONDITION = threading.Condition.wait.__code__
# Until 3.12 a thread is joined by its lock; from 3.13 on in C, called by `join` itself.
_JOIN = getattr(threading.Thread, "_wait_for_tstate_lock", threading.Thread.join).__code__
_WORKER = concurrent.futures.thread._worker.__code__
_SELECTS = {
    kind.select.__code__
    for name in ("EpollSelector", "PollSelector", "SelectSelector")
    if (kind := getattr(selectors, name, None)) is not None
}
_IGNORED_MODULES = ("tqdm",)
"""Of classes of threads that only watch: tqdm's monitor wakes every ten seconds for nothing."""


def all_but(thread: int, waiting: dict[int, Waiter], channel_fd: int) -> bool:
    """Whether every thread but `thread` waits for calls, or for what only other threads can do."""
    if threading._limbo:  # type: ignore[attr-defined]
        return False  # one that is being started has no frame yet
    for ident, frame in sys._current_frames().items():
        if ident == thread:
            continue
        waiter = waiting.get(ident)
        if waiter is not None:
            if waiter.ready or not hasattr(waiter, "path"):
                return False
        elif not _is_idle(frame, channel_fd) and not _only_watches(ident):
            return False
    return True


def _is_idle(frame: FrameType, channel_fd: int) -> bool:
    code, found = frame.f_code, frame.f_locals
    if code is _WORKER:
        return bool(found["work_queue"].empty()) if "work_queue" in found else False
    if code is _CONDITION:
        # `waiter` is released by whoever notifies; then the thread only waits for its turn.
        return found.get("timeout") is None and "waiter" in found and bool(found["waiter"].locked())
    if code is _JOIN:
        if code is threading.Thread.join.__code__:
            return found.get("timeout") is None and not found["self"]._handle.is_done()
        lock = found.get("lock")
        return found.get("timeout", -1) == -1 and lock is not None and bool(lock.locked())
    if code in _SELECTS:
        outer: FrameType | None = frame.f_back
        for _ in range(2):
            if outer is not None and outer.f_code is _RUN_ONCE:
                return loop_is_idle(outer.f_locals["self"], channel_fd)
            outer = outer.f_back if outer is not None else None
    return False


def _only_watches(ident: int) -> bool:
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return thread is not None and type(thread).__module__.partition(".")[0] in _IGNORED_MODULES


def loop_is_idle(loop: Any, channel_fd: int) -> bool:
    """Whether a loop has nothing to do, no timer, and waits for nothing but itself and our channel."""
    if loop._ready or any(not timer._cancelled for timer in loop._scheduled):
        return False
    own = {channel_fd, loop._ssock.fileno()}
    return own.issuperset(loop._selector.get_map().keys())


def watch(loop: asyncio.AbstractEventLoop, look: Any) -> Any:
    """Has `look` called whenever the loop is about to sleep without a timer.

    Args:
        look: gives how many ms it may sleep before it is asked again, -1 for ever.

    Returns:
        What ends it, None for a loop of another make.
    """
    selector = getattr(loop, "_selector", None)
    if selector is None or not hasattr(loop, "_ssock"):
        return None
    real = selector.select

    def select(timeout: float | None = None) -> Any:
        if timeout is not None:
            return real(timeout)
        while True:
            within_ms = look(loop)
            events = real(None if within_ms < 0 else within_ms / 1000)
            if events or within_ms < 0:
                return events

    selector.select = select

    def end() -> None:
        vars(selector).pop("select", None)

    return end
