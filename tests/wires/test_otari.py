"""Otari's code-execution protocol, version 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest


class Session:
    """One leased session, and its calls."""

    def __init__(self, client: httpx2.Client, name: str) -> None:
        self.client = client
        self.path = f"/otari/sessions/{name}"

    def call(self, tool: str, **given: Any) -> dict[str, Any]:
        more = {key: given.pop(key) for key in ("timeout_seconds", "tool_use_id") if key in given}
        answer = self.client.post(self.path + "/exec", json={"tool": tool, "input": given, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["result_block"]["tool_use_id"] == found["tool_use_id"]
        assert found["execution_time_ms"] >= 0
        return found

    def result(self, tool: str, **given: Any) -> dict[str, Any]:
        block = self.call(tool, **given)["result_block"]
        assert block["type"] == f"{tool}_tool_result"
        content: dict[str, Any] = block["content"]
        assert content["type"] == "code_execution_result"
        return content

    def edit(self, command: str, path: str, **given: Any) -> dict[str, Any]:
        return self.result("text_editor_code_execution", command=command, path=path, **given)


@pytest.fixture
def session(client: httpx2.Client) -> Iterator[Session]:
    made = client.post("/otari/sessions", json={"idle_timeout_seconds": 120})
    assert made.status_code == 201, made.text
    handle = made.json()
    assert (handle["idle_timeout_seconds"], handle["created_at"]) == (120, handle["last_activity_at"])
    session = Session(client, handle["session_id"])
    yield session
    assert client.delete(session.path).status_code in (204, 404)


@pytest.mark.compat("Otari", "code, its state")
def test_state_stays(session: Session) -> None:
    assert session.result("code_execution", code="x = 41")["stdout"] == ""
    assert session.result("code_execution", code="print('so:'); x + 1")["stdout"] == "so:\n42\n"


def test_the_id_of_a_call_comes_back(session: Session) -> None:
    assert session.call("code_execution", code="1", tool_use_id="srvtoolu_x")["tool_use_id"] == "srvtoolu_x"
    assert session.call("code_execution", code="1")["tool_use_id"]


def test_code_that_fails_is_an_answer(session: Session) -> None:
    failed = session.result("code_execution", code="1 / 0")
    assert (failed["return_code"], "ZeroDivisionError" in failed["stderr"]) == (1, True)


def test_code_that_takes_too_long_is_an_answer(session: Session) -> None:
    late = session.result("code_execution", code="while True: pass", timeout_seconds=1)
    assert late["return_code"] == 1
    assert "\ntimeout: " in late["stderr"]


@pytest.mark.compat("Otari", "shell commands")
def test_a_command_has_its_exit_status(session: Session) -> None:
    done = session.result("bash_code_execution", command="echo out; echo err >&2; exit 3")
    assert (done["stdout"], done["stderr"], done["return_code"]) == ("out\n", "err\n", 3)
    assert session.result("bash_code_execution", command="exit 4")["stderr"]


def test_files_that_code_made_are_named(session: Session) -> None:
    made = session.result(
        "code_execution", code="import os; os.mkdir('a'); open('a/b.txt', 'w').write('hello')"
    )
    assert made["content"] == [{"type": "code_execution_output", "file_id": "a/b.txt", "filename": "b.txt"}]
    listed = session.client.get(session.path + "/files/list", params={"path": "."}).json()["files"]
    assert [(one["path"], one["size_bytes"]) for one in listed] == [("a/b.txt", 5)]
    read = session.client.get(session.path + "/files", params={"path": "a/b.txt"})
    assert (read.status_code, read.text, read.headers["content-disposition"]) == (200, "hello", "attachment")


@pytest.mark.compat("Otari", "the editor")
def test_the_editor(session: Session) -> None:
    text = "one\ntwo\nthree\n"
    assert session.edit("create", "a.txt", file_text=text)["stdout"] == "Created a.txt"
    assert session.edit("create", "/workspace/a.txt", file_text=text)["stdout"] == "Replaced a.txt"
    seen = session.edit("view", "a.txt", view_range=[2, -1])["stdout"]
    assert seen == "     2\ttwo\n     3\tthree"
    changed = session.edit("str_replace", "a.txt", old_str="two", new_str="2\n2b")["stdout"]
    assert changed == "Changed a.txt, line 2:\n-two\n+2\n+2b"
    assert session.edit("insert", "a.txt", insert_line=0, new_str="zero")["stdout"].endswith("+zero")
    assert session.result("code_execution", code="print(open('a.txt').read())")["stdout"] == (
        "zero\none\n2\n2b\nthree\n\n"
    )
    assert session.edit("view", ".")["stdout"] == "a.txt"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"command": "view", "path": "gone.txt"}, "there is no file"),
        ({"command": "view", "path": "/etc/passwd"}, "files of /workspace only"),
        ({"command": "view", "path": "../etc/passwd"}, "path: "),
        ({"command": "view", "path": "a.txt", "view_range": [3, 9]}, "the file has lines 1 to 2"),
        ({"command": "view", "path": "a.txt", "view_range": "all"}, "two line numbers"),
        ({"command": "str_replace", "path": "a.txt", "old_str": "same"}, "is in the file 2 times"),
        ({"command": "str_replace", "path": "a.txt", "old_str": "other"}, "is not in the file"),
        ({"command": "str_replace", "path": "a.txt", "old_str": ""}, "use insert"),
        ({"command": "insert", "path": "a.txt", "insert_line": 3, "new_str": "x"}, "from 0 to 2"),
        ({"command": "insert", "path": "a.txt", "insert_line": True, "new_str": "x"}, "from 0 to 2"),
        ({"command": "create", "path": "b.txt"}, "file_text: a text is needed"),
        ({"command": "undo_edit", "path": "a.txt"}, "there is no command 'undo_edit'"),
        ({"path": "a.txt"}, "there is no command"),
        ({"command": "view"}, "path: a text is needed"),
    ],
)  # fmt: skip
def test_the_editor_says_what_was_wrong(session: Session, given: dict[str, Any], said: str) -> None:
    session.edit("create", "a.txt", file_text="same\nsame\n")
    refused = session.result("text_editor_code_execution", **given)
    assert (refused["return_code"], refused["stdout"]) == (1, "")
    assert said in refused["stderr"]


def test_the_editor_leaves_other_files_alone(session: Session) -> None:
    code = "import os; open('raw', 'wb').write(b'\\xff'); open('big', 'wb').write(bytes(2**20 + 1)); os.symlink('/etc/passwd', 'link')"
    session.result("code_execution", code=code)
    assert "no UTF-8" in session.edit("view", "raw")["stderr"]
    assert "too many for the editor" in session.edit("view", "big")["stderr"]
    assert session.edit("view", "link")["return_code"] == 1
    assert session.edit("str_replace", "link", old_str="root", new_str="x")["return_code"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tool": "no_such_tool", "input": {}}, 422),
        ({"tool": "code_execution", "input": {}}, 422),
        ({"tool": "code_execution", "input": {"code": ""}}, 422),
        ({"tool": "code_execution", "input": {"code": "1"}, "timeout_seconds": 0}, 422),
        ({"input": {"code": "1"}}, 422),
    ],
)
def test_what_is_no_call_is_refused(session: Session, body: dict[str, Any], status: int) -> None:
    answer = session.client.post(session.path + "/exec", json=body)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


def test_what_is_not_there(client: httpx2.Client, session: Session) -> None:
    body = {"tool": "code_execution", "input": {"code": "1"}}
    assert client.post("/otari/sessions/none/exec", json=body).status_code == 404
    assert client.get(session.path + "/files", params={"path": "none"}).status_code == 404
    assert client.get(session.path + "/files", params={"path": "../../etc/passwd"}).status_code == 403
    assert client.get(session.path + "/files").status_code == 422
    assert client.get("/otari/nothing").json()["type"] == "not-found"
    assert client.delete(session.path).status_code == 204
    assert client.post(session.path + "/exec", json=body).status_code == 404


@pytest.mark.compat("Otari", "files")
def test_a_file_is_written(session: Session) -> None:
    path = session.path + "/files"
    written = session.client.post(path, files={"file": ("a.txt", b"hello")}, data={"path": "b/c.txt"})
    assert (written.status_code, written.json()) == (201, {"path": "b/c.txt", "size_bytes": 5})
    named = session.client.post(path, files={"file": ("a.txt", b"hi")})
    assert named.json()["path"] == "a.txt"
    assert session.result("code_execution", code="print(open('b/c.txt').read())")["stdout"] == "hello\n"
    out = session.client.post(path, files={"file": ("a.txt", b"x")}, data={"path": "../out"})
    assert out.status_code == 403
    listed = session.client.get(path + "/list").json()["files"]
    assert [one["path"] for one in listed] == ["a.txt", "b/c.txt"]
