"""LibreChat's code API, with the requests that its agents and its server send."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

ID = re.compile(r"[A-Za-z0-9_-]{21}")
"""What LibreChat's own routes accept."""
WEATHER = {
    "name": "get-weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLS = """\
names = ["Oslo", "Rome"]
found = await asyncio.gather(*(get_weather(city=name) for name in names))
print(dict(zip(names, found)))
"""


def run(client: httpx2.Client, code: str, lang: str = "py", **more: Any) -> dict[str, Any]:
    answer = client.post("/librechat/exec", json={"lang": lang, "code": code, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert ID.fullmatch(found["session_id"])
    return found


def program(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/librechat/exec/programmatic", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refs(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """As LibreChat sends an answer's files with the next program."""
    return [
        {
            "id": one["id"],
            "name": one["name"],
            "storage_session_id": one["storage_session_id"],
            "kind": "user",
        }
        for one in answer["files"]
    ]


def sessions(client: httpx2.Client) -> set[str]:
    return {one["id"] for one in client.get("/api/sessions").json()["sessions"]}


@pytest.mark.compat("LibreChat", "/exec: Python and bash")
def test_programs(client: httpx2.Client) -> None:
    before = sessions(client)
    answer = run(client, "import sys\nprint('hi', sys.argv[1:])\n42", args=["a", "b c"])
    assert (answer["stdout"], answer["stderr"], answer["files"]) == ("hi ['a', 'b c']\n", "", [])
    assert run(client, 'echo "$2" $0; echo no >&2', "bash", args=["a", "b c"])["stdout"].startswith("b c ")
    failed = run(client, "print('so far')\n1 / 0")
    assert (failed["stdout"], failed["status"], failed["error"]) == (
        "so far\n",
        "error",
        "Sandbox exited with code 1",
    )
    assert "ZeroDivisionError" in failed["stderr"]
    late = run(client, "while True: pass", timeout=1000)
    assert late["error"] == "Time limit exceeded"
    assert sessions(client) == before, "what leaves no files leaves no session"


@pytest.mark.compat(
    "LibreChat", "files: made by programs, given to the next one, downloaded, listed, deleted"
)
def test_files(client: httpx2.Client) -> None:
    first = run(client, "open('/mnt/data/table.csv', 'w').write('a,b')\nkept = 1")
    file = first["files"][0]
    assert (file["name"], bool(ID.fullmatch(file["id"]))) == ("table.csv", True)
    place = f"{first['session_id']}/{file['id']}"
    download = client.get(f"/librechat/download/{place}")
    assert (download.content, "attachment" in download.headers["content-disposition"]) == (b"a,b", True)
    # The next program finds it, in an interpreter of its own.
    second = run(client, "print(open('table.csv').read(), 'kept' in globals())", files=refs(first))
    assert (second["stdout"], second["session_id"]) == ("a,b False\n", first["session_id"])
    summary = client.get(f"/librechat/files/{first['session_id']}", params={"detail": "summary"}).json()
    assert [one["name"] for one in summary] == [place + ".csv"]
    assert summary[0]["lastModified"]
    full = client.get(f"/librechat/files/{first['session_id']}", params={"detail": "full"}).json()
    assert (full[0]["id"], full[0]["metadata"]["original-filename"]) == (file["id"], "table.csv")
    assert client.delete(f"/librechat/files/{place}").status_code == 200
    assert client.get(f"/librechat/download/{place}").status_code == 404


@pytest.mark.compat("LibreChat", "uploads")
def test_uploads(client: httpx2.Client) -> None:
    sent = client.post(
        "/librechat/upload", data={"entity_id": "agent"}, files={"file": ("notes.txt", b"a note")}
    ).json()
    assert sent["message"] == "success"
    upload = {"id": sent["files"][0]["fileId"], "name": "notes.txt", "session_id": sent["session_id"]}
    place = f"{sent['session_id']}/{upload['id']}"
    summary = client.get(f"/librechat/files/{sent['session_id']}", params={"detail": "summary"}).json()
    assert any(one["name"].startswith(place) and one["lastModified"] for one in summary)
    # Beside a file of an earlier program, whose workspace it comes into.
    first = run(client, "open('made.txt', 'w').write('made')")
    code = "print(open('notes.txt').read(), open('/mnt/data/made.txt').read())"
    second = run(client, code, files=[*refs(first), upload])
    assert (second["stdout"], second["session_id"]) == ("a note made\n", first["session_id"])
    assert client.get(f"/librechat/download/{place}").content == b"a note"
    assert client.delete(f"/librechat/files/{place}").status_code == 200
    lost = run(client, "print('on')", files=[upload])
    assert "notes.txt is not there any more" in lost["stderr"]


@pytest.mark.compat("LibreChat", "/exec/programmatic: calls in parallel, by live suspension")
def test_tools(client: httpx2.Client) -> None:
    before = sessions(client)
    # What ran before the calls is not run again: the file has one line.
    code = "print('once')\nopen('log.txt', 'a').write('once\\n')\n" + CALLS
    asked = program(client, code=code, tools=[WEATHER], timeout=20_000)
    assert asked["status"] == "tool_call_required"
    calls = asked["tool_calls"]
    assert [(one["name"], one["input"]) for one in calls] == [
        ("get-weather", {"city": "Oslo"}),
        ("get-weather", {"city": "Rome"}),
    ]
    results = [
        {"call_id": calls[0]["id"], "result": {"sky": "grey"}, "is_error": False},
        {"call_id": calls[1]["id"], "result": "sun", "is_error": False},
    ]
    done = program(client, continuation_token=asked["continuation_token"], tool_results=results)
    assert (done["status"], done["stdout"]) == (
        "completed", "once\n{'Oslo': {'sky': 'grey'}, 'Rome': 'sun'}\n",
    )  # fmt: skip
    log = client.get(f"/librechat/download/{done['session_id']}/{done['files'][0]['id']}")
    assert log.content == b"once\n"
    assert len(sessions(client) - before) == 1, "of its file"


def test_several_rounds_and_a_tool_that_fails(client: httpx2.Client) -> None:
    before = sessions(client)
    code = "for name in ('Oslo', 'Rome'):\n    try:\n        print(await get_weather(city=name))\n    except Exception as error:\n        print('failed:', error)"
    answer = program(client, code=code, tools=[WEATHER])
    for result in ({"result": "grey"}, {"result": None, "is_error": True, "error_message": "no such city"}):
        assert answer["status"] == "tool_call_required"
        given = [{"call_id": answer["tool_calls"][0]["id"], **result}]
        answer = program(client, continuation_token=answer["continuation_token"], tool_results=given)
    assert answer["status"] == "completed"
    assert answer["stdout"].splitlines()[0] == "grey"
    assert "no such city" in answer["stdout"]
    assert sessions(client) == before


def test_a_program_with_tools_that_fails(client: httpx2.Client) -> None:
    answer = program(client, code="print('a')\nmissing", tools=[WEATHER])
    assert (answer["status"], answer["error"], answer["stdout"]) == (
        "error",
        "Sandbox exited with code 1",
        "a\n",
    )
    assert "NameError" in answer["stderr"]


def test_programs_of_a_conversation_share_a_workspace(client: httpx2.Client) -> None:
    hint = {"runtime_session_hint": "conversation 7"}
    first = run(client, "open('a.txt', 'w').write('kept')", **hint)
    second = run(client, "print(open('a.txt').read())", **hint)
    assert (second["stdout"], second["session_id"]) == ("kept\n", first["session_id"])


@pytest.mark.compat("LibreChat", "other languages", cannot="there are Python and bash")
def test_other_languages(client: httpx2.Client) -> None:
    answer = client.post("/librechat/exec", json={"lang": "rs", "code": "fn main() {}"})
    assert (answer.status_code, "py and bash" in answer.json()["message"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/exec", {"code": "1"}, 422),
        ("/exec", {"lang": "py", "code": ""}, 422),
        ("/exec/programmatic", {"code": "1"}, 422),
        ("/exec/programmatic", {"tools": [WEATHER]}, 422),
        ("/exec/programmatic", {"code": "1", "tools": [WEATHER, {"name": "get_weather"}]}, 422),
        ("/exec/programmatic", {"code": "1", "tools": [{"name": "!"}]}, 422),
        ("/exec/programmatic", {"continuation_token": "exe_x.e30", "tool_results": [{"call_id": "1"}]}, 404),
        ("/exec/programmatic", {"continuation_token": "\u00fc", "tool_results": [{"call_id": "1"}]}, 404),
    ],
)
def test_what_is_refused(client: httpx2.Client, path: str, body: dict[str, Any], status: int) -> None:
    before = sessions(client)
    answer = client.post("/librechat" + path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
    assert sessions(client) == before


def test_what_is_not_there(client: httpx2.Client) -> None:
    nowhere = "a" * 21
    assert client.get(f"/librechat/files/{nowhere}").status_code == 404
    assert client.get(f"/librechat/download/{nowhere}/{nowhere}").status_code == 404
    assert client.delete(f"/librechat/files/{nowhere}/{nowhere}").status_code == 404
