"""One upstream over real connections: kept, cut, too slow, no HTTP at all, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from onehop.agent.upstreams.config import UpstreamSpec
from onehop.agent.upstreams.connection import BUFFER_BYTES
from onehop.agent.upstreams.transport import Answer, Transport
from onehop.errors import ConfigurationError, UpstreamError, UpstreamTimeoutError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Peer:
    """Answers each request with the next of `answers`; None and what says so end the connection."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()
        self.written = 0
        self.tasks: list[asyncio.Task[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            await self._serve(reader, writer)
        finally:
            self.ended.set()
            writer.transport.abort()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0) if self.answers else OK
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                self.written += len(answer)
                if b"connection: close" in answer:
                    break
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def served(*answers: bytes | None, **members: float) -> AsyncIterator[tuple[Transport, Peer]]:
    peer = Peer(list(answers))
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    spec = UpstreamSpec(name="up", kind="chat", url=f"http://127.0.0.1:{port}/v1", **members)  # type: ignore[arg-type]
    async with server:
        async with Transport(spec) as transport:
            yield transport, peer
        for task in peer.tasks:
            task.cancel()
        await asyncio.gather(*peer.tasks, return_exceptions=True)


def later(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def ask(transport: Transport, timeout_s: float = 5.0) -> Answer:
    return await transport.send("GET", "/x", {"x-one": "1"}, None, timeout_s)


async def test_one_connection_serves_one_answer_after_the_other() -> None:
    async with served() as (transport, peer):
        for _ in range(3):
            answer = await ask(transport)
            assert (answer.status, await answer.body(later())) == (200, b"ok")
            answer.close()
        assert peer.connections == 1
        assert peer.requests[0].startswith(b"GET /v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"x-one: 1\r\n" in peer.requests[0]


async def test_answers_side_by_side_have_connections_of_their_own() -> None:
    async with served() as (transport, peer):
        answers = await asyncio.gather(*(ask(transport) for _ in range(5)))
        assert [await one.body(later()) for one in answers] == [b"ok"] * 5
        assert peer.connections == 5


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
    ],
    ids=["chunked", "until the connection ends", "one answer only", "100", "103"],
)
async def test_forms_of_a_body(answer: bytes) -> None:
    async with served(answer) as (transport, peer):
        for _ in range(2):
            got = await ask(transport)
            assert (got.status, await got.body(later())) == (200, b"ok")
            got.close()
        assert peer.connections == (2 if b"close" in answer else 1)


async def test_a_connection_that_ended_while_idle_costs_no_request() -> None:
    async with served(OK, None, OK) as (transport, peer):
        for _ in range(2):
            got = await ask(transport)
            assert await got.body(later()) == b"ok"
            got.close()
        assert peer.connections == 2


async def test_a_server_that_always_hangs_up_is_asked_once() -> None:
    async with served(None, None, None) as (transport, peer):
        with pytest.raises(UpstreamError, match="'up' hung up before it answered"):
            await ask(transport)
        assert peer.connections == 1


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"],
    ids=["ssh", "length"],
)
async def test_what_is_no_http(answer: bytes) -> None:
    async with served(answer) as (transport, _):
        with pytest.raises(UpstreamError, match="no HTTP"):
            await ask(transport)


async def test_headers_without_end_are_given_up() -> None:
    endless = b"HTTP/1.1 200 OK\r\n" + b"x-filler: 0123456789\r\n" * 10_000
    async with served(endless) as (transport, _):
        with pytest.raises(UpstreamError, match="too many headers"):
            await ask(transport)


async def test_a_compressed_answer_that_nobody_asked_for() -> None:
    packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\nok"
    async with served(packed) as (transport, _):
        with pytest.raises(UpstreamError, match="'br'"):
            await ask(transport)


async def test_a_head_that_does_not_come_in_time() -> None:
    async with served(b"HTTP/1.1 200 OK\r\n") as (transport, peer):
        with pytest.raises(UpstreamTimeoutError, match=r"did not begin its answer in 0\.05 s"):
            await ask(transport, 0.05)
        await asyncio.wait_for(peer.ended.wait(), 30)


async def test_a_body_that_stops() -> None:
    async with served(CHUNKED + b"2\r\nok\r\n") as (transport, peer):
        answer = await ask(transport)
        assert await answer.read(later()) == b"ok"
        with pytest.raises(TimeoutError):
            await answer.read(later(0.05))
        answer.close()
        await asyncio.wait_for(peer.ended.wait(), 30)


async def test_a_body_that_is_cut() -> None:
    cut = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nok"
    async with served(cut) as (transport, _):
        answer = await ask(transport)
        with pytest.raises(UpstreamError, match="hung up amid its answer"):
            await answer.body(later())
        answer.close()


async def test_the_end_of_a_body_that_comes_late_keeps_the_connection() -> None:
    """The last event was read; the chunk that ends the body is still on its way."""
    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(CHUNKED + b"2\r\nok\r\n")
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        spec = UpstreamSpec(name="up", kind="chat", url=f"http://127.0.0.1:{port}")
        async with Transport(spec) as transport:
            answer = await ask(transport)
            assert await answer.read(later()) == b"ok"
            answer.close(drain=True)
            assert transport.idle == 0
            writers[0].write(b"0\r\n\r\n")
            async with asyncio.timeout(30):
                while transport.idle == 0:
                    await asyncio.sleep(0)
            answer = await ask(transport)
            assert await answer.read(later()) == b"ok"
            answer.close()
        await asyncio.wait_for(ended.wait(), 30)
    assert len(writers) == 1


async def test_an_answer_that_nobody_takes_makes_the_upstream_wait() -> None:
    huge = 64 * BUFFER_BYTES
    async with served(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % huge + b"x" * huge) as (
        transport,
        peer,
    ):
        answer = await ask(transport)
        first = await answer.read(later())
        await asyncio.sleep(0.2)  # whatever it could still send, it has sent by then
        assert peer.written == 0, "all of it was taken into memory"
        total = len(first)
        while part := await answer.read(later()):
            assert len(part) < 4 * BUFFER_BYTES
            total += len(part)
        assert total == huge
        answer.close()


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    spec = UpstreamSpec(name="up", kind="chat", url=f"http://127.0.0.1:{port}")
    async with Transport(spec) as transport:
        with pytest.raises(UpstreamError, match="'up' cannot be reached: Connection refused"):
            await ask(transport)


async def test_leaving_ends_all_connections() -> None:
    async with served(CHUNKED + b"2\r\nok\r\n") as (transport, peer):
        await ask(transport)
        await transport.__aexit__(None, None, None)
        await asyncio.wait_for(peer.ended.wait(), 30)
        assert not transport.idle


async def test_many_connections_that_end_while_idle_are_forgotten() -> None:
    async with served(*[OK] * 20) as (transport, peer):
        answers = await asyncio.gather(*(ask(transport) for _ in range(10)))
        for one in answers:
            await one.body(later())
            one.close()
        assert transport.idle == 10
        for task in peer.tasks:
            task.cancel()
        async with asyncio.timeout(5):
            while transport.idle:
                await asyncio.sleep(0)


async def test_a_name_with_a_line_break_stays_in_the_path() -> None:
    async with served() as (transport, peer):
        answer = await transport.send("GET", "/models/a b\r\nx-evil: 1", {}, None, 5)
        answer.close()
        assert peer.requests[0].startswith(b"GET /v1/models/a%20b%0D%0Ax-evil:%201 HTTP/1.1\r\n")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of its own for this machine's address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scripted")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return folder / "cert.pem", folder / "key.pem"


async def test_authorities_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (None, "no certificate"):
        if content:
            (tmp_path / "cert.pem").write_text(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with pytest.raises(ConfigurationError, match="SSL_CERT_FILE or SSL_CERT_DIR cannot be read"):
            async with Transport(UpstreamSpec(name="up", kind="chat", url="https://h")):
                pass


@pytest.mark.parametrize("trusted", [True, False])
async def test_certificates_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    peer = Peer([])
    async with await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        spec = UpstreamSpec(name="up", kind="chat", url=f"https://127.0.0.1:{port}")
        async with Transport(spec) as transport:
            if trusted:
                answer = await ask(transport)
                assert await answer.body(later()) == b"ok"
                answer.close()
            else:
                with pytest.raises(UpstreamError, match="'up' cannot be trusted: self-signed certificate"):
                    await ask(transport)
                assert not peer.requests, "nothing was said to it"
        for task in peer.tasks:
            task.cancel()
        await asyncio.gather(*peer.tasks, return_exceptions=True)
