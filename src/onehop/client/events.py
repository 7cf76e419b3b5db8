"""Server-sent events as the server sends them (numbered, one line of JSON each), parsed without input or output.

The format is https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import json
from typing import Any

RawEvent = tuple[int, str, dict[str, Any]]
"""Number, kind and data."""


class Parser:
    """Bytes in, events out; a new connection needs a new one."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # a line of many megabytes comes in thousands of pieces
        self._number = 0
        self._kind = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[RawEvent]:
        """The events that `chunk` completes. Raises ValueError for what is none."""
        events: list[RawEvent] = []
        if b"\n" not in chunk:
            self._parts.append(chunk)
            return events
        lines = b"".join([*self._parts, chunk]).split(b"\n")
        self._parts = [lines.pop()]
        for line in lines:
            self._take(line.removesuffix(b"\r"), events)
        return events

    def _take(self, line: bytes, events: list[RawEvent]) -> None:
        if not line:
            if self._data:
                events.append((self._number, self._kind, json.loads(b"\n".join(self._data))))
            self._kind, self._data = "", []
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._kind = value.decode()
        elif name == b"id":
            self._number = int(value)
