"""dify's sandbox protocol."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest


def run(client: httpx2.Client, code: str, **more: Any) -> dict[str, Any]:
    body = {"language": "python3", "code": code, "preload": "", "enable_network": True, **more}
    answer = client.post("/dify/v1/sandbox/run", json=body)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


# What dify makes of a node's code: it takes the result out of what is printed.
NODE = """\
def main(x):
    return {"result": x * 2}

from base64 import b64decode
import json
inputs = json.loads(b64decode("eyJ4IjogMjF9"))
print(f"<<RESULT>>{json.dumps(main(**inputs), indent=4)}<<RESULT>>")
"""


@pytest.mark.compat("dify", "run Python")
def test_a_node(client: httpx2.Client) -> None:
    answer = run(client, NODE)
    assert (answer["code"], answer["message"], answer["data"]["error"]) == (0, "success", "")
    assert answer["data"]["stdout"] == '<<RESULT>>{\n    "result": 42\n}<<RESULT>>\n'
    # A script shows no values, and warnings are no failure.
    data = run(client, "import sys; print('w', file=sys.stderr)\n42")["data"]
    assert data == {"stdout": "", "stderr": "w\n", "error": "", "exit_code": 0}
    assert run(client, "print(before)", preload="before = 7")["data"]["stdout"] == "7\n"


@pytest.mark.compat("dify", "errors of code")
def test_code_that_fails(client: httpx2.Client) -> None:
    data = run(client, "print('so far'); 1 / 0")["data"]
    assert (data["stdout"], data["exit_code"]) == ("so far\n", 1)
    assert "ZeroDivisionError" in data["error"]


def test_no_network(client: httpx2.Client) -> None:
    data = run(client, "import socket; socket.create_connection(('192.0.2.1', 80), 5)")["data"]
    assert "unreachable" in data["error"]


@pytest.mark.compat("dify", "packages listed")
def test_packages(client: httpx2.Client) -> None:
    for path in ("", "/refresh"):
        answer = client.get(f"/dify/v1/sandbox/dependencies{path}?language=python3").json()
        assert "pandas" in {one["name"] for one in answer["data"]["dependencies"]}
    assert client.get("/dify/health").json() == "ok"


@pytest.mark.compat("dify", "JavaScript", cannot="there is Python only")
def test_other_languages(client: httpx2.Client) -> None:
    answer = client.post("/dify/v1/sandbox/run", json={"language": "nodejs", "code": "1"})
    assert (answer.status_code, answer.json()["code"]) == (400, -400)
    assert "python3" in answer.json()["message"]


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"language": "python3", "code": ""}', b"[]"])
def test_what_is_no_request(client: httpx2.Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/dify/v1/sandbox/run", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (200, -400), answer.text
