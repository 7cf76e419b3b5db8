"""What is known about a source of tools and about a tool, and the frames between the gateway and a worker.

Both ends import this, so it must stay light: no pydantic, no event loop. A frame is a length (u32, big-endian)
and a msgpack array whose first member is its name; docs/tools.md has the table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from onehop.errors import ProtocolError

MAX_FRAME_BYTES = 64 * 1024 * 1024
LENGTH = struct.Struct(">I")
MAX_SOURCES = 64
"""Each has a host uid of its own where the server was started by root."""
MAX_TOOLS = 10_000
"""In the catalogue of one source."""

NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class ToolSpec(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One tool, as its source describes it.

    Args:
        name: within its source; code calls it by `source.name`.
        parameters: JSON Schema of an object.
        returns: JSON Schema of the value, None when nothing is promised.
        read_only: it changes nothing.
        idempotent: called twice with the same arguments, it does what one call does.
        requires_approval: each call waits until the client has approved it.
        source: name of its source; filled in by the gateway.
        timeout_s: seconds that a call may take, None for the server's setting.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=lambda: dict(NO_PARAMETERS))
    returns: dict[str, Any] | None = None
    read_only: bool = False
    idempotent: bool = False
    requires_approval: bool = False
    source: str = ""
    timeout_s: float | None = None


class SourceSpec(msgspec.Struct, kw_only=True, frozen=True):
    """One source of tools, as the operator configured it.

    Args:
        name: first part of its tools' names.
        kind: which class of source it is; see onehop.tools.source.
        options: what that kind wants to know; no secret among it.
        secrets: names of environment variables that its worker gets, and no other's.
        readable: paths that its worker must be able to read where it has a user of its own.
        requires_approval: patterns of its tools (within the source) that wait for an approval, whatever the
            source says about them.
        timeout_s: seconds a call may take where the tool says nothing.
    """

    name: str
    kind: str
    options: dict[str, Any] = {}
    secrets: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    requires_approval: tuple[str, ...] = ()
    timeout_s: float | None = None


class CallFrame(msgspec.Struct, array_like=True, gc=False, tag="call"):
    """To the worker: run a tool; answered by one result or error of the same ticket."""

    ticket: int
    tool: str
    arguments: dict[str, Any]


class CancelFrame(msgspec.Struct, array_like=True, gc=False, tag="cancel"):
    """To the worker: nobody waits for this ticket any more. Its call still ends with a result or an error."""

    ticket: int


class CatalogueFrame(msgspec.Struct, array_like=True, gc=False, tag="catalogue"):
    """From the worker: all its tools; the first one says that it is ready, later ones that they changed."""

    tools: list[ToolSpec]


class ResultFrame(msgspec.Struct, array_like=True, gc=False, tag="result"):
    """From the worker: what a call gave. `files`: path below the workspace -> content."""

    ticket: int
    value: Any
    files: dict[str, bytes] = {}


class RawResultFrame(msgspec.Struct, array_like=True, gc=False, tag="result"):
    """As ResultFrame, its value left as it came: the gateway passes it on and has no need to look at it."""

    ticket: int
    value: msgspec.Raw
    files: dict[str, bytes] = {}


class ErrorFrame(msgspec.Struct, array_like=True, gc=False, tag="error"):
    """From the worker: why a call gave nothing. `kind` as in onehop.protocol.CallError."""

    ticket: int
    kind: str
    message: str


class LogFrame(msgspec.Struct, array_like=True, gc=False, tag="log"):
    """From the worker: a line of what its tools printed, or of its own. `level`: as of the module logging."""

    level: str
    text: str


ToWorker = CallFrame | CancelFrame
FromWorker = CatalogueFrame | RawResultFrame | ErrorFrame | LogFrame

_encoder = msgspec.msgpack.Encoder()


def encode(frame: msgspec.Struct) -> bytes:
    """The bytes of one frame.

    Raises:
        ProtocolError: it is longer than MAX_FRAME_BYTES.
        OverflowError: a number in it has more than 64 bits.
        TypeError: it holds something that is no plain data.
    """
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(
            f"{len(body)} bytes, more than the {MAX_FRAME_BYTES} that a tool may give or take"
        )
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into frames.

    Args:
        decode: makes a frame of its bytes, as `Decoder(ToWorker).decode`.
    """

    def __init__(self, decode: Any) -> None:
        self._decode = decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The frames that are complete with `data`. Raises ProtocolError for what is none."""
        buffer = self._buffer
        if not buffer and len(data) >= 4 and LENGTH.unpack_from(data)[0] == len(data) - 4:
            yield self._one(data[4:])  # nearly always: one frame, whole
            return
        buffer += data
        start = 0
        while len(buffer) - start >= 4:
            length = LENGTH.unpack_from(buffer, start)[0]
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes")
            end = start + 4 + length
            if len(buffer) < end:
                break
            # A copy: what is decoded may point into it.
            body = bytes(memoryview(buffer)[start + 4 : end])
            start = end
            yield self._one(body)
        del buffer[:start]

    def _one(self, body: bytes) -> Any:
        try:
            return self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"a frame that cannot be read: {error}") from None


def for_worker() -> Frames:
    """Reads what a gateway sends."""
    return Frames(msgspec.msgpack.Decoder(ToWorker).decode)


def for_gateway() -> Frames:
    """Reads what a worker sends."""
    return Frames(msgspec.msgpack.Decoder(FromWorker).decode)
