"""Times on a machine that may stand still for a moment: that spoils one measurement, a defect spoils every one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BEAT_S = 0.01


def soonest_s(measure: Callable[[], float], enough_s: float, most: int = 3) -> float:
    """The shortest of at most `most` measurements, in seconds; the first below `enough_s` is the last."""
    taken: list[float] = []
    while not taken or (taken[-1] >= enough_s and len(taken) < most):
        taken.append(measure())
    return min(taken)


async def stillness_s(until: asyncio.Event) -> float:
    """For how long, at most, this process did not come to its turn: the part of a wait that is not the server's."""
    worst_s = 0.0
    while not until.is_set():
        started_s = time.monotonic()
        await asyncio.sleep(BEAT_S)
        worst_s = max(worst_s, time.monotonic() - started_s - BEAT_S)
    return worst_s
