"""Server-sent events, whole whatever the places where their bytes were cut."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onehop.agent.upstreams.sse import Events
from onehop.errors import UpstreamError

STREAM = (
    "\ufeff: a comment\n\n"
    'data: {"a": 1}\n\n'
    "event: ping\r\ndata: x\r\n\r\n"
    "data: one\ndata:two\ndata\ndata:  three\n\n"
    "id: 7\nretry: 10\nevent: named\ndata: grün \U0001f40d\n\n\n\n"
    "event: dropped\n\n"
    "data: after\rdata: cr\r\r"
    "data: [DONE]\n\n"
    "data: never ended"
).encode()
EXPECTED = [
    ("", '{"a": 1}'),
    ("ping", "x"),
    ("", "one\ntwo\n\n three"),
    ("named", "grün \U0001f40d"),
    ("", "after\ncr"),
    ("", "[DONE]"),
]


def read(chunks: list[bytes]) -> list[tuple[str, str]]:
    events = Events()
    return [event for chunk in chunks for event in events.feed(chunk)]


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(edges)]


def test_the_whole_stream_at_once_and_byte_by_byte() -> None:
    assert read([STREAM]) == EXPECTED
    assert read([STREAM[at : at + 1] for at in range(len(STREAM))]) == EXPECTED


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_cuts_anywhere(places: list[int]) -> None:
    assert read(cut(STREAM, places)) == EXPECTED


def test_every_single_cut() -> None:
    for place in range(len(STREAM) + 1):
        assert read(cut(STREAM, [place])) == EXPECTED, place


def test_an_event_comes_out_with_the_bytes_that_end_it() -> None:
    events = Events()
    assert events.feed(b"data: x\n") == []
    assert events.feed(b"\n") == [("", "x")]
    assert events.feed(b"data: y\r\n\r") == [("", "y")], "a CR ends a line without waiting for an LF"
    assert events.feed(b"\ndata: z\n\n") == [("", "z")]


def test_bytes_that_are_no_utf8_do_not_end_the_stream() -> None:
    assert read([b"data: a\xffb\n\n"]) == [("", "a\ufffdb")]


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: " + b"x" * 94 + b"\n"], ids=["one line", "many lines"])
def test_an_event_without_an_end_is_refused(piece: bytes) -> None:
    events = Events(max_bytes=10_000)
    for _ in range(100):
        events.feed(piece)
    with pytest.raises(UpstreamError, match="more than 10000 bytes"):
        events.feed(piece)


def test_a_large_event_in_small_pieces_takes_linear_time() -> None:
    """Quadratic would be 16 MiB times 16 thousand chunks: minutes."""
    events = Events()
    size = 16 * 1024 * 1024
    events.feed(b"data: ")
    for _ in range(size // 1024):
        assert events.feed(b"x" * 1024) == []
    ((_, data),) = events.feed(b"\n\n")
    assert len(data) == size


def test_random_streams_are_read_as_they_were_written() -> None:
    chosen = random.Random(5)
    alphabet = 'ab:{}" é\U0001f40d'
    for _ in range(200):
        wanted = [
            (
                chosen.choice(["", "delta", "a b"]),
                "\n".join(
                    "".join(chosen.choices(alphabet, k=chosen.randint(1, 9)))
                    for _ in range(chosen.randint(1, 3))
                ),
            )
            for _ in range(chosen.randint(1, 8))
        ]
        end = chosen.choice(["\n", "\r\n"])
        text = "".join(
            (f"event: {name}{end}" if name else "")
            + "".join(f"data: {line}{end}" for line in data.split("\n"))
            + end
            for name, data in wanted
        ).encode()
        places = [chosen.randint(0, len(text)) for _ in range(12)]
        assert read(cut(text, places)) == wanted
