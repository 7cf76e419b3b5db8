"""A full disk below the state: new work is refused with 507, reads work, nothing is corrupt, and it ends by itself."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop.environments.model import Environment
from tests.cli.conftest import make_home
from tests.cli.processes import wait_until
from tests.faults.deaths import session, value
from tests.faults.server import FaultServer, post

pytestmark = pytest.mark.root_only  # an ordinary user cannot mount a small disk

DISK = "4m"


@pytest.fixture
def server(tmp_path: Path, onehop_home: Path, environment: Environment) -> Iterator[FaultServer]:
    home = make_home(tmp_path, onehop_home)
    (home / "state").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(home / "state")], check=True)
    try:
        server = FaultServer(home, tmp_path)
        try:
            server.wait_for_screen()
            yield server
        finally:
            server.close()
        assert "Traceback" not in server.said(), server.said()
    finally:
        subprocess.run(["umount", str(home / "state")], check=True)


@contextlib.contextmanager
def filled(server: FaultServer) -> Iterator[None]:
    ballast = server.home / "state" / "ballast"
    fd = os.open(ballast, os.O_CREAT | os.O_WRONLY)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, bytes(4096))
        assert os.statvfs(ballast).f_bavail == 0, "the control failed"
        yield
    finally:
        os.close(fd)
        ballast.unlink()


def test_a_full_disk(server: FaultServer, client: httpx2.Client) -> None:
    path = session(client)
    done = post(client, f"{path}/execute", {"code": "kept = 41; print('stored')"}).json()
    server.settled(client)
    work = {
        f"{path}/execute": {"code": "print('y' * 20_000)"},
        "/api/execute": {"code": "1"},
        "/api/sessions": {},
    }

    def refuses(url: str) -> bool:
        answer = post(client, url, work[url])
        assert answer.status_code in (200, 201, 507), (
            answer.text
        )  # what came before the first write was known to fail
        return answer.status_code == 507

    def reads() -> None:
        assert client.get(f"/api/executions/{done['id']}").json()["stdout"] == "stored\n"
        assert client.get(path).status_code == 200
        assert client.get("/healthz").json() == {"status": "ok"}

    with filled(server):
        for url in work:
            wait_until(lambda url=url: refuses(url), 20, f"507 for {url}")  # type: ignore[misc]
        assert refuses("/api/execute")
        reads()
        server.kill_gateway()
        server.wait_healthy()
        with contextlib.suppress(httpx2.TransportError):
            reads()
        reads()
    wait_until(lambda: not refuses("/api/execute"), 20, "there is room again")
    assert value(client, path, "kept + 1") == "42"
    assert client.delete(path).status_code == 204
    server.settled(client)
    with contextlib.closing(sqlite3.connect(server.home / "state" / "onehop.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("SELECT count(*) FROM executions WHERE status = 'running'").fetchone() == (0,)
