"""The workspace over HTTP: raw bytes in and out."""

from __future__ import annotations

import hashlib
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from tests.api.gateway import Gateway
from tests.api.test_bad_input import OCTETS, assert_problem


def test_there_and_back(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    content = bytes(range(256)) * 40_000  # 10 MB, many chunks
    before = datetime.now(UTC) - timedelta(seconds=1)
    put = client.put(f"{base}/files/d/e/a.bin", content=content, headers=OCTETS)
    file = put.json()
    assert file == {"path": "d/e/a.bin", "bytes": len(content), "modified_at": file["modified_at"]}
    assert file["modified_at"].endswith("Z")
    assert before < datetime.fromisoformat(file["modified_at"]) < datetime.now(UTC) + timedelta(seconds=1)
    code = "import hashlib\nprint(hashlib.sha256(open('d/e/a.bin', 'rb').read()).hexdigest())"
    answer = client.post(f"{base}/execute", json={"code": code}).json()
    assert answer["stdout"].strip() == hashlib.sha256(content).hexdigest()
    response = client.get(f"{base}/files/d/e/a.bin")
    assert response.content == content
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''a.bin"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"{base}/files").json() == {
        "files": [file],
        "truncated": False,
    }
    assert client.delete(f"{base}/files/d/e/a.bin").status_code == 204
    assert_problem(client.get(f"{base}/files/d/e/a.bin"), 404, "file-not-found")
    assert_problem(client.delete(f"{base}/files/d/e/a.bin"), 404, "file-not-found")


def test_replaced_whole(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/files/a"
    for content in (b"a long one", b"short", b""):
        assert client.put(path, content=content, headers=OCTETS).json()["bytes"] == len(content)
        assert client.get(path).content == content


@pytest.mark.parametrize(
    "name", ["a b", "ä/é.txt", "100%", "a+b", "q?x", "h#x", "-rf", "'quoted\"", "new\nline"]
)
def test_odd_names(client: httpx2.Client, session_id: str, name: str) -> None:
    base = f"/api/sessions/{session_id}/files"
    assert client.put(f"{base}/{quote(name)}", content=b"x", headers=OCTETS).json()["path"] == name
    response = client.get(f"{base}/{quote(name)}")
    assert response.content == b"x"
    assert "\n" not in response.headers["content-disposition"]
    assert [file["path"] for file in client.get(base).json()["files"]] == [name]


def test_uploads_want_raw_bytes(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/files/a"
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        response = client.put(path, content=b"x", headers={"content-type": kind})
        assert_problem(response, 415, "unsupported-media-type")
    assert_problem(client.get(path), 404, "file-not-found")


def test_an_upload_that_breaks_off_changes_nothing(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}/files/a"
    assert client.put(path, content=b"before", headers=OCTETS).is_success

    def half() -> Iterator[bytes]:
        yield b"x" * 1000
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.put(path, content=half(), headers=OCTETS)
    assert client.get(path).content == b"before"
    assert [file["path"] for file in client.get(f"/api/sessions/{session_id}/files").json()["files"]] == ["a"]


def upload(client: httpx2.Client, base: str, *paths: str, content: bytes = b"x") -> None:
    for path in paths:
        assert client.put(f"{base}/files/{quote(path)}", content=content, headers=OCTETS).is_success


def listed(client: httpx2.Client, base: str, folder: str | None = None) -> list[str]:
    response = client.get(f"{base}/files", params={} if folder is None else {"path": folder})
    assert response.status_code == 200, response.text
    return [file["path"] for file in response.json()["files"]]


def run(client: httpx2.Client, base: str, code: str) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(f"{base}/execute", json={"code": code}).json()
    assert answer["status"] == "ok", answer
    return answer


def test_one_folder_is_listed(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    upload(client, base, "a", "d/b", "d/e/ä c", "dd/x")
    assert listed(client, base) == ["a", "d/b", "d/e/ä c", "dd/x"]
    assert listed(client, base, "") == listed(client, base)
    assert listed(client, base, "d") == listed(client, base, "d/") == ["d/b", "d/e/ä c"]
    assert listed(client, base, "d/e") == ["d/e/ä c"]
    assert_problem(client.get(f"{base}/files?path=nothing"), 404, "file-not-found")
    assert_problem(client.get(f"{base}/files?path=a"), 409, "conflict")
    for path in ("..", "/etc", "d/../..", "a%00", "%ff"):
        assert_problem(client.get(f"{base}/files?path={path}"), 422, "invalid-path")


def test_times_that_no_calendar_has(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    run(
        client,
        base,
        "import os\nfor n, t in (('a', 1 << 62), ('b', -(1 << 62)), ('c', 1e9)):\n    open(n, 'w').close(); os.utime(n, (t, t))",
    )
    times = [file["modified_at"] for file in client.get(f"{base}/files").json()["files"]]
    assert len(times) == 3
    assert times[2] == "2001-09-09T01:46:40.000Z"
    for one in times:
        datetime.fromisoformat(one)


def test_move(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    upload(client, base, "a", "d/b", "d/e/c")

    def move(path: str, **body: Any) -> httpx2.Response:
        return client.post(f"{base}/files/{path}", json=body)

    moved = move("a", move_to="new/folder/ä").json()
    assert (moved["path"], moved["bytes"]) == ("new/folder/ä", 1)
    assert move("d", move_to="moved").json()["bytes"] == 0
    assert listed(client, base) == ["moved/b", "moved/e/c", "new/folder/ä"]
    assert_problem(move("moved/b", move_to="moved/e/c"), 409, "conflict")
    assert_problem(move("moved/b", move_to="moved/e", overwrite=True), 409, "not-a-regular-file")
    assert move("moved/b", move_to="moved/e/c", overwrite=True).is_success
    assert_problem(move("moved", move_to="moved/e/x"), 409, "conflict")
    assert_problem(move("nothing", move_to="x"), 404, "file-not-found")
    assert_problem(move("moved", move_to="../x"), 422, "invalid-path")
    assert_problem(move("moved", to="x"), 422, "invalid-request")
    assert_problem(client.post(f"{base}/files/moved", content=b"{"), 415, "unsupported-media-type")
    # What was moved was not changed: an execution does not name it.
    answer = run(client, base, "open('own', 'w').close()")
    assert [file["path"] for file in answer["files"]] == ["own"]
    assert listed(client, base) == ["moved/e/c", "new/folder/ä", "own"]


def test_delete_a_folder(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    upload(client, base, "a", "d/b", "d/e/c")
    assert_problem(client.delete(f"{base}/files/d"), 409, "not-a-regular-file")
    assert_problem(client.delete(f"{base}/files/d?recursive=yes"), 422, "invalid-request", field="recursive")
    assert_problem(client.delete(f"{base}/files/nothing?recursive=true"), 404, "file-not-found")
    assert_problem(client.delete(f"{base}/files/?recursive=true"), 422, "invalid-path")
    assert listed(client, base) == ["a", "d/b", "d/e/c"]
    assert client.delete(f"{base}/files/d?recursive=true").status_code == 204
    assert client.delete(f"{base}/files/a?recursive=true").status_code == 204
    assert run(client, base, "import os; print(os.listdir())")["stdout"] == "[]\n"


def test_parts_of_a_file(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    content = bytes(range(256)) * 4000
    upload(client, base, "a", content=content)
    path = f"{base}/files/a"
    size = len(content)
    for wanted, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=10-99", 10, 99),
        ("bytes=600000-", 600_000, size - 1),
        ("bytes=-7", size - 7, size - 1),
        (f"bytes={size - 1}-{10**17}", size - 1, size - 1),
        (f"bytes=-{10**17}", 0, size - 1),
    ):
        response = client.get(path, headers={"range": wanted})
        assert (response.status_code, response.content) == (206, content[first : last + 1])
        assert response.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert response.headers["content-disposition"].startswith("attachment")
    for ignored in ("bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=x-", "bytes=-"):
        response = client.get(path, headers={"range": ignored})
        assert (response.status_code, len(response.content)) == (200, size)
    for beyond in (f"bytes={size}-", f"bytes={10**17}-", "bytes=-0"):
        response = client.get(path, headers={"range": beyond})
        assert_problem(response, 416, "range-not-satisfiable", bytes=size)
        assert response.headers["content-range"] == f"bytes */{size}"


def test_a_download_is_gone_on_with_only_if_the_file_is_the_same(
    client: httpx2.Client, session_id: str
) -> None:
    base = f"/api/sessions/{session_id}"
    path = f"{base}/files/a"
    upload(client, base, "a", content=b"first content")
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == "13"
    assert head.headers["accept-ranges"] == "bytes"
    tag = head.headers["etag"]
    unchanged = client.get(path, headers={"if-none-match": f'"other", W/{tag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    part = {"range": "bytes=6-", "if-range": tag}
    assert client.get(path, headers=part).content == b"content"
    upload(client, base, "a", content=b"other content")
    again = client.get(path, headers=part)
    assert (again.status_code, again.content) == (200, b"other content")
    assert again.headers["etag"] != tag
    assert client.get(path, headers={"if-none-match": tag}).status_code == 200
    assert client.head(f"{base}/files/nothing").status_code == 404


def test_an_answer_names_what_the_code_changed_and_nothing_else(
    client: httpx2.Client, session_id: str
) -> None:
    base = f"/api/sessions/{session_id}"
    upload(client, base, "kept", "touched", "replaced", "d/gone")
    answer = run(
        client,
        base,
        "import os\nopen('touched', 'a').write('more')\nopen('t', 'w').write('1')\nos.replace('t', 'replaced')\n"
        "os.unlink('d/gone')\nopen('d/new', 'w').write('12')",
    )
    assert answer["files"] == [
        {"path": "d/new", "bytes": 2}, {"path": "replaced", "bytes": 1}, {"path": "touched", "bytes": 5}
    ]  # fmt: skip
    assert run(client, base, "1")["files"] == []
    run(client, base, "os.rename('d', 'e')")
    assert listed(client, base) == ["e/new", "kept", "replaced", "touched"]


def peak_bytes(pid: int) -> int:
    """The gateway's largest resident memory since `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024


def forget_peak(pid: int) -> int:
    """What is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)


LARGE_BYTES = 200 << 20
GROWTH_BYTES = 6 << 20


def pieces(total: int, piece: bytes = bytes(range(256)) * 1024) -> Iterator[bytes]:
    for _ in range(total // len(piece)):
        yield piece


def through_the_gateway(client: httpx2.Client, base: str, put: str, get: str, kind: str) -> None:
    """The same piece up, all of it down again, never more than one piece here."""
    response = client.put(f"{base}/{put}", content=pieces(LARGE_BYTES), headers={"content-type": kind})
    assert response.is_success, response.text
    total = 0
    with client.stream("GET", f"{base}/{get}") as down:
        assert down.status_code == 200
        for chunk in down.iter_raw():
            total += len(chunk)
    assert total >= LARGE_BYTES


def test_large_files_go_both_ways_in_constant_memory(client: httpx2.Client, gateway: Gateway) -> None:
    created = client.post("/api/sessions", json={"workspace_mb": 512, "memory_mb": 2048}).json()
    base = f"/api/sessions/{created['id']}"
    try:
        upload(client, base, "warm", content=bytes(1 << 20))
        client.get(f"{base}/files/warm")
        before = forget_peak(gateway.process.pid)
        through_the_gateway(client, base, "files/large", "files/large", OCTETS["content-type"])
        grown = peak_bytes(gateway.process.pid) - before
        assert grown < GROWTH_BYTES, f"the gateway grew by {grown >> 20} MiB"
        # And as trees: what comes out is larger than memory would be allowed to grow.
        before = forget_peak(gateway.process.pid)
        for form in ("tar", "zip"):
            with client.stream("GET", f"{base}/archive?format={form}") as down:
                sizes = [len(chunk) for chunk in down.iter_raw()]
            assert sum(sizes) > (LARGE_BYTES if form == "tar" else 500_000)
        client.delete(f"{base}/files/large")
        response = client.put(
            f"{base}/archive", content=large_tar(), headers={"content-type": "application/x-tar"}
        )
        assert response.json()["files"][0]["bytes"] == LARGE_BYTES
        grown = peak_bytes(gateway.process.pid) - before
        assert grown < GROWTH_BYTES, f"the gateway grew by {grown >> 20} MiB"
    finally:
        client.delete(base)


def large_tar() -> Iterator[bytes]:
    info = tarfile.TarInfo("large")
    info.size = LARGE_BYTES
    yield info.tobuf()
    yield from pieces(LARGE_BYTES)
    yield bytes(1024)


def slow_read(port: int, path: str) -> socket.socket:
    """A client that asks, takes a little, and then nothing any more."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    return connection


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "path", ["files/large", "archive?format=tar", "archive?format=tar.gz", "archive?format=zip"]
)
def test_a_client_that_stops_reading_and_hangs_up_leaves_nothing(
    client: httpx2.Client, gateway: Gateway, session_id: str, path: str
) -> None:
    base = f"/api/sessions/{session_id}"
    run(client, base, "import os\nopen('large', 'wb').write(os.urandom(32 << 20))")
    processes = "print(len([n for n in os.listdir('/proc') if n.isdigit()]))"
    usual = run(client, base, processes)["stdout"]
    before = forget_peak(gateway.process.pid)
    connections = [slow_read(gateway.port, f"{base}/{path}") for _ in range(4)]
    assert_problem(client.get(f"{base}/files"), 429, "too-many")
    for connection in connections:
        connection.close()
    wait_until(lambda: client.get(f"{base}/files").status_code == 200)
    wait_until(lambda: run(client, base, processes)["stdout"] == usual)
    # A few pieces wait in buffers for each of them, not the file.
    assert peak_bytes(gateway.process.pid) - before < len(connections) * (4 << 20)
