"""What a hostile kernel may say about calls of tools: a lie ends its own session, and nobody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onehop import protocol
from onehop.protocol import MAX_CALL_BYTES, MAX_CALLS, MAX_PENDING_CALL_BYTES, MAX_PENDING_CALLS, Kind
from onehop.supervisor.link import MAX_UNSENT_BYTES
from onehop.supervisor.spawn import SupervisorHandle
from tests.calls import Host, entry
from tests.driver import Driver
from tests.security.test_channel import MIB, VOICE
from tests.security.test_output import supervisor_rss_bytes

Watched = Callable[[], AbstractContextManager[None]]
TOOLS = f"""{VOICE}
CALL, BLOCKED = {int(Kind.CALL)}, {int(Kind.BLOCKED)}
def u32(number): return struct.pack('>I', number)
def call(number, body=b'\\x81\\xa4name\\xa1x', execution=1): say(CALL, u32(number) + body, execution)
def blocked(count=0, execution=1): say(BLOCKED, u32(count), execution)
"""
LIES = {
    "a call twice": "call(1); call(1)",
    "a call out of order": "call(2)",
    "call nought": "call(0)",
    "the last number first": f"call({MAX_CALLS})",
    "the greatest number": "call(0xFFFFFFFF)",
    "a call of no execution": "call(1, execution=0)",
    "a call of another execution": "call(1, execution=2)",
    "a call of the far future": "call(1, execution=2**64 - 1)",
    "a call without a number": "say(CALL, b'\\0\\0')",
    "an empty call": "say(CALL)",
    "four GiB announced": "channel.sendall(header(0xFFFFFFFF, CALL))",
    "a call that is too long": f"call(1, bytes({MAX_CALL_BYTES} + 1))",
    "too many pending": f"channel.sendall(b''.join(header(7, CALL) + u32(n) + b'xyz' for n in range(1, {MAX_PENDING_CALLS} + 2)))",
    "too much pending": f"for n in range(1, {MAX_PENDING_CALL_BYTES // MAX_CALL_BYTES} + 2): call(n, bytes({MAX_CALL_BYTES} - 4))",
    "blocked without a call": "blocked()",
    "blocked after answers that never were": "call(1); blocked(1)",
    "blocked twice": "call(1); blocked(); blocked()",
    "a flood of blocked": "call(1)\nwhile True: channel.sendall((header(4, BLOCKED) + u32(0)) * 1000)",
    "blocked without a number": "call(1); say(BLOCKED)",
    "blocked with more than a number": "call(1); say(BLOCKED, bytes(5))",
    "blocked of another execution": "call(1); blocked(execution=2)",
    "an answer to itself": f"say({int(Kind.RETURN)}, u32(1) + b'\\x80')",
    "after the end": "call(1); say(DONE, OK); call(2)",
    "blocked after the end": "call(1); say(DONE, OK); blocked()",
}  # fmt: skip
AFTER_THE_END = ("after the end", "blocked after the end")


@pytest.fixture
def host(driver: Driver) -> Host:
    return Host(driver, [entry("x")], {})


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_calls_ends_its_session(driver: Driver, watched: Watched, host: Host, name: str) -> None:
    with watched(), driver.session() as session:
        code = f"{TOOLS}\ntry:\n    {LIES[name].replace(chr(10), chr(10) + '    ')}\nexcept OSError: pass\ntime.sleep(60)"
        outcome = host.begin(session, code).wait()
        if name in AFTER_THE_END:
            assert outcome.status == "ok"
        else:
            assert (outcome.status, outcome.end.session) == ("protocol_error", "ended"), outcome.document()


@pytest.mark.parametrize("name", ["a call out of order", "a flood of blocked", "a call of another execution"])
def test_a_forked_childs_lie_counts_the_same(driver: Driver, watched: Watched, host: Host, name: str) -> None:
    lie = LIES[name].replace("\n", "\n        ")
    code = f"{TOOLS}\nif os.fork() == 0:\n    try:\n        {lie}\n    finally:\n        os._exit(0)\ntime.sleep(60)"
    with watched(), driver.session() as session:
        outcome = host.begin(session, code).wait()
        assert (outcome.status, outcome.end.session) == ("protocol_error", "ended"), outcome.document()


def test_without_tools_there_is_no_call(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session() as session:
        outcome = session.run(f"{TOOLS}\ncall(1)\ntime.sleep(60)")
        assert (outcome.status, outcome.end.session) == ("protocol_error", "ended"), outcome.document()


def test_a_true_call_by_hand_passes(driver: Driver, host: Host) -> None:
    """The positive control: the same helpers, in order."""
    with driver.session() as session:
        started = host.begin(session, f"{TOOLS}\ncall(1); call(2); blocked()\n'fine'")
        outcome = started.wait()
        assert (outcome.status, started.count("call"), started.count("blocked")) == ("ok", 2, 1)


def test_calls_that_nobody_reads_the_results_of(
    driver: Driver, watched: Watched, supervisor: SupervisorHandle, host: Host
) -> None:
    """Results are kept for a kernel that is busy, but not without end."""
    big, most = bytes(8 * MIB), MAX_UNSENT_BYTES // (8 * MIB) + 1
    before = supervisor_rss_bytes(supervisor)
    with watched(), driver.session() as session:
        started = host.begin(session, f"{TOOLS}\nfor n in range(1, {most + 1}): call(n)\ntime.sleep(60)")
        started.until_event("call", most)
        for number in range(1, most + 1):
            started.answer(number, big)
            # As a gateway's answers come, one by one: all at once would be a queue that we made ourselves.
            driver.wait(driver.client.describe())
        outcome = started.wait()
        assert (outcome.status, outcome.end.session) == ("protocol_error", "ended"), outcome.document()
        assert "without reading their results" in outcome.end.reason
    assert supervisor_rss_bytes(supervisor) - before < 400 * MIB


def test_big_results_are_no_lie_of_a_kernel_that_prints(driver: Driver, host: Host) -> None:
    """Unread results must not be taken for unread answers to SYNC."""
    host.functions = {"x": lambda: "r" * MIB}
    code = (
        "import sys, time\ncalls = [tools.x.aio() for n in range(20)]\ntime.sleep(0.3)\n"
        "for n in range(200):\n    print(n); print(n, file=sys.stderr)\n"
        "sum([len(await one) for one in calls])"
    )
    with driver.session() as session:
        outcome = host.begin(session, code).wait()
        assert outcome.status == "ok", outcome.document()
        assert outcome.results == [{"text/plain": str(20 * MIB)}]


DECODERS = [protocol.decode_call, protocol.decode_return, protocol.decode_catalogue, protocol.call_number]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
relaxed = settings(max_examples=150, deadline=None, derandomize=True)


@pytest.mark.parametrize("decode", DECODERS, ids=["call", "return", "catalogue", "number"])
@relaxed
@given(data=st.one_of(st.binary(max_size=400), values.map(msgspec.msgpack.encode)))
def test_payloads_of_calls_are_decoded_or_refused_by_one_kind_of_error(
    decode: Callable[[bytes], object], data: bytes
) -> None:
    with contextlib.suppress(ValueError):
        decode(data)


@relaxed
@given(data=st.one_of(st.binary(max_size=400), values.map(msgspec.msgpack.encode)))
def test_a_call_in_the_log_is_short_whatever_it_was(data: bytes) -> None:
    brief = protocol.brief_call(protocol.CALL_NUMBER.pack(7) + data)
    assert protocol.call_number(brief) == 7
    assert protocol.decode_call(brief[4:]).arguments == {}


@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa0"], ids=["lists", "maps"])
def test_a_million_levels_in_a_call(nest: bytes) -> None:
    body = b"\x82\xa4name\xa1x\xa9arguments\x81\xa1a" + nest * 1_000_000 + b"\xc0"
    with pytest.raises(ValueError, match="nested"):
        protocol.decode_call(body)
    assert protocol.decode_call(protocol.brief_call(bytes(4) + body)[4:]).arguments == {}
