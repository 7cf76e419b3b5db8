"""The tool of the rows on calls: it does nothing, so that what is measured is the way there and back."""

from __future__ import annotations


def noop() -> int:
    """One."""
    return 1


async def noop_async() -> int:
    """One, from the worker's event loop."""
    return 1
