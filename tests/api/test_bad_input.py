"""Every bad request is a clear problem document: nothing leaked, nothing half-done, and the server goes on."""

from __future__ import annotations

import http.client
import json
from typing import Any

import httpx2
import pytest

JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}


def assert_problem(response: httpx2.Response, status: int, name: str, **members: Any) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:onehop:problem:{name}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    for word in ("Traceback", "onehop/", "/src/", "site-packages", ".py"):
        assert word not in response.text
    for member, value in members.items():
        assert document[member] == value
    return document


@pytest.fixture(params=["once", "session"])
def execute_path(request: pytest.FixtureRequest, session_id: str) -> str:
    return "/api/execute" if request.param == "once" else f"/api/sessions/{session_id}/execute"


@pytest.mark.parametrize(
    ("body", "status", "name", "field"),
    [
        ({}, 422, "invalid-request", "code"),
        ({"code": ""}, 422, "invalid-request", "code"),
        ({"code": " \n"}, 422, "invalid-request", "code"),
        ({"code": "print(1)\0"}, 422, "invalid-request", "code"),
        ({"code": 5}, 422, "invalid-request", "code"),
        ({"code": "1", "unknown": 1}, 422, "invalid-request", "unknown"),
        ({"code": "1", "tools": {}}, 422, "invalid-request", "tools"),
        ({"code": "1", "context": "no name"}, 422, "invalid-request", "context"),
        ({"code": "1", "timeout_s": -1}, 422, "invalid-request", "timeout_s"),
        ({"code": "1", "timeout_s": 0}, 422, "invalid-request", "timeout_s"),
        ({"code": "1", "timeout_s": 1e9}, 422, "invalid-request", "timeout_s"),
        ({"code": "1", "timeout_s": "1"}, 422, "invalid-request", "timeout_s"),
        ({"code": "1", "cpu_s": -1}, 422, "invalid-request", "cpu_s"),
        ({"code": "1", "output_bytes": 1 << 40}, 422, "invalid-request", "output_bytes"),
        ({"code": "1", "env": {"A=B": "x"}}, 422, "invalid-request", "env"),
        ({"code": "1", "files": {"/etc/passwd": "x"}}, 422, "invalid-path", None),
        ({"code": "1", "files": {"../x": "x"}}, 422, "invalid-path", None),
        ({"code": "1", "files": {"a\0": "x"}}, 422, "invalid-path", None),
        ({"code": "1", "files": {"": "x"}}, 422, "invalid-path", None),
        ({"code": "x" * 200_000}, 413, "too-large", None),
        ({"code": "1", "stdin": "x" * 2_000_000}, 413, "too-large", None),
        ({"code": "1", "files": {"a": "x" * 5_000_000}}, 413, "too-large", None),
    ],
)
def test_execute(
    client: httpx2.Client, execute_path: str, body: dict[str, Any], status: int, name: str, field: str | None
) -> None:
    problem = assert_problem(client.post(execute_path, json=body), status, name)
    assert problem.get("field") == field


@pytest.mark.parametrize(
    ("content", "status", "name"),
    [
        (b"", 400, "invalid-json"),
        (b"{", 400, "invalid-json"),
        (b'{"code": "1"', 400, "invalid-json"),
        (b'{"code": "\xff"}', 400, "invalid-json"),
        (b"code=1", 400, "invalid-json"),
        (b'["code"]', 422, "invalid-request"),
        (b"null", 422, "invalid-request"),
        (b'{"code": "' + b"x" * 10_000_000 + b'"}', 413, "too-large"),
    ],
)
def test_execute_raw(
    client: httpx2.Client, execute_path: str, content: bytes, status: int, name: str
) -> None:
    assert_problem(client.post(execute_path, content=content, headers=JSON), status, name)


def test_a_body_without_a_length_is_counted_while_it_comes(client: httpx2.Client) -> None:
    def chunks() -> Any:
        yield b'{"code": "'
        for _ in range(100):
            yield b"x" * 100_000

    assert_problem(client.post("/api/execute", content=chunks(), headers=JSON), 413, "too-large")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/jsonp",
    ],
)
def test_another_content_type(client: httpx2.Client, execute_path: str, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    for path in (execute_path, "/api/sessions"):
        response = client.post(path, content=b'{"code": "1"}', headers=headers)
        assert_problem(response, 415, "unsupported-media-type")


def test_content_type_with_a_charset(client: httpx2.Client) -> None:
    headers = {"content-type": "application/json; charset=UTF-8"}
    assert client.post("/api/execute", content=b'{"code": "1"}', headers=headers).status_code == 200


@pytest.mark.parametrize("field", ["memory_mb", "processes", "workspace_mb"])
@pytest.mark.parametrize("value", [-1, 0, 1 << 40, 1.5, "64"])
def test_sandbox_limits(client: httpx2.Client, field: str, value: Any) -> None:
    for path, rest in (("/api/execute", {"code": "1"}), ("/api/sessions", {})):
        assert_problem(client.post(path, json={**rest, field: value}), 422, "invalid-request", field=field)


def test_limits_of_the_session_cannot_be_changed(client: httpx2.Client, session_id: str) -> None:
    body = {"code": "1", "memory_mb": 64}
    problem = assert_problem(
        client.post(f"/api/sessions/{session_id}/execute", json=body), 422, "invalid-request"
    )
    assert "session" in problem["detail"]


def test_unknown_environment(client: httpx2.Client) -> None:
    assert_problem(client.post("/api/sessions", json={"environment": "nope"}), 422, "unknown-environment")
    body = {"code": "1", "environment": "nope"}
    assert_problem(client.post("/api/execute", json=body), 422, "unknown-environment")


def test_a_syntax_error_is_the_codes_error(client: httpx2.Client, execute_path: str) -> None:
    answer = client.post(execute_path, json={"code": "x = 1\ny = = 2"}).json()
    assert answer["status"] == "error"
    assert answer["error"]["name"] == "SyntaxError"
    assert "line 2" in answer["error"]["traceback"]
    assert "^" in answer["error"]["traceback"]


@pytest.mark.parametrize("name", ["ses_nothing", "x", "ses_" + "A" * 43, "ses_%00", "sbx1"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/execute"),
        ("POST", "/interrupt"),
        ("GET", "/files"),
        ("GET", "/files/a"),
        ("PUT", "/files/a"),
        ("DELETE", "/files/a"),
    ],
)
def test_unknown_session(client: httpx2.Client, method: str, path: str, name: str) -> None:
    content = {"POST": b'{"code": "1"}' if "execute" in path else b"", "PUT": b"x"}.get(method)
    headers = OCTETS if method == "PUT" else JSON
    response = client.request(method, f"/api/sessions/{name}{path}", content=content, headers=headers)
    assert_problem(response, 404, "session-not-found")


def test_deleted_session(client: httpx2.Client) -> None:
    name = client.post("/api/sessions", json={}).json()["id"]
    assert client.delete(f"/api/sessions/{name}").status_code == 204
    for response in (
        client.get(f"/api/sessions/{name}"),
        client.delete(f"/api/sessions/{name}"),
        client.post(f"/api/sessions/{name}/execute", json={"code": "1"}),
        client.get(f"/api/sessions/{name}/files"),
    ):
        assert_problem(response, 410, "session-ended", reason="deleted")


@pytest.mark.parametrize("name", ["exe_nothing", "x"])
def test_unknown_execution(client: httpx2.Client, name: str) -> None:
    assert_problem(client.get(f"/api/executions/{name}"), 404, "execution-not-found")
    assert_problem(client.get(f"/api/executions/{name}/events"), 404, "execution-not-found")


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "9" * 30, "%C2%B2"])
def test_bad_event_number(client: httpx2.Client, after: str) -> None:
    assert_problem(
        client.get(f"/api/executions/exe_1/events?after={after}"), 422, "invalid-request", field="after"
    )


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/execute", "POST"),
        ("PUT", "/api/sessions", "GET, POST"),
        ("PUT", "/api/sessions/x", "DELETE, GET, PATCH"),
        ("PATCH", "/api/sessions/x/files/a", "DELETE, GET, HEAD, POST, PUT"),
        ("HEAD", "/healthz", "GET"),
        ("OPTIONS", "/api/execute", "POST"),
    ],
)
def test_wrong_method(client: httpx2.Client, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow
    if method != "HEAD":
        assert_problem(response, 405, "method-not-allowed")


@pytest.mark.parametrize("path", ["/api", "/api/nothing", "/api/execute/", "/docs/nothing", "/docs/assets/x"])
def test_unknown_route(client: httpx2.Client, path: str) -> None:
    assert_problem(client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"/etc/passwd", "invalid-path"),
        (b"%2Fetc/passwd", "invalid-path"),
        (b"..%2F..%2Fetc/passwd", "invalid-path"),
        (b"a/../../b", "invalid-path"),
        (b"a%00b", "invalid-path"),
        (b"", "invalid-path"),
        (b"x" * 300, "invalid-path"),
        (b"a//b", "invalid-path"),
    ],
)
def test_file_paths(client: httpx2.Client, session_id: str, raw: bytes, name: str) -> None:
    # Other clients tidy paths up before they send them.
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=20)
    for method, content in (("GET", None), ("PUT", b"x"), ("DELETE", None)):
        path = f"/api/sessions/{session_id}/files/{raw.decode()}"
        connection.request(method, path, body=content, headers=OCTETS)
        answer = connection.getresponse()
        response = httpx2.Response(answer.status, headers=answer.getheaders(), content=answer.read())
        assert_problem(response, 422, name)
    connection.close()


def test_symlinks_and_others_are_not_followed(client: httpx2.Client, session_id: str) -> None:
    code = "import os\nos.symlink('/etc/passwd', 'link')\nos.mkfifo('pipe')\nos.mkdir('folder')\n"
    code += "os.symlink('/etc', 'up')"
    base = f"/api/sessions/{session_id}"
    assert client.post(f"{base}/execute", json={"code": code}).json()["status"] == "ok"
    for name in ("link", "pipe", "folder"):
        assert_problem(client.get(f"{base}/files/{name}"), 409, "not-a-regular-file")
    response = client.get(f"{base}/files/up/passwd")
    assert response.status_code in (404, 409), response.text
    assert client.put(f"{base}/files/up/x", content=b"x", headers=OCTETS).status_code in (404, 409)
    assert client.get(f"{base}/files").json()["files"] == []


def test_files_over_the_quota(client: httpx2.Client) -> None:
    name = client.post("/api/sessions", json={"workspace_mb": 1}).json()["id"]
    base = f"/api/sessions/{name}"
    big = b"x" * (1 << 20)
    assert_problem(client.put(f"{base}/files/a", content=big + b"x", headers=OCTETS), 413, "too-large")
    assert client.put(f"{base}/files/half", content=big[: 600 * 1024], headers=OCTETS).status_code == 200
    assert_problem(
        client.put(f"{base}/files/rest", content=big[: 600 * 1024], headers=OCTETS), 507, "quota-exceeded"
    )
    body = {"code": "print(1)", "files": {"small": "x", "large": "x" * 600 * 1024}}
    assert_problem(client.post(f"{base}/execute", json=body), 507, "quota-exceeded")
    assert [file["path"] for file in client.get(f"{base}/files").json()["files"]] == ["half"], "half done"
    assert client.post(f"{base}/execute", json={"code": "1"}).json()["status"] == "ok"
    assert client.delete(base).status_code == 204


def test_files_that_are_in_each_others_way(client: httpx2.Client, execute_path: str) -> None:
    response = client.post(execute_path, json={"code": "1", "files": {"a": "x", "a/b": "x"}})
    assert_problem(response, 409, "conflict")


def test_the_server_is_well_afterwards(client: httpx2.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.post("/api/execute", content=json.dumps({"code": "1+1"}), headers=JSON).json()[
        "results"
    ] == [{"text/plain": "2"}]
