"""Trees of a workspace over HTTP: archives in and out, and what is refused; hostile ones are in tests/security."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onehop import protocol
from onehop.api.archives import TYPES
from onehop.environments import Environment
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.api.test_files import listed, run, upload, wait_until
from tests.security.carrying import file, gz, header, plain_tar, plain_zip, tar

MAKERS = {"tar": plain_tar, "tar.gz": lambda tree: gz(plain_tar(tree)), "zip": plain_zip}
TREE = {"a.txt": b"one", "d/ä": b"two" * 100_000, "d/e/empty": b""}


def test_every_format_has_a_media_type() -> None:
    assert tuple(TYPES) == protocol.ARCHIVE_FORMATS


@pytest.mark.parametrize("form", TYPES)
def test_there_and_back(client: httpx2.Client, session_id: str, form: str) -> None:
    base = f"/api/sessions/{session_id}"
    upload(client, base, "to/a.txt", "to/kept")
    put = client.put(
        f"{base}/archive?path=to", content=MAKERS[form](TREE), headers={"content-type": TYPES[form]}
    )
    assert put.status_code == 200, put.text
    assert {f["path"]: f["bytes"] for f in put.json()["files"]} == {
        "to/" + p: len(c) for p, c in TREE.items()
    }
    assert put.json()["truncated"] is False
    assert all(f["modified_at"].endswith("Z") for f in put.json()["files"])
    assert listed(client, base) == ["to/a.txt", "to/d/e/empty", "to/d/ä", "to/kept"]
    assert client.get(f"{base}/files/to/a.txt").content == b"one"
    # What was unpacked is known: an execution does not name it as its own.
    assert run(client, base, "1")["files"] == []
    response = client.get(f"{base}/archive", params={"path": "to/d", "format": form})
    assert response.headers["content-type"] == TYPES[form]
    assert response.headers["content-disposition"] == f"attachment; filename*=UTF-8''d.{form}"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["onehop-left-out"] == "0"
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(response.content)) as opened:
            assert {name: opened.read(name) for name in opened.namelist()} == {
                "e/": b"", "e/empty": b"", "ä": TREE["d/ä"]
            }  # fmt: skip
    else:
        with tarfile.open(fileobj=io.BytesIO(response.content)) as tarred:
            assert sorted(tarred.getnames()) == ["e", "e/empty", "ä"]


def test_the_whole_workspace_is_a_tar_when_nothing_is_said(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    run(client, base, "import os\nos.symlink('/etc/passwd', 'a, b')\nos.mkfifo('ü')\nopen('x', 'w').close()")
    response = client.get(f"{base}/archive")
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''workspace.tar"
    assert response.headers["onehop-left-out"] == "2"
    assert response.headers["onehop-left-out-names"] == "a%2C%20b,%C3%BC"
    with tarfile.open(fileobj=io.BytesIO(response.content)) as tarred:
        assert tarred.getnames() == ["x"]


def test_what_is_asked_for_wrongly(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    upload(client, base, "file")
    assert_problem(client.get(f"{base}/archive?format=rar"), 422, "invalid-request", field="format")
    assert_problem(client.get(f"{base}/archive?path=nothing"), 404, "file-not-found")
    assert_problem(client.get(f"{base}/archive?path=file"), 409, "conflict")
    tarred = {"content-type": "application/x-tar"}
    for path in ("..", "/etc", "a/../..", "a%00", "%ff", "a//b"):
        assert_problem(client.get(f"{base}/archive?path={path}"), 422, "invalid-path")
        put = client.put(f"{base}/archive?path={path}", content=plain_tar(TREE), headers=tarred)
        assert_problem(put, 422, "invalid-path")
    assert_problem(
        client.put(f"{base}/archive?path=file", content=plain_tar(TREE), headers=tarred), 409, "conflict"
    )
    for kind in ("application/octet-stream", "multipart/form-data; boundary=x", "text/plain", ""):
        response = client.put(f"{base}/archive", content=plain_tar(TREE), headers={"content-type": kind})
        assert_problem(response, 415, "unsupported-media-type")
    hostile = client.put(f"{base}/archive", content=tar(file(b"../x")), headers=tarred)
    assert "'..'" in assert_problem(hostile, 422, "invalid-archive")["detail"]
    link = client.put(f"{base}/archive", content=tar(header(b"l", kind=b"2", link=b"/")), headers=tarred)
    assert "a symlink" in assert_problem(link, 422, "invalid-archive")["detail"]
    assert listed(client, base) == ["file"]
    assert_problem(client.get("/api/sessions/ses_x/archive"), 404, "session-not-found")
    assert_problem(
        client.put("/api/sessions/ses_x/archive", content=b"", headers=tarred), 404, "session-not-found"
    )


def test_what_does_not_fit(client: httpx2.Client) -> None:
    created = client.post("/api/sessions", json={"workspace_mb": 8}).json()
    base = f"/api/sessions/{created['id']}"
    gzipped = {"content-type": "application/gzip"}
    bomb = gz(plain_tar({"d/zeros": bytes(64 << 20)}))
    assert_problem(client.put(f"{base}/archive", content=bomb, headers=gzipped), 507, "quota-exceeded")
    too_long = client.put(
        f"{base}/archive", content=b"x" * (60 << 20), headers={"content-type": "application/zip"}
    )
    assert_problem(too_long, 413, "too-large")
    assert (
        run(
            client, base, "import os; print(os.listdir(), os.statvfs('.').f_blocks - os.statvfs('.').f_bfree)"
        )["stdout"]
        == "[] 0\n"
    )
    client.delete(base)


@pytest.mark.parametrize("form", TYPES)
def test_an_upload_that_breaks_off_leaves_nothing(
    client: httpx2.Client, gateway: Gateway, session_id: str, form: str
) -> None:
    base = f"/api/sessions/{session_id}"
    archive = MAKERS[form]({"a": os.urandom(3 << 20), "b": os.urandom(3 << 20)})
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(
            f"PUT {base}/archive?path=new/folder HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPES[form]}\r\n"
            f"Content-Length: {len(archive)}\r\n\r\n".encode()
        )
        connection.sendall(archive[: 4 << 20])
        # It is being unpacked: something of it takes room already, though nobody can see it.
        used = "import os; print(os.statvfs('.').f_blocks - os.statvfs('.').f_bfree)"
        wait_until(lambda: int(run(client, base, used)["stdout"]) > 100)
        assert listed(client, base) == []
    wait_until(lambda: run(client, base, used)["stdout"] == "0\n")
    assert run(client, base, "print(os.listdir())")["stdout"] == "[]\n"


def test_an_archive_that_cannot_be_made_whole_breaks_off(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    run(client, base, "open('file', 'wb').write(bytes(64 << 20))")
    with client.stream("GET", f"{base}/archive") as response:
        chunks: Iterator[bytes] = response.iter_raw()
        next(chunks)
        run(client, base, "open('file', 'wb').close()")
        with pytest.raises(httpx2.RemoteProtocolError):
            for _ in chunks:
                pass


def test_a_gateway_killed_while_it_unpacks_leaves_nothing(environment: Environment, home: Path) -> None:
    archive = plain_tar({"a": os.urandom(3 << 20), "b": os.urandom(3 << 20)})
    used = "import os; print(os.statvfs('.').f_blocks - os.statvfs('.').f_bfree, os.listdir())"
    with start_supervisor(environment) as supervisor:
        with Gateway(supervisor.path, home) as first, httpx2.Client(base_url=first.url, timeout=30) as client:
            base = f"/api/sessions/{client.post('/api/sessions', json={}).json()['id']}"
            upload(client, base, "a", content=b"old")
            with socket.create_connection(("127.0.0.1", first.port), timeout=30) as connection:
                connection.sendall(
                    f"PUT {base}/archive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-tar\r\n"
                    f"Content-Length: {len(archive)}\r\n\r\n".encode()
                )
                connection.sendall(archive[: 4 << 20])
                wait_until(lambda: int(run(client, base, used)["stdout"].split()[0]) > 100)
                first.kill()
        with (
            Gateway(supervisor.path, home) as second,
            httpx2.Client(base_url=second.url, timeout=30) as client,
        ):
            wait_until(lambda: run(client, base, used)["stdout"] == "1 ['a']\n")
            assert client.get(f"{base}/files/a").content == b"old"
