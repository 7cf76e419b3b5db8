"""Server-sent events as a client reads them, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2

Event = tuple[int, str, Any]
"""Number, kind, data."""


class Reader:
    """Adds what comes to `events`; may be stopped and asked to go on."""

    def __init__(self, response: httpx2.Response, events: list[Event]) -> None:
        self._events = events
        self._coming = _parse(response)

    def read(self, until: str = "end") -> None:
        """Returns after an event of the kind `until`, and at the end."""
        for event in self._coming:
            self._events.append(event)
            if event[1] in (until, "end"):
                return


def _parse(response: httpx2.Response) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}
