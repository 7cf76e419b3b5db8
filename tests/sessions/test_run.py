"""From the supervisor's events to the answer: text, results, ends, and what a hostile kernel may claim."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from onehop import protocol
from onehop.sessions.answers import FileInfo, TextEvent
from onehop.sessions.run import Run, encode_json, read_stored
from onehop.supervisor.messages import End, Event, Usage, encode

USAGE = Usage(wall_ms=1.0, cpu_ms=0.5, peak_memory_bytes=1000)


class Fed:
    """A run with its events numbered."""

    def __init__(self) -> None:
        self.violations = 0
        self.run = Run("exe_1", "ses_1", on_violation=self._violated, sandbox="sbx1")
        self.run.when_ended(self._complete)
        self._number = 0

    @staticmethod
    def _complete(run: Run) -> None:
        run.complete([])

    def _violated(self, _: Run) -> None:
        self.violations += 1

    def feed(self, kind: str, payload: bytes) -> None:
        self._number += 1
        self.run.take(Event("exe_1", self._number, kind, payload))

    def end(self, status: str = "ok") -> None:
        self.feed("end", encode(End(status, USAGE)))


async def test_characters_split_over_events() -> None:
    fed = Fed()
    euro = "€".encode()
    fed.feed("stdout", b"a" + euro[:1])
    fed.feed("stderr", b"\xff")
    fed.feed("stdout", euro[1:])
    fed.feed("stdout", euro[:2])
    fed.end()
    answer = fed.run.answer
    assert answer is not None
    assert answer.stdout == "a€\N{REPLACEMENT CHARACTER}"
    assert answer.stderr == "\N{REPLACEMENT CHARACTER}"
    texts = [data.text for kind, data in fed.run.events if kind == "stdout" and isinstance(data, TextEvent)]
    assert texts == ["a", "€", "", "\N{REPLACEMENT CHARACTER}"]
    assert [kind for kind, _ in fed.run.events][-1] == "end"


async def test_results_and_failure() -> None:
    fed = Fed()
    fed.feed("result", protocol.encode(protocol.Result({"text/plain": "x"}, {"image/png": b"\x89PNG"})))
    fed.feed("failure", protocol.encode(protocol.Failure("ValueError", "no", "Traceback…")))
    fed.end("error")
    answer = await fed.run.wait()
    assert answer.results == [{"text/plain": "x", "image/png": "iVBORw=="}]
    assert answer.error is not None
    assert answer.error.name == "ValueError"
    assert msgspec.json.decode(fed.run.document())["status"] == "error"


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("result", b""),
        ("result", b"\xc1"),
        ("result", msgspec.msgpack.encode([1])),
        ("result", msgspec.msgpack.encode({"text": {"a": 1}})),
        ("result", msgspec.msgpack.encode({"text": {str(n): "" for n in range(1000)}})),
        ("result", b"\x81\xa4text\x81\xa1\xff\xa1a"),
        ("failure", msgspec.msgpack.encode({"name": "x"})),
        ("failure", b"\xdf\xff\xff\xff\xff"),
    ],
)
async def test_a_payload_that_does_not_fit_is_a_protocol_error(kind: str, payload: bytes) -> None:
    fed = Fed()
    fed.feed("stdout", b"before")
    fed.feed(kind, payload)
    fed.feed("stdout", b"after")
    assert fed.violations == 1
    fed.end("killed")
    answer = fed.run.answer
    assert answer is not None
    assert (answer.status, answer.stdout, answer.variables) == ("protocol_error", "before", "lost")


async def test_a_lost_supervisor_is_an_unknown_outcome() -> None:
    fed = Fed()
    fed.run.take(None)
    assert fed.run.answer is not None
    assert fed.run.answer.status == "outcome_unknown"


async def test_followers_see_the_same_numbers_whenever_they_come() -> None:
    fed = Fed()
    fed.feed("stdout", b"1")
    seen: list[int] = []

    async def follow() -> None:
        async for events in fed.run.follow(0, pause_s=30):
            seen.extend(number for number, _ in events)

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0)  # the follower has taken what is there
    fed.feed("stdout", b"2")
    fed.end()
    await follower
    assert seen == [1, 2, 3]
    late = [number async for events in fed.run.follow(1, pause_s=30) for number, _ in events]
    assert late == [2, 3]
    assert [events async for events in fed.run.follow(3, pause_s=30)] == []


async def test_a_pause_is_an_empty_list() -> None:
    fed = Fed()
    async for events in fed.run.follow(0, pause_s=0.01):
        assert events == []
        break


async def test_a_waiter_that_gives_up_takes_nothing_from_others() -> None:
    fed = Fed()
    first = asyncio.create_task(fed.run.wait())
    second = asyncio.create_task(fed.run.wait())
    await asyncio.sleep(0)
    first.cancel()
    fed.end()
    assert (await second).status == "ok"


async def test_stored_events_mark_what_was_left_out() -> None:
    fed = Fed()
    for number in range(5):
        fed.feed("stdout", b"x" * 10 * (number + 1))
    fed.end()
    one = len(encode_json(TextEvent("x" * 10)))
    document, events = fed.run.encoded(one)
    assert msgspec.json.decode(document)["stdout"] == "x" * 150
    found = read_stored(events, 0)
    assert [(number, kind) for number, kind, _ in found] == [(1, "stdout"), (5, "gap"), (6, "end")]
    assert msgspec.json.decode(found[1][2]) == {"first": 2, "last": 5}
    assert [(number, kind) for number, kind, _ in read_stored(events, 3)] == [(5, "gap"), (6, "end")]
    assert read_stored(events, 6) == []


async def test_contents_of_files_are_not_stored() -> None:
    run = Run("exe_1", None, on_violation=lambda _: None)
    run.take(Event("exe_1", 1, "end", encode(End("ok", USAGE))))
    run.complete([FileInfo("a", 3, base64="AAAA")])
    assert b"AAAA" in run.document()
    document, events = run.encoded(1000)
    assert b"AAAA" not in document
    assert b"AAAA" not in events
