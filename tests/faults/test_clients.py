"""A slow, silent or vanished client blocks no kernel and no other client, and is not kept for ever."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments.model import Environment
from tests.cli.conftest import make_home
from tests.cli.processes import wait_until
from tests.faults.clients import connected, request, reset, seconds_until_closed, vanish
from tests.faults.deaths import session, value
from tests.faults.server import FaultServer, post

PATIENCE_S = 0.6
LATE_S = 5.0
"""On a machine with other work."""
FLOOD = "for n in range(200): print('x' * 50_000)"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, onehop_home: Path, environment: Environment
) -> Iterator[FaultServer]:
    """One with little patience."""
    folder = tmp_path_factory.mktemp("clients")
    flags = ("--client-patience-s", str(PATIENCE_S), "--output-bytes", str(15 * MIB))
    server = FaultServer(make_home(folder, onehop_home), folder, *flags)
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()
    assert "Traceback" not in server.said(), server.said()


def works(client: httpx2.Client) -> None:
    assert post(client, "/api/execute", {"code": "6 * 7"}).json()["results"] == [{"text/plain": "42"}]


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def connections(server: FaultServer) -> int:
    """How many the server holds open, from /proc/net/tcp (proc(5)): local address, state 01 or 08."""
    port = f":{int(server.url.rpartition(':')[2]):04X}"
    lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(fields[1].endswith(port) and fields[3] in ("01", "08") for fields in lines)


@pytest.mark.parametrize(
    ("sent", "dripped"),
    [
        (b"", b""),
        (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: yes\r\n" * 1000),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b""),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal", b""),
    ],
    ids=["silent", "slow head", "half a head", "half a second head"],
)
def test_who_does_not_finish_a_request_is_let_go(
    server: FaultServer, client: httpx2.Client, sent: bytes, dripped: bytes
) -> None:
    began_s = time.monotonic()  # the server's clock may run before we know that we are connected
    with connected(server) as connection:
        connection.sendall(sent)
        seconds_until_closed(connection, sending=dripped)
        took_s = time.monotonic() - began_s
    assert PATIENCE_S * 0.9 < took_s < PATIENCE_S + LATE_S
    works(client)


def test_half_a_body_is_let_go(server: FaultServer, client: httpx2.Client) -> None:
    with connected(server) as connection:
        connection.sendall(request(server, "POST", "/api/execute", b'{"code": "1', length=1000))
        assert seconds_until_closed(connection) < PATIENCE_S + LATE_S
    works(client)


def test_a_head_without_end_is_refused(server: FaultServer, client: httpx2.Client) -> None:
    before = resident(server.gateway())
    answer, ended = b"", None
    with connected(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for n in range(20_000):
                connection.sendall(b"X-%d: %s\r\n" % (n, b"y" * 1000))
                if n == 200:
                    answer = connection.recv(1000)
        except OSError as error:
            ended = error
    assert isinstance(ended, BrokenPipeError | ConnectionResetError)
    assert not answer or answer.startswith(b"HTTP/1.1 431 ")
    assert resident(server.gateway()) - before < 8 * MIB
    works(client)


def test_a_reader_of_one_byte_a_second_holds_up_nobody(server: FaultServer, client: httpx2.Client) -> None:
    """The code ends as fast as without him, others are served, and the gateway's memory stays small."""
    path = session(client)
    works(client)
    before = resident(server.gateway())
    body = b'{"code": "%s"}' % FLOOD.encode()
    with connected(server, buffer_bytes=4096) as reader:
        reader.sendall(request(server, "POST", f"{path}/execute", body, accept="text/event-stream"))
        assert reader.recv(1) == b"H"
        started_s = time.monotonic()
        wait_until(lambda: client.get(path).json()["status"] == "idle", 60, "the code has ended")
        assert value(client, path, "6 * 7") == "42"
        assert reader.recv(1) == b"T"
        for _ in range(5):
            works(client)
        assert time.monotonic() - started_s < 20
        # The answer of 10 MB is written down meanwhile, by another thread; its copies are gone then.
        gateway = server.gateway()
        wait_until(lambda: resident(gateway) - before < 48 * MIB, 20, "its memory is small again")


def test_a_slow_download_holds_up_nobody(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    value(client, path, "open('big', 'wb').write(bytes(100 << 20))")
    before = resident(server.gateway())
    with connected(server, buffer_bytes=4096) as reader:
        reader.sendall(request(server, "GET", f"{path}/files/big"))
        assert reader.recv(1) == b"H"
        assert value(client, path, "6 * 7") == "42"
        works(client)
        assert resident(server.gateway()) - before < 16 * MIB
        took_s = seconds_until_closed_without_reading(server, reader)
    assert took_s < PATIENCE_S * 10 + LATE_S + 5
    assert client.delete(path).status_code == 204


def seconds_until_closed_without_reading(server: FaultServer, reader: socket.socket) -> float:
    """Looks at the server's end of the connection."""
    started_s = time.monotonic()
    mine = reader.getsockname()[1]

    def there() -> bool:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        # Columns of /proc/net/tcp (proc(5)): 2 is the remote address, 3 the state, 01 established.
        return any(
            fields[2].endswith(f":{mine:04X}") and fields[3] == "01" for fields in map(str.split, lines)
        )

    assert there(), "the control failed"
    wait_until(lambda: not there(), 60, "the connection is ended")
    return time.monotonic() - started_s


@pytest.mark.parametrize(
    "leaves", [pytest.param(vanish, marks=pytest.mark.root_only), reset], ids=["vanishes", "resets"]
)
def test_a_client_that_is_gone_is_forgotten(
    server: FaultServer, client: httpx2.Client, leaves: object
) -> None:
    path = session(client)
    works(client)
    before = connections(server)
    code = (
        b"import os, time\\nwhile not os.path.exists('gone'): time.sleep(0.01)\\n"
        b"for n in range(20):\\n    time.sleep(0.05); print(n, flush=True)\\nos.remove('gone')"
    )
    for accept in ("text/event-stream", "*/*"):
        with connected(server) as connection:
            body = b'{"code": "%s"}' % code
            connection.sendall(request(server, "POST", f"{path}/execute", body, accept=accept))
            wait_until(lambda: client.get(path).json()["status"] == "busy", 60, "the code runs")
            assert callable(leaves)
            leaves(connection)
        headers = {"Content-Type": "application/octet-stream"}
        assert client.put(f"{path}/files/gone", content=b"", headers=headers).is_success
        wait_until(lambda: client.get(path).json()["status"] == "idle", 60, "the code has ended")
        assert value(client, path, "n") == "19"
    wait_until(lambda: connections(server) <= before, 60, "no connection is left")
    assert client.delete(path).status_code == 204
