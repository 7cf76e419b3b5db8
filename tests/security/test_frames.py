"""The supervisor's frame reader, fuzzed in this process: no input may raise, hang, or be kept beyond a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onehop import protocol
from onehop.protocol import FROM_KERNEL, HEADER, HEADER_BYTES, MAX_KERNEL_FRAME_BYTES
from onehop.supervisor.link import READ_BYTES, Link
from onehop.supervisor.pipes import Pipes


@dataclass
class Record:
    """An owner that writes down what it is told."""

    frames: list[tuple[int, int, bytes]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    closed: bool = False
    output: bytearray = field(default_factory=bytearray)

    def on_frame(self, link: Link, kind: int, execution: int, payload: bytes) -> None:
        self.frames.append((kind, execution, payload))

    def on_output(self, link: Pipes, stream: str, data: bytes) -> None:
        self.output += data

    def on_violation(self, link: Link, what: str) -> None:
        self.violations.append(what)
        link.close()

    def on_channel_closed(self, link: Link) -> None:
        self.closed = True


async def feed(chunks: list[bytes]) -> Record:
    """Sends the chunks as a kernel would, then hangs up."""
    record = Record()
    link = Link(record, asyncio.get_running_loop(), "main")
    channel, *pipes = (os.dup(fd) for fd in link.kernel_fds)
    link.given()
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view and link.alive:
                with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    os.set_blocking(channel, False)
                    view = view[os.write(channel, view) :]
                await asyncio.sleep(0)
                assert len(link._buffer) <= MAX_KERNEL_FRAME_BYTES + HEADER_BYTES + READ_BYTES
        os.close(channel)
        channel = -1
        async with asyncio.timeout(10):
            while not record.closed and not record.violations:
                await asyncio.sleep(0)
    finally:
        for fd in (channel, *pipes):
            if fd >= 0:
                os.close(fd)
        link.close()
    return record


def reference(data: bytes) -> tuple[list[tuple[int, int, bytes]], bool]:
    """The frames in `data` up to the first that breaks the protocol, and whether one does."""
    frames: list[tuple[int, int, bytes]] = []
    while len(data) >= HEADER_BYTES:
        length, kind, execution = HEADER.unpack_from(data)
        if length > MAX_KERNEL_FRAME_BYTES or kind not in FROM_KERNEL:
            return frames, True
        if len(data) < HEADER_BYTES + length:
            break
        frames.append((kind, execution, data[HEADER_BYTES : HEADER_BYTES + length]))
        data = data[HEADER_BYTES + length :]
    return frames, False


good = st.builds(
    lambda kind, number, payload: HEADER.pack(len(payload), kind, number) + payload,
    st.sampled_from(sorted(FROM_KERNEL)), st.integers(0, 2**64 - 1), st.binary(max_size=300),
)  # fmt: skip
odd = st.builds(HEADER.pack, st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 2**64 - 1))
stream = st.lists(st.one_of(good, good, good, odd, st.binary(max_size=40)), max_size=30).map(b"".join)
relaxed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@relaxed
@given(data=stream, cuts=st.lists(st.integers(1, 200), max_size=20))
def test_the_reader_agrees_with_the_protocol_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    chunks, rest = [], data
    for cut in cuts:
        chunks.append(rest[:cut])
        rest = rest[cut:]
    record = asyncio.run(feed([*chunks, rest]))
    frames, broken = reference(data)
    assert record.frames == frames
    assert bool(record.violations) is broken


def test_many_small_frames_arrive_whole_and_in_order() -> None:
    """More than the reader takes in one turn."""
    data = b"".join(HEADER.pack(1, 17, n) + b"\x80" for n in range(5000))
    record = asyncio.run(feed([data]))
    assert [number for _, number, _ in record.frames] == list(range(5000))


DECODERS = [
    protocol.decode_done,
    protocol.decode_failure,
    protocol.decode_result,
    protocol.decode_porter_reply,
]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.parametrize("decode", DECODERS, ids=["done", "failure", "result", "porter reply"])
@relaxed
@given(data=st.one_of(st.binary(max_size=400), values.map(msgspec.msgpack.encode)))
def test_payloads_are_decoded_or_refused_by_one_kind_of_error(decode: object, data: bytes) -> None:
    """What every reader of a claim has to catch: ValueError (msgspec's errors are, and UnicodeDecodeError)."""
    assert callable(decode)
    with contextlib.suppress(ValueError):
        decode(data)


@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa0"], ids=["lists", "maps"])
@pytest.mark.parametrize("decode", DECODERS, ids=["done", "failure", "result", "porter reply"])
def test_a_million_levels_are_refused_and_do_not_crash(
    decode: Callable[[bytes], object], nest: bytes
) -> None:
    """A RecursionError would pass every `except ValueError` of the gateway and end its connection."""
    with pytest.raises(ValueError, match="nested"):
        decode(b"\x81\xa1x" + nest * 1_000_000 + b"\xc0")
