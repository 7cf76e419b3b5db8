"""What gateway and Monty worker say to each other: frames of a length (u32, big endian) and msgpack.

A worker has one call at a time and answers each with one Reply.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec

HEADER = struct.Struct(">I")
MAX_FRAME_BYTES = 64 * 1024 * 1024


class Job(msgspec.Struct, array_like=True):
    """One call.

    Args:
        arguments: JSON of [args, kwargs].
        slice_s: wall seconds it may take.
        memory_bytes: what Monty may allocate.
        only_check: nothing runs: the reply is `value`, `unfit`, or `raised` for what is no Python.
    """

    code: str
    arguments: bytes
    slice_s: float
    memory_bytes: int
    only_check: bool = False


class Reply(msgspec.Struct, array_like=True):
    """What came of it.

    Args:
        kind: `value`; `refused`: it is no JSON; `unfit`: not for Monty; `raised`; `time` and `memory`: over a
            limit; `lost`: the process ended amid the call; `ready`: it can take the first.
        text: JSON of the value, or one sentence.
        name: of the exception.
        traceback: of the exception.
        run_ms, cpu_ms: in Monty; CPU time of the whole worker.
    """

    kind: Literal["value", "refused", "unfit", "raised", "time", "memory", "lost", "ready"]
    text: str = ""
    name: str = ""
    traceback: str = ""
    run_ms: float = 0.0
    cpu_ms: float = 0.0


encode = msgspec.msgpack.Encoder().encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Job | Reply) -> bytes:
    body = encode(message)
    return HEADER.pack(len(body)) + body
