"""Cuts what a process writes into lines, of bounded length whatever it writes."""

from __future__ import annotations

from collections.abc import Iterator

from onehop.errors import ProtocolError

SKIPPED_TIMES = 8
"""Of a line that is too long so many times the limit is read to find its end."""


class TooLong:
    """A line that went beyond the limit; `head` is how it begins."""

    def __init__(self, head: bytes) -> None:
        self.head = head


class Lines:
    """Cuts a stream into lines of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._bytes = 0
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes | TooLong]:
        """The lines that end in `data`, without their ends. Raises ProtocolError for one without end."""
        *ended, rest = data.split(b"\n")
        for part in ended:
            yield from self._add(part)
            if not self._skipping:
                yield b"".join(self._parts)
            self._parts.clear()
            self._bytes, self._skipping = 0, False
        if rest:
            yield from self._add(rest)

    def _add(self, part: bytes) -> Iterator[TooLong]:
        self._bytes += len(part)
        if self._skipping:
            if self._bytes > self._max_bytes * SKIPPED_TIMES:
                raise ProtocolError(f"a message of more than {self._max_bytes * SKIPPED_TIMES} bytes")
            return
        self._parts.append(part)
        if self._bytes > self._max_bytes:
            head = b"".join(self._parts)[:200]
            self._parts.clear()
            self._skipping = True
            yield TooLong(head)
