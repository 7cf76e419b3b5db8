"""What a kernel may say on its channel: everything else ends its own session, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from onehop.protocol import MAX_KERNEL_FRAME_BYTES, Kind
from onehop.supervisor.spawn import SupervisorHandle
from tests.driver import Driver
from tests.security.test_output import supervisor_rss_bytes

Watched = Callable[[], AbstractContextManager[None]]
MIB = 1 << 20

# `say` writes on the channel; number 1 is the execution that is running.
VOICE = f"""
import array, os, socket, struct, time
channel = socket.socket(fileno=os.dup(3))
READY, RESULT, FAILURE, SYNC, DONE = {[int(k) for k in (Kind.READY, Kind.RESULT, Kind.FAILURE, Kind.SYNC, Kind.DONE)]}
def header(length, kind, number=1): return struct.pack('>IBQ', length, kind, number)
def say(kind, payload=b'', number=1): channel.sendall(header(len(payload), kind, number) + payload)
def text(value): return b'\\xd9' + bytes([len(value)]) + value
OK = b'\\x81' + text(b'status') + text(b'ok')
"""

LIES = {
    "two GiB announced": "channel.sendall(header(2 << 30, RESULT))",
    "four GiB announced": "channel.sendall(header(0xFFFFFFFF, DONE))",
    "a byte too long": f"channel.sendall(header({MAX_KERNEL_FRAME_BYTES + 1}, RESULT))",
    "unknown kind": "say(99)",
    "a kind for kernels": "say(1, b'\\x80')",
    "kind zero": "channel.sendall(bytes(13))",
    "foreign execution": "say(DONE, OK, number=2)",
    "execution of the far future": "say(RESULT, b'\\x80', number=2**64 - 1)",
    "execution zero": "say(DONE, OK, number=0)",
    "a second READY": "say(READY, number=0)",
    "random bytes": "channel.sendall(os.urandom(1 << 20))",
    "end with an unknown status": "say(DONE, b'\\x81' + text(b'status') + text(b'out_of_memory'))",
    "end without a status": "say(DONE, b'\\x80')",
    "empty end": "say(DONE)",
    "end with NaN as count": "say(DONE, b'\\x82' + OK[1:] + text(b'count') + b'\\xcb\\x7f\\xf8' + bytes(6))",
    "end with invalid UTF-8": "say(DONE, b'\\x81' + text(b'status') + text(b'\\xff\\xfe'))",
    "end with a huge announced map": "say(DONE, b'\\xdf\\xff\\xff\\xff\\xff')",
    "end cut off": "say(DONE, OK[:-1])",
    "deeply nested end": "say(DONE, b'\\x82' + OK[1:] + text(b'x') + b'\\x91' * 1_000_000 + b'\\xc0')",
    "deeply nested map": "say(DONE, b'\\x82' + OK[1:] + text(b'x') + b'\\x81\\xa0' * 1_000_000 + b'\\xc0')",
    "pickle": "import pickle; say(DONE, pickle.dumps({'status': 'ok'}))",
    "two failures": "one = b'\\x83' + b''.join(text(n) + text(b'x') for n in (b'name', b'value', b'traceback')); say(FAILURE, one); say(FAILURE, one)",
    "after the end": "say(DONE, OK); say(RESULT, b'\\x80')",
    "two ends": "say(DONE, OK); say(DONE, OK)",
    "questions without reading the answers": "while True: channel.sendall(header(0, SYNC) * 1000)",
}  # fmt: skip
AFTER_THE_END = ("after the end", "two ends")
ENDINGS = {"stays": "time.sleep(60)", "exits": "os._exit(0)"}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", LIES)
def test_a_lie_ends_the_session_with_protocol_error(
    driver: Driver, watched: Watched, name: str, ending: str
) -> None:
    with watched(), driver.session() as session:
        outcome = session.run(
            f"{VOICE}\ntry:\n    {LIES[name]}\nexcept OSError: pass\n{ENDINGS[ending]}", timeout_s=20
        )
        if name in AFTER_THE_END:
            # The first end was a claim about itself; what came after it ends the session.
            assert outcome.status == "ok"
            _ended(driver, session.id)
        else:
            assert (outcome.status, outcome.end.session) == ("protocol_error", "ended"), outcome.document()


def _ended(driver: Driver, sandbox: str) -> None:
    import time

    deadline_s = time.monotonic() + 10
    while sandbox in {info.id for info in driver.wait(driver.client.sandboxes())}:
        assert time.monotonic() < deadline_s, "the session lives on"


@pytest.mark.parametrize(
    "name", ["two GiB announced", "foreign execution", "deeply nested end", "random bytes"]
)
def test_a_lie_of_a_forked_child_counts_the_same(driver: Driver, watched: Watched, name: str) -> None:
    code = f"{VOICE}\nif os.fork() == 0:\n    os.setsid()\n    try:\n        {LIES[name]}\n    finally:\n        os._exit(0)\ntime.sleep(60)"
    with watched(), driver.session() as session:
        outcome = session.run(code, timeout_s=20)
        assert (outcome.status, outcome.end.session) == ("protocol_error", "ended"), outcome.document()


@pytest.mark.parametrize(
    "half",
    ["channel.sendall(b'\\0')", "channel.sendall(header(100, RESULT))", "channel.sendall(header(100, DONE) + b'x' * 99)",
     f"channel.sendall(header({MAX_KERNEL_FRAME_BYTES}, RESULT) + b'x' * {MAX_KERNEL_FRAME_BYTES - 1})"],
    ids=["of a header", "without payload", "without its last byte", "of 16 MiB"],
)  # fmt: skip
def test_half_a_frame_and_an_exit(driver: Driver, watched: Watched, half: str) -> None:
    with watched(), driver.session() as session:
        outcome = session.run(f"{VOICE}\n{half}\nos._exit(0)", timeout_s=20)
        assert outcome.status in ("kernel_died", "protocol_error"), outcome.document()
        assert outcome.end.variables == "lost"
        assert outcome.end.usage.wall_ms < 10_000


def test_half_a_frame_and_a_wait_ends_at_the_deadline(driver: Driver, watched: Watched) -> None:
    with watched(), driver.session() as session:
        outcome = session.run(f"{VOICE}\nchannel.sendall(header(1000, RESULT))\ntime.sleep(60)", timeout_s=1)
        assert outcome.status in ("timeout", "protocol_error")


def test_false_results_hurt_only_their_own_answer(driver: Driver, watched: Watched) -> None:
    """Results are passed on as they are; whoever decodes them must expect anything (see sessions/)."""
    with watched(), driver.session() as session:
        raw: list[bytes] = []
        work = session.start(
            f"{VOICE}\nfor p in (b'', b'\\xc1', b'\\x91' * 100_000, b'\\xdf\\xff\\xff\\xff\\xff'): say(RESULT, p)\nos._exit(0)",
            on_event=lambda event: raw.append(event.payload) if event.kind == "result" else None,
        )
        with pytest.raises(ValueError):  # the test's own decoding
            driver.wait(work)
        assert len(raw) == 4


def test_descriptors_on_the_channel_are_refused_or_dropped(driver: Driver, watched: Watched) -> None:
    """SO_PASSRIGHTS refuses them (Linux 6.16); before, reading without asking for them drops them."""
    with watched(), driver.session() as session:
        outcome = session.run(
            f"""{VOICE}
import errno
many = array.array('i', [os.open('/dev/null', os.O_RDONLY)] * 200)
answers = set()
for n in range(2000):
    try:
        channel.sendmsg([header(0, SYNC)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
        channel.recv(13)
        answers.add('taken')
    except OSError as error:
        answers.add(errno.errorcode[error.errno])
print(sorted(answers))
""",
            timeout_s=30,
        )
        assert outcome.status == "ok", outcome.document()
        assert outcome.stdout in ("['EPERM']\n", "['taken']\n")
        assert session.run("1+1").status == "ok"


def test_a_socket_that_lingers_cannot_freeze_the_supervisor(driver: Driver, watched: Watched) -> None:
    """Whoever drops the last reference waits in close(): six seconds of everybody's time, before it was refused."""
    with watched(), driver.session() as session:
        session.run(
            f"""{VOICE}
listener = socket.create_server(('127.0.0.1', 0))
slow = socket.create_connection(listener.getsockname()); peer, _ = listener.accept()
slow.setblocking(False)
try:
    while True: slow.send(b'x' * 65536)
except BlockingIOError: pass
try: slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 6))
except OSError: pass
try: channel.sendmsg([header(0, SYNC)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [slow.fileno()]))])
except OSError: pass
slow.close()
time.sleep(1)
""",
            timeout_s=20,
        )


FLOODS = {
    "questions": "while time.monotonic() < end:\n    channel.sendall(header(0, SYNC) * 500); read(500 * 13)",
    "results": "while time.monotonic() < end: channel.sendall((header(1, RESULT) + b'\\x80') * 1000)",
    "big results": "big = header(15 << 20, RESULT) + bytes(15 << 20)\nwhile time.monotonic() < end: channel.sendall(big)",
    "frames and text": "while time.monotonic() < end:\n    channel.sendall((header(1, RESULT) + b'\\x80') * 100); os.write(1, b'x' * 60000)",
}  # fmt: skip
FLOOD_ENDS = ("kernel_died", "protocol_error", "output_limit")
READ = """
def read(count):
    while count: count -= len(channel.recv(count))
end = time.monotonic() + 2
"""


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_leaves_turns_and_memory_for_others(
    driver: Driver, watched: Watched, supervisor: SupervisorHandle, name: str
) -> None:
    before = supervisor_rss_bytes(supervisor)
    with watched(), driver.session() as session:
        running = driver.submit(session.start(f"{VOICE}{READ}{FLOODS[name]}\nos._exit(0)", timeout_s=20))
        most = 0
        while not running.done():
            most = max(most, supervisor_rss_bytes(supervisor) - before)
        assert running.exception() is not None or running.result().status in FLOOD_ENDS
    assert most < 160 * MIB


def test_code_that_forks_and_returns_twice(driver: Driver, watched: Watched) -> None:
    """No attack, a beginner's mistake: the child must not speak for the kernel."""
    with watched(), driver.session() as session:
        outcome = session.run("import os\nkept = 5\npid = os.fork()\nprint('hi')")
        assert outcome.status == "ok", outcome.document()
        later = session.run("kept")
        assert (later.status, later.results) == ("ok", [{"text/plain": "5"}]), later.document()


def test_half_frames_are_freed_with_their_session(driver: Driver, supervisor: SupervisorHandle) -> None:
    """A tenant may make the supervisor keep 16 MiB per session, and no more after its end."""
    half = f"{VOICE}\nchannel.sendall(header(16 << 20, RESULT) + bytes((16 << 20) - 1))\nos._exit(0)"
    before = supervisor_rss_bytes(supervisor)
    for _ in range(12):
        with driver.session() as session:
            assert session.run(half, timeout_s=20).status in ("kernel_died", "protocol_error")
    assert supervisor_rss_bytes(supervisor) - before < 64 * MIB
