"""The workspace over HTTP: raw bytes in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import quote

import httpx2
import pytest

from tests.api.test_bad_input import OCTETS, assert_problem


def test_there_and_back(client: httpx2.Client, session_id: str) -> None:
    base = f"/api/sessions/{session_id}"
    content = bytes(range(256)) * 40_000  # 10 MB, many chunks
    put = client.put(f"{base}/files/d/e/a.bin", content=content, headers=OCTETS)
    assert put.json() == {"path": "d/e/a.bin", "bytes": len(content)}
    code = "import hashlib\nprint(hashlib.sha256(open('d/e/a.bin', 'rb').read()).hexdigest())"
    answer = client.post(f"{base}/execute", json={"code": code}).json()
    assert answer["stdout"].strip() == hashlib.sha256(content).hexdigest()
    response = client.get(f"{base}/files/d/e/a.bin")
    assert response.content == content
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''a.bin"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"{base}/files").json() == {
        "files": [{"path": "d/e/a.bin", "bytes": len(content)}],
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
