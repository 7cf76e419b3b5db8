"""Connections that break: nothing is run twice, nothing is lost, and what cannot be mended is said clearly."""

from __future__ import annotations

import http.server
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import onehop
from onehop import errors
from onehop.client import requests
from tests.api.gateway import Gateway
from tests.client.cutter import Cutter
from tests.client.faces import Face

SLOW = """
import time
for number in range(40):
    print(number, flush=True)
    time.sleep(0.02)
'end'
"""
ONCE = "open('runs', 'a').write('x'); open('runs').read()"


@pytest.mark.parametrize("cuts", [[0], [150], [700], [1500, 300, 700], [1000, 0, 0, 900]])
async def test_a_stream_goes_on_where_it_broke(face: Face, cutter: Cutter, cuts: list[int]) -> None:
    async with face.client(cutter.url) as client, client.session() as session:
        await session.run("1")
        async with face.attach(session.id, cutter.url) as other:
            cutter.cuts += cuts
            events = [event async for event in other.stream(SLOW)]
    assert cutter.cuts == []
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.text for event in events) == "".join(f"{number}\n" for number in range(40))
    assert events[-1].result.text == "'end'"
    assert events[-1].result.stdout.count("\n") == 40


@pytest.mark.parametrize("callbacks", [False, True])
async def test_a_lost_answer_is_asked_for_again_and_nothing_runs_twice(
    face: Face, cutter: Cutter, callbacks: bool
) -> None:
    async with face.session(cutter.url) as session:
        more: dict[str, Any] = {"on_stdout": lambda _: None} if callbacks else {}
        for runs in range(1, 4):
            cutter.cuts.append(0)
            async with face.attach(session.id, cutter.url) as other:
                assert (await other.run(ONCE, **more)).text == repr("x" * runs)
    assert cutter.cuts == []


async def test_an_answer_lost_while_the_code_still_runs(face: Face, cutter: Cutter, gateway: Gateway) -> None:
    """The connection breaks before there is an answer: the second request learns which execution it was."""
    async with face.session(gateway.url) as session:
        cutter.cuts.append(1)
        code = "print('a', flush=True); import time; time.sleep(0.5); open('runs', 'a').write('x'); open('runs').read()"
        async with face.attach(session.id, cutter.url) as other:
            result = await other.run(code, on_stdout=lambda _: None)
        assert (result.stdout, result.text) == ("a\n", "'x'")


async def test_a_session_is_made_once_though_its_answer_was_lost(
    face: Face, cutter: Cutter, client: Any
) -> None:
    before = len(await client.sessions())
    cutter.cuts += [0, 0]
    async with face.session(cutter.url) as session:
        assert (await session.run("1")).ok
        assert len(await client.sessions()) == before + 1
    assert len(await client.sessions()) == before


async def test_transfers_begin_anew(face: Face, cutter: Cutter, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    source = tmp_path / "source"
    source.write_bytes(content)
    async with face.session(cutter.url) as session:
        await session.run("1")
        async with face.attach(session.id, cutter.url) as other:
            cutter.cuts.append(0)
            assert (await other.files.upload(source)).bytes == len(content)
        async with face.attach(session.id, cutter.url) as other:
            cutter.cuts += [300_000, 500]
            assert (await other.files.download("source", tmp_path / "target")).read_bytes() == content
    assert cutter.cuts == []


async def test_nobody_there_is_said_at_once(face: Face) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with face.client(url) as client:
        with pytest.raises(
            onehop.UnreachableError, match=f"no server answers at {url}; start one with: onehop serve"
        ):
            await client.run("1")


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (502, 3)])
async def test_a_stranger_is_told_from_a_server(
    face: Face, monkeypatch: pytest.MonkeyPatch, status: int, asked: int
) -> None:
    """A proxy that has lost its server is asked again; a web server is not."""
    monkeypatch.setattr(requests, "PATIENCE_S", 2.0)
    monkeypatch.setattr(
        requests, "FIRST_PAUSE_S", 0.4
    )  # so again after 0.4 and 0.8 s, and not after 1.6 s more
    requested = []

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requested.append(self.path)
            self.send_error(status)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        async with face.client(f"http://127.0.0.1:{server.server_port}") as client:
            with pytest.raises(onehop.UnreachableError, match=rf"{status}.*no server of onehop"):
                await client.run("1")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(requested) == asked


async def test_patience_ends(face: Face, cutter: Cutter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PATIENCE_S", 2.0)
    async with face.session(cutter.url) as session:
        await session.run("1")
        async with face.attach(session.id, cutter.url) as other:
            cutter.cuts += [0] * 50
            with pytest.raises(onehop.UnreachableError, match="broke"):
                await other.info()
            assert 2 <= 50 - len(cutter.cuts) < 10
            cutter.cuts.clear()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "nonsense"])
def test_an_address_that_is_none(face: Face, url: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="must be like http"):
        face.client(url)


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> None:
    monkeypatch.setenv("ONEHOP_URL", gateway.url)
    assert onehop.run("1 + 1").text == "2"
    monkeypatch.setenv("ONEHOP_URL", "nonsense")
    with pytest.raises(errors.ConfigurationError, match="ONEHOP_URL"):
        onehop.Session()
    monkeypatch.setenv("ONEHOP_API_KEY", "with\nbreak")
    with pytest.raises(errors.ConfigurationError, match="ONEHOP_API_KEY"):
        onehop.Session(url=gateway.url)
