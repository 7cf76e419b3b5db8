"""One line of a log, as text or JSON, for all processes. Nothing in a text may forge or flood a line."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

TEXT_CHARACTERS = 4096
"""A message is cut after so many."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str, most: int = TEXT_CHARACTERS) -> str:
    """`text` on one line, with everything that a terminal would not print as an escape."""
    return _CONTROL.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), cut(text, most)
    )


def cut(text: str, most: int = TEXT_CHARACTERS) -> str:
    """The first `most` characters, and how many are missing."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more)"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(part: str, text: str, log_format: str) -> str:
    """A line of a process that has no levels: `onehop PART: text`, or one JSON object."""
    if log_format != "json":
        return f"onehop{' ' if part else ''}{part}: {escaped(text)}\n"
    document = {
        "time": timestamp(datetime.now(UTC).timestamp()),
        "level": "info",
        "logger": f"onehop.{part or 'serve'}",
        "message": cut(text),
    }
    return json.dumps(document, ensure_ascii=True) + "\n"
