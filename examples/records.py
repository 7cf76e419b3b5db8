"""Tools of the operator's for twenty_calls.py, served with `onehop serve --tools examples/records.py`.

Twenty records, each of which names the next one: who wants the sum has to ask for them one after the other.
"""

from __future__ import annotations

import hashlib
from typing import TypedDict

COUNT = 20


class Record(TypedDict):
    """What a record says; `next` is empty in the last one."""

    amount: int
    next: str


def _key(number: int) -> str:
    return "start" if number == 0 else hashlib.sha256(f"record {number}".encode()).hexdigest()[:8]


_RECORDS: dict[str, Record] = {
    _key(number): {"amount": number * number % 17, "next": _key(number + 1) if number + 1 < COUNT else ""}
    for number in range(COUNT)
}


def follow(key: str) -> Record:
    """The record of that key: an amount, and the key of the next record (empty in the last one)."""
    return _RECORDS[key]
