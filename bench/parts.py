"""What the parts of `make soak` are given and what they give back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


class Budget:
    """How long a part may take; one that comes to the end of it stops where it is and says how far it came."""

    def __init__(self, minutes: float) -> None:
        self._deadline_s = time.monotonic() + minutes * 60 if minutes else float("inf")

    def left_s(self) -> float:
        return max(0.0, self._deadline_s - time.monotonic())

    def over(self) -> bool:
        return self.left_s() == 0.0


@dataclass
class Outcome:
    """Figures to be written down, in order, and everything that was not as promised."""

    figures: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def percentile(samples: list[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, round(len(ordered) * share + 0.5) - 1))]


def spread(samples: list[float], unit: str = "ms") -> str:
    """p50, p95, p99 and the largest."""
    if not samples:
        return "none"
    values = [*(percentile(samples, share) for share in (0.5, 0.95, 0.99)), max(samples)]
    return " / ".join(f"{value:.1f}" for value in values) + f" {unit}"
