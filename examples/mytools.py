"""Tools for `onehop serve --tools examples/mytools.py`; code calls them as tools.mytools.forecast(city="Oslo")."""

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

import onehop

CLIMATE = {"Oslo": 6.5, "Lima": 19.5, "Cairo": 22.0}
NOTES: list[str] = []


@dataclass
class Day:
    day: date
    celsius: float


@onehop.tool(read_only=True)
def forecast(city: str, days: int = 3) -> list[Day]:
    """The highest temperatures of the next days.

    Args:
        city: Oslo, Lima or Cairo
        days: how many, at most 14
    """
    if city not in CLIMATE:
        raise ValueError(f"no such city; there are {', '.join(CLIMATE)}")
    first = date(2026, 1, 1)
    shifts = [hashlib.sha256(f"{city}{n}".encode()).digest()[0] % 10 - 5 for n in range(min(days, 14))]
    return [Day(first + timedelta(n), CLIMATE[city] + shift) for n, shift in enumerate(shifts)]


@onehop.tool(read_only=True)
def cities() -> list[str]:
    """All cities that there is a forecast for."""
    return list(CLIMATE)


@onehop.tool(requires_approval=True)
async def note(text: str) -> int:
    """Writes a note down, and tells how many there are. Somebody has to approve it."""
    NOTES.append(text)
    return len(NOTES)
