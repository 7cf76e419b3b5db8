"""Every frame that crosses the wall: between supervisor and kernel, and between gateway and file porter.

Inside a frame only msgpack is spoken (https://msgpack.org), never pickle. What arrives from a kernel
is a claim by a hostile process: a reader checks the header's length and kind before it reads on, and
the payload is decoded against a schema. This module is shipped into the sandbox: it may import the
standard library and msgspec, nothing else.

A frame is a 13-byte header, big-endian, and its payload:

    u32 payload length in bytes | u8 kind | u64 execution number | payload (msgpack)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, TypeVar

import msgspec

T = TypeVar("T")
HEADER = struct.Struct(">IBQ")
HEADER_BYTES = HEADER.size
MAX_KERNEL_FRAME_BYTES = 16 * 1024 * 1024
"""The longest payload that a kernel may send; a longer one is a `protocol_error`."""


class Kind(IntEnum):
    """What a frame on a kernel's channel means. Below 16: to the kernel; from 16 on: from the kernel."""

    EXECUTE = 1
    PROCEED = 2  # answers SYNC: everything written before it has been taken
    WARM_UP = 3  # run small cells, so that the first real one finds its pages copied; nobody is waiting
    ENTER = 4  # go to a folder, whose path below the workspace is the payload, before anything runs
    RETURN = 5  # what became of a call: u32 number of the call, and Return
    READY = 16
    RESULT = 17
    FAILURE = 18
    SYNC = 19
    DONE = 20
    WARM = 21  # answers WARM_UP
    CALL = 22  # the code calls a tool: u32 number of the call (1, 2, … per execution, without gaps), and Call
    BLOCKED = 23  # u32: nothing but calls of tools that wait can make the code go on; RETURNs received so far


FROM_KERNEL = frozenset(kind for kind in Kind if kind >= Kind.READY)


class ImportRules(msgspec.Struct, omit_defaults=True):
    """Which modules code may import: top-level names or dotted prefixes. A guard rail, no wall.

    Args:
        allow: nothing but these, if not None.
        deny: not these.
    """

    allow: list[str] | None = None
    deny: list[str] = []


class Execute(msgspec.Struct, omit_defaults=True):
    """Run one cell.

    Args:
        code: Python source (IPython syntax allowed).
        stdin: what `input()` reads, line by line.
        env: environment variables, set while this cell runs.
        catalogue: id of the catalogue of the tools that it may call; empty: none.
        imports: what it may import; None: everything there is.
    """

    code: str
    stdin: str = ""
    env: dict[str, str] = {}
    catalogue: str = ""
    imports: ImportRules | None = None


class Result(msgspec.Struct, omit_defaults=True):
    """Something displayed: MIME type → text, and MIME type → bytes. `final` marks the cell's value."""

    # The bound is checked on the msgpack header, before any element is decoded: a 16 MiB frame of empty
    # entries would otherwise cost half a gigabyte.
    text: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}
    binary: Annotated[dict[str, bytes], msgspec.Meta(max_length=64)] = {}
    final: bool = False

    @property
    def data(self) -> dict[str, str | bytes]:
        """Both as one."""
        return {**self.text, **self.binary}


class Failure(msgspec.Struct):
    """The code raised. `traceback` has no ANSI codes and none of our own frames."""

    name: str
    value: str
    traceback: str


class Done(msgspec.Struct, omit_defaults=True):
    """The cell has ended, with `status` `ok`, `error` or `interrupted`."""

    status: str
    count: int = 0


def pack(kind: int, execution: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(len(payload), kind, execution) + payload


encode = msgspec.msgpack.Encoder().encode


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    """A decoder that raises ValueError, whatever it gets: DecodeError, or UnicodeDecodeError."""
    decode = msgspec.msgpack.Decoder(kind).decode

    def read(raw: bytes) -> T:
        try:
            return decode(raw)
        except RecursionError:  # a million nested lists; no reader must have to think of that
            raise msgspec.DecodeError("it is nested too deeply") from None

    return read


decode_execute = _reader(Execute)
decode_result = _reader(Result)
decode_failure = _reader(Failure)
decode_done = _reader(Done)


# --- tools ---------------------------------------------------------------------------------------
# CALL and RETURN begin with the number of the call, all that the supervisor reads of them; BLOCKED is
# nothing but a number.

CALL_NUMBER = struct.Struct(">I")
CATALOGUE_TOOL = "$catalogue"
"""The name by which a kernel asks for its catalogue: no arguments, the value is a list of ToolEntry."""
MAX_CALL_BYTES = 4 * 1024 * 1024
"""The longest payload of a CALL."""
MAX_CALLS = 100_000
"""Calls of one execution."""
MAX_PENDING_CALLS = 4096
MAX_PENDING_CALL_BYTES = 64 * 1024 * 1024
"""Calls of one execution that are not answered, and their payloads together."""
MAX_RETURN_BYTES = 32 * 1024 * 1024
"""The longest payload of a RETURN, files included."""

CALL_ERRORS = (
    "not_found",
    "bad_arguments",
    "failed",
    "timeout",
    "budget",
    "denied",
    "unavailable",
    "outcome_unknown",
    "bad_result",
)


class Call(msgspec.Struct, omit_defaults=True):
    """One use of a tool. `arguments` by name, plain JSON data."""

    name: str
    arguments: dict[str, Any] = {}


class CallError(msgspec.Struct, omit_defaults=True):
    """Why a call has no value.

    Args:
        kind: one of CALL_ERRORS.
        message: for whoever wrote the code: what was wrong, what to do.
        parameters: the valid ones, the `properties` of the tool's JSON Schema.
    """

    kind: str
    message: str
    parameters: dict[str, Any] = {}


class Return(msgspec.Struct, omit_defaults=True):
    """What became of a call.

    Args:
        value: plain JSON data, if there is no error.
        error: why there is no value.
        files: path below the workspace → content; the kernel writes them before the code gets the value.
    """

    value: Any = None
    error: CallError | None = None
    files: dict[str, bytes] = {}


class ToolEntry(msgspec.Struct, omit_defaults=True):
    """A tool as a catalogue lists it.

    Args:
        name: what a Call names.
        path: dotted Python path below `tools`, as in `weather.forecast`.
        description: for people and models.
        parameters: JSON Schema of an object.
        returns: JSON Schema of the value, None where nobody knows.
        waits: its result comes from the client, or somebody has to approve the call.
        read_only: it changes nothing.
    """

    name: str
    path: str
    description: str = ""
    parameters: dict[str, Any] = {}
    returns: dict[str, Any] | None = None
    waits: bool = False
    read_only: bool = False


def pack_call(number: int, call: Call) -> bytes:
    """The payload of a CALL."""
    return CALL_NUMBER.pack(number) + encode(call)


def pack_return(number: int, answer: Return) -> bytes:
    """The payload of a RETURN."""
    return CALL_NUMBER.pack(number) + encode(answer)


def brief_call(payload: bytes) -> bytes:
    """A CALL's payload without its arguments, which nobody needs any more once it is answered."""
    try:
        name = _decode_named(payload[CALL_NUMBER.size :]).name
    except ValueError:
        name = ""  # it was no Call, and its kernel's own problem
    return payload[: CALL_NUMBER.size] + encode(Call(name))


def call_number(payload: bytes) -> int:
    """Of a CALL's or a RETURN's payload, or BLOCKED's count. Raises ValueError when it is too short for one."""
    if len(payload) < CALL_NUMBER.size:
        raise msgspec.DecodeError("it has no number")
    number: int = CALL_NUMBER.unpack_from(payload)[0]
    return number


class _Named(msgspec.Struct):
    name: str


_decode_named = _reader(_Named)
decode_call = _reader(Call)
decode_return = _reader(Return)
decode_catalogue = _reader(list[ToolEntry])


# --- the file porter ---------------------------------------------------------------------------
# A porter is a process of the sandbox that never runs user code. It answers requests about the
# workspace on a stream socket, one after the other: request frame in, then (for `write` and `unpack`)
# data frames in, an empty one ends them; reply frame out, then (for `read` and `pack`) data frames out,
# an empty one ends them; after those of `pack` a second reply says whether the archive is whole.
# Frames here are u32 length, big-endian, and payload.

PORTER_HEADER = struct.Struct(">I")
PORTER_CHUNK_BYTES = 256 * 1024
MAX_PORTER_FRAME_BYTES = 8 * 1024 * 1024

ARCHIVE_FORMATS = ("tar", "tar.gz", "zip")


class PorterRequest(msgspec.Struct, omit_defaults=True):
    """`operation` is one of `list`, `stat`, `read`, `write`, `delete`, `move`, `pack`, `unpack`.

    Args:
        path: relative to the workspace, checked with `check_path`; may be empty, for the workspace itself,
            where a folder is meant: `list`, `pack`, `unpack`.
        limit: for `list` the most entries to return.
        offset: for `read` the first byte, counted from the end if negative.
        length: for `read` the most bytes, all if negative.
        target: for `move` the new path.
        overwrite: for `move` whether a file there may be replaced.
        recursive: for `delete` whether a folder may go with all that is in it.
        format: for `pack` and `unpack` one of ARCHIVE_FORMATS.
    """

    operation: str
    path: str = ""
    limit: int = 10_000
    offset: int = 0
    length: int = -1
    target: str = ""
    overwrite: bool = False
    recursive: bool = False
    format: str = ""


class Entry(msgspec.Struct):
    """A regular file of the workspace. `modified_ns` and `inode` tell a changed file from an old one."""

    path: str
    bytes: int
    modified_ns: int
    inode: int = 0


class PorterReply(msgspec.Struct, omit_defaults=True):
    """What became of a request.

    Args:
        error: empty, or one of `not_found`, `not_regular`, `not_folder`, `exists`, `no_space`, `bad_path`,
            `bad_archive`, `denied`, `failed`.
        detail: the error for people.
        entries: the files that were asked about, written or unpacked.
        truncated: there are more than `entries` has.
        left_out: of `pack`, how many things are not in the archive because they are no regular files.
        left_out_names: some of them.
    """

    error: str = ""
    detail: str = ""
    entries: list[Entry] = []
    truncated: bool = False
    left_out: int = 0
    left_out_names: list[str] = []


decode_porter_request = _reader(PorterRequest)
decode_porter_reply = _reader(PorterReply)

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255  # NAME_MAX of Linux


def check_path(path: str) -> str | None:
    """Why `path` cannot name a file in the workspace, or None when it can.

    The check is lexical; symlinks are refused by the kernel when the file is opened (openat2).
    """
    if not path:
        return "is empty"
    if "\0" in path:
        return "holds a NUL character"
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if path.startswith("/"):
        return "is absolute; give it relative to the workspace"
    if len(raw) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    for part in path.split("/"):
        if part in ("", "."):
            return "has an empty or '.' component"
        if part == "..":
            return "contains '..'"
        if len(part.encode()) > MAX_NAME_BYTES:
            return f"has a component longer than {MAX_NAME_BYTES} bytes"
    return None


def plain(value: Any) -> Any:
    """`value` as plain lists, dicts, strings and numbers (for logs and tests)."""
    return msgspec.to_builtins(value)
