"""Code over HTTP: the whole answer, events, files, limits, and asking again."""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import httpx2
import pytest

from onehop.sessions import Answer
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem

EVENTS = {"accept": "text/event-stream"}


def parsed(text: str) -> list[tuple[int, str, Any]]:
    """Number, kind and data of each event; checks the form of every line."""
    found = []
    for block in text.split("\n\n"):
        lines = block.split("\n")
        if not block or block.startswith(":"):
            continue
        assert [line.partition(": ")[0] for line in lines] == ["id", "event", "data"], block
        number, kind, data = (line.partition(": ")[2] for line in lines)
        found.append((int(number), kind, json.loads(data)))
    return found


def execute(client: httpx2.Client, session_id: str, code: str, **fields: Any) -> dict[str, Any]:
    response = client.post(f"/api/sessions/{session_id}/execute", json={"code": code, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_whole_answer(client: httpx2.Client) -> None:
    code = "import sys\nprint('out é')\nprint('err', file=sys.stderr)\n6 * 7"
    response = client.post("/api/execute", json={"code": code})
    answer = response.json()
    assert set(answer) == set(Answer.__struct_fields__) - {"exit_code"}  # commands only
    usage, isolation = answer.pop("usage"), answer.pop("isolation")
    assert answer.pop("id") == response.headers["onehop-execution-id"]
    assert answer == {
        "session": None,
        "status": "ok",
        "stdout": "out é\n",
        "stderr": "err\n",
        "results": [{"text/plain": "42"}],
        "error": None,
        "files": [],
        "files_truncated": False,
        "tool_calls": [],
        "truncated": False,
        "output_file": None,
        "variables": "kept",
        "reason": "",
    }
    assert usage["wall_ms"] > 0
    assert isolation["level"] == "process"
    assert set(isolation) == {"level", "memory", "pids", "network"}


def test_an_error_of_the_code(client: httpx2.Client) -> None:
    answer = client.post("/api/execute", json={"code": "1/0"}).json()
    assert answer["status"] == "error"
    assert answer["error"]["name"] == "ZeroDivisionError"
    assert answer["error"]["value"] == "division by zero"
    assert "1/0" in answer["error"]["traceback"]


def test_one_shots_share_nothing(client: httpx2.Client) -> None:
    assert (
        client.post("/api/execute", json={"code": "x = 1\nopen('f', 'w').close()"}).json()["status"] == "ok"
    )
    code = "import os\nprint('x' in dir(), os.path.exists('f'))"
    assert client.post("/api/execute", json={"code": code}).json()["stdout"] == "False False\n"


def test_stdin_env_and_files(client: httpx2.Client) -> None:
    code = "import os\nprint(input(), os.environ['NAME'], open('d/a.txt').read(), open('b', 'rb').read())"
    body = {
        "code": code,
        "stdin": "line\n",
        "env": {"NAME": "value"},
        "files": {"d/a.txt": "text é", "b": {"base64": "AAH/"}},
    }
    answer = client.post("/api/execute", json=body).json()
    assert answer["stdout"] == "line value text é b'\\x00\\x01\\xff'\n"
    assert answer["files"] == [], "uploaded, not made by the code"


def test_changed_files(client: httpx2.Client, session_id: str) -> None:
    assert execute(client, session_id, "1", files={"given": "x"})["files"] == []
    made = execute(client, session_id, "import os\nos.makedirs('d')\nopen('d/a', 'w').write('12345')")
    assert made["files"] == [{"path": "d/a", "bytes": 5}]
    assert execute(client, session_id, "1")["files"] == []
    again = execute(client, session_id, "open('given', 'w').write('y')\nopen('d/b', 'w').write('1')")
    assert again["files"] == [{"path": "d/b", "bytes": 1}, {"path": "given", "bytes": 1}]
    put = client.put(
        f"/api/sessions/{session_id}/files/put",
        content=b"1",
        headers={"content-type": "application/octet-stream"},
    )
    assert put.status_code == 200
    assert execute(client, session_id, "open('put').read()")["files"] == []


def test_returned_files(client: httpx2.Client) -> None:
    body = {"code": "open('a.bin', 'wb').write(bytes(range(256)))\nopen('empty', 'w')", "return_files": True}
    answer = client.post("/api/execute", json=body).json()
    assert answer["files"] == [
        {"path": "a.bin", "bytes": 256, "base64": base64.b64encode(bytes(range(256))).decode()},
        {"path": "empty", "bytes": 0, "base64": ""},
    ]


def test_pictures_are_base64(client: httpx2.Client, session_id: str) -> None:
    code = "from IPython.display import Image, display\nimport base64\n"
    code += "display(Image(data=base64.b64decode(b'iVBORw0KGgo='), format='png'))"
    results = execute(client, session_id, code)["results"]
    assert base64.b64decode(results[0]["image/png"]).startswith(b"\x89PNG")


def test_output_over_the_limit_is_spilled(client: httpx2.Client, session_id: str) -> None:
    answer = execute(client, session_id, "print('x' * 100_000)", output_bytes=1000)
    assert answer["truncated"] is True
    assert answer["stdout"] == "x" * 1000
    spilled = answer["output_file"]
    assert spilled["bytes"] == 99_001
    assert answer["files"] == [], "the spill file is no file of the code"
    content = client.get(f"/api/sessions/{session_id}/files/{spilled['path']}").content
    assert content == b"x" * 99_000 + b"\n"


def test_a_timeout_keeps_the_session(client: httpx2.Client, session_id: str) -> None:
    execute(client, session_id, "x = 41")
    answer = execute(client, session_id, "while True: pass", timeout_s=0.2)
    assert answer["status"] == "timeout"
    assert answer["variables"] == "kept"
    assert answer["reason"]
    assert execute(client, session_id, "x + 1")["results"] == [{"text/plain": "42"}]


def test_a_one_shot_timeout(client: httpx2.Client) -> None:
    answer = client.post("/api/execute", json={"code": "while True: pass", "timeout_s": 0.2}).json()
    assert (answer["status"], answer["variables"]) == ("timeout", "lost")


def test_out_of_memory_ends_the_session(client: httpx2.Client) -> None:
    session_id = client.post("/api/sessions", json={"memory_mb": 128}).json()["id"]
    answer = execute(client, session_id, "x = bytearray(1 << 30)\nfor i in range(0, len(x), 4096): x[i] = 1")
    if answer["status"] != "error":  # rlimits raise MemoryError where there is no control group
        assert answer["status"] == "out_of_memory"
        response = client.post(f"/api/sessions/{session_id}/execute", json={"code": "1"})
        assert_problem(response, 410, "session-ended", reason="out_of_memory")


def test_forged_frames_end_the_session_and_nobody_else(client: httpx2.Client, session_id: str) -> None:
    victim = client.post("/api/sessions", json={}).json()["id"]
    code = """
import os, stat
for fd in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, b'\\xff' * 64)
    except OSError:
        pass
"""
    answer = execute(client, victim, code)
    assert answer["status"] == "protocol_error"
    assert_problem(
        client.post(f"/api/sessions/{victim}/execute", json={"code": "1"}),
        410,
        "session-ended",
        reason="protocol_error",
    )
    assert execute(client, session_id, "1 + 1")["results"] == [{"text/plain": "2"}]


def test_events(client: httpx2.Client, session_id: str) -> None:
    code = "print('a')\nprint('b\\n')\ndisplay('x')\nopen('f', 'w').write('1')\n1/0"
    response = client.post(f"/api/sessions/{session_id}/execute", json={"code": code}, headers=EVENTS)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = parsed(response.text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert "".join(data["text"] for _, kind, data in events if kind == "stdout") == "a\nb\n\n"
    assert [data for _, kind, data in events if kind == "result"] == [
        {"data": {"text/plain": "'x'"}, "final": False}
    ]
    assert [kind for _, kind, _ in events][-2:] == ["error", "end"]
    assert events[-2][2]["name"] == "ZeroDivisionError"
    end = events[-1][2]
    assert end["status"] == "error"
    assert end["files"] == [{"path": "f", "bytes": 1}]
    assert end["id"] == response.headers["onehop-execution-id"]
    assert "stdout" not in end


def test_events_come_while_it_runs(client: httpx2.Client, session_id: str) -> None:
    code = "print('first', flush=True)\nimport os, time\n"
    code += "while not os.path.exists('go'): time.sleep(0.01)\nprint('last')"
    path = f"/api/sessions/{session_id}/execute"
    with client.stream("POST", path, json={"code": code}, headers=EVENTS) as response:
        text = ""
        for piece in response.iter_text():
            text += piece
            if "first" in text and "last" not in text:
                busy = client.post(path, json={"code": "1"})
                assert_problem(busy, 409, "session-busy", execution=response.headers["onehop-execution-id"])
                running = client.get(f"/api/executions/{response.headers['onehop-execution-id']}").json()
                assert (running["status"], running["stdout"], running["usage"]) == (
                    "running",
                    "first\n",
                    None,
                )
                headers = {"content-type": "application/octet-stream"}
                assert client.put(
                    f"/api/sessions/{session_id}/files/go", content=b"", headers=headers
                ).is_success
    assert parsed(text)[-1][2]["status"] == "ok"


def test_asked_again(client: httpx2.Client, session_id: str) -> None:
    response = client.post(f"/api/sessions/{session_id}/execute", json={"code": "print('a')\n1 + 1"})
    path = f"/api/executions/{response.json()['id']}"
    assert client.get(path).json() == response.json()
    events = parsed(client.get(f"{path}/events").text)
    assert [kind for _, kind, _ in events] == ["stdout", "result", "end"]
    assert parsed(client.get(f"{path}/events?after=1").text) == events[1:]
    assert parsed(client.get(f"{path}/events", headers={"last-event-id": "2"}).text) == events[2:]
    assert parsed(client.get(f"{path}/events?after=99").text) == []


def test_a_client_that_goes_away_disturbs_nothing(
    client: httpx2.Client, gateway: Gateway, session_id: str
) -> None:
    code = "print('there', flush=True)\nimport os, time\n"
    code += "while not os.path.exists('go'): time.sleep(0.01)\ndone = True"
    path = f"/api/sessions/{session_id}/execute"
    with httpx2.Client(base_url=gateway.url, timeout=30) as other:
        with other.stream("POST", path, json={"code": code}, headers=EVENTS) as response:
            execution = response.headers["onehop-execution-id"]
            next(response.iter_text())
    headers = {"content-type": "application/octet-stream"}
    assert client.put(f"/api/sessions/{session_id}/files/go", content=b"", headers=headers).is_success
    events = parsed(client.get(f"/api/executions/{execution}/events").text)  # waits for the end
    assert events[-1][1] == "end"
    assert events[-1][2]["status"] == "ok"
    assert execute(client, session_id, "done")["results"] == [{"text/plain": "True"}]


def test_interrupt(client: httpx2.Client, gateway: Gateway, session_id: str) -> None:
    interrupt = f"/api/sessions/{session_id}/interrupt"
    assert client.post(interrupt, json={}).json() == {"interrupted": False}
    execute(client, session_id, "x = 1")
    answers: list[dict[str, Any]] = []

    def run() -> None:
        with httpx2.Client(base_url=gateway.url, timeout=30) as other:
            answers.append(execute(other, session_id, "import time\nopen('on', 'w').close()\ntime.sleep(60)"))

    runner = threading.Thread(target=run)
    runner.start()
    while client.get(f"/api/sessions/{session_id}/files/on").status_code == 404:
        pass
    assert client.post(interrupt, content=b"", headers={"content-type": "application/json"}).json() == {
        "interrupted": True
    }
    runner.join(30)
    assert answers[0]["status"] == "interrupted"
    assert execute(client, session_id, "x")["results"] == [{"text/plain": "1"}]


def test_deleted_while_it_runs(client: httpx2.Client, gateway: Gateway) -> None:
    session_id = client.post("/api/sessions", json={}).json()["id"]
    path = f"/api/sessions/{session_id}/execute"
    with httpx2.Client(base_url=gateway.url, timeout=30) as other:
        code = "print('on', flush=True)\nimport time\ntime.sleep(60)"
        with other.stream("POST", path, json={"code": code}, headers=EVENTS) as response:
            text = ""
            for piece in response.iter_text():
                text += piece
                if "stdout" in text and "end" not in text:
                    assert client.delete(f"/api/sessions/{session_id}").status_code == 204
    assert parsed(text)[-1][2]["status"] == "killed"


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "import os; os.kill(os.getpid(), 9)"])
def test_a_dead_kernel_is_replaced(client: httpx2.Client, session_id: str, code: str) -> None:
    execute(client, session_id, "x = 1\nopen('f', 'w').write('kept')")
    answer = execute(client, session_id, code)
    assert (answer["status"], answer["variables"]) == ("kernel_died", "lost")
    assert execute(client, session_id, "print('x' in dir(), open('f').read())")["stdout"] == "False kept\n"
