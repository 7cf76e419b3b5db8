"""Server-sent events out of bytes that are cut anywhere. It keeps no more of a stream than its unfinished event.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6. Ids and times of
reconnection are left out: a turn that broke is not taken up again.
"""

from __future__ import annotations

from onehop.errors import UpstreamError

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""A picture in one event is the largest thing that is expected."""
_BOM = b"\xef\xbb\xbf"


class Events:
    """One stream.

    Args:
        max_bytes: of one event, and of one line.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._first = True

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that `chunk` completes, each its name (empty: none given) and its data.

        Raises UpstreamError when an event gets too large.
        """
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[:1] == b"\n":  # the rest of a CRLF that was cut in two
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in chunk:
            self._partial_bytes += len(chunk)
            if self._partial_bytes > self._max_bytes:
                raise self._too_large()
            self._partial.append(chunk)
            return []
        if self._partial:
            self._partial.append(chunk)
            chunk = b"".join(self._partial)
            self._partial.clear()
        if self._first:
            self._first = False
            chunk = chunk.removeprefix(_BOM)
        lines = chunk.split(b"\n")
        last = lines.pop()
        self._partial_bytes = len(last)
        if last:
            self._partial.append(last)
        found: list[tuple[str, str]] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._data_bytes += len(line)
            elif not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    found.append((self._event, data.decode("utf-8", "replace")))
                    self._data.clear()
                    self._data_bytes = 0
                self._event = ""
            else:
                self._field(line)
        if self._data_bytes + self._partial_bytes > self._max_bytes:
            raise self._too_large()
        return found

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._event = value.removeprefix(b" ").decode("utf-8", "replace")
        elif name == b"data":  # without a colon: an empty line of data
            self._data.append(b"")

    def _too_large(self) -> UpstreamError:
        return UpstreamError(f"the model's server sent an event of more than {self._max_bytes} bytes")
