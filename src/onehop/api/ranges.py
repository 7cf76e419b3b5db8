"""Parts of a file, and whether the client has it already: Range, ETag, If-Range, If-None-Match (RFC 9110).

What is not understood is ignored, as the RFC asks: the whole file is always a right answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onehop.errors import RangeNotSatisfiableError
from onehop.protocol import Entry

_ONE_RANGE = re.compile(rb"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


@dataclass(frozen=True, slots=True)
class Range:
    """`first` byte, counted from the end if negative, and the `length`, all if negative."""

    first: int
    length: int

    def within(self, size_bytes: int) -> tuple[int, int]:
        """The first byte and the number of bytes. Raises RangeNotSatisfiableError."""
        start = self.first if self.first >= 0 else max(size_bytes + self.first, 0)
        left = size_bytes - start
        if left <= 0 or self.length == 0:
            raise RangeNotSatisfiableError(
                f"the file has {size_bytes} bytes, none of them is in the range", bytes=size_bytes
            )
        return start, left if self.length < 0 else min(left, self.length)


def parse(header: bytes) -> Range | None:
    """A Range header with one range of bytes; None for none and for every other."""
    found = _ONE_RANGE.fullmatch(header)
    if found is None or found[1] == found[2] == b"":
        return None
    if not found[1]:
        count = int(found[2])
        return Range(-count, count) if count else Range(0, 0)
    first = int(found[1])
    if not found[2]:
        return Range(first, -1)
    last = int(found[2])
    return Range(first, last - first + 1) if last >= first else None


def etag(entry: Entry) -> bytes:
    """Another one when the file is replaced, or changes in size or in its time of modification."""
    return b'"%x-%x-%x"' % (entry.inode, entry.bytes, entry.modified_ns & 0xFFFFFFFFFFFFFFFF)


def matches(header: bytes, tag: bytes) -> bool:
    """Whether If-None-Match names `tag`; weak comparison."""
    return header.strip() == b"*" or tag in [one.strip().removeprefix(b"W/") for one in header.split(b",")]
