"""`onehop sessions` and `onehop files` against a server of their own, as a shell uses them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import END_S, ONEHOP, Server, onehop, variables, wait_until


@pytest.fixture
def session(shared_server: Server) -> Iterator[str]:
    name: str = shared_server.call("POST", "/api/sessions", {"metadata": {"for": "tests"}})["id"]
    yield name
    if name in {one["id"] for one in shared_server.call("GET", "/api/sessions")["sessions"]}:
        shared_server.call("DELETE", f"/api/sessions/{name}")


def call(server: Server, *arguments: str, cwd: Path, code: int = 0, **more: Any) -> Any:
    return onehop(*arguments, cwd=cwd, code=code, ONEHOP_URL=server.url, **more)


def asked(server: Server, *arguments: str, cwd: Path) -> Any:
    return json.loads(call(server, *arguments, "--json", cwd=cwd).stdout)


def test_list_show_extend_delete(shared_server: Server, session: str, tmp_path: Path) -> None:
    text = call(shared_server, "sessions", cwd=tmp_path).stdout
    head, line = text.splitlines()
    assert head.split()[:3] == ["ID", "STATUS", "ENVIRONMENT"]
    assert line.startswith(f"{session}  idle    default")
    assert line.endswith("for=tests")
    assert [one["id"] for one in asked(shared_server, "sessions", "list", cwd=tmp_path)["sessions"]] == [
        session
    ]
    assert asked(shared_server, "sessions", cwd=tmp_path) == asked(
        shared_server, "sessions", "list", cwd=tmp_path
    )

    info = asked(shared_server, "sessions", "show", session[:14], cwd=tmp_path)
    assert info["metadata"] == {"for": "tests"}
    assert "for=tests" in call(shared_server, "sessions", "show", session, cwd=tmp_path).stdout

    changed = asked(
        shared_server, "sessions", "extend", session, "10m", "--idle", "2h", "--pin", cwd=tmp_path
    )
    assert (changed["idle_timeout_s"], changed["pinned"]) == (7200.0, True)
    assert "10m, pinned" in call(shared_server, "sessions", cwd=tmp_path).stdout

    assert asked(shared_server, "sessions", "delete", session, cwd=tmp_path) == {"deleted": [session]}
    done = call(shared_server, "sessions", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "onehop: there are no sessions\n")


def test_files_there_and_back(shared_server: Server, session: str, tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(content := os.urandom(3_000_000))
    short = session[:16]
    assert (
        asked(shared_server, "files", "put", short, "in.bin", cwd=tmp_path)["files"][0]["bytes"] == 3_000_000
    )
    call(shared_server, "files", "put", short, "in.bin", "deep/er/", cwd=tmp_path)
    call(shared_server, "files", "put", short, "-", "note.txt", cwd=tmp_path, stdin="héllo\n")
    paths = [file["path"] for file in asked(shared_server, "files", "list", short, cwd=tmp_path)["files"]]
    assert paths == ["deep/er/in.bin", "in.bin", "note.txt"]
    lines = call(shared_server, "files", "ls", short, cwd=tmp_path).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == paths
    assert lines[0].split()[:2] == ["3.0", "MB"]
    assert time.strftime("%Y-") in lines[0]

    call(shared_server, "files", "get", short, "in.bin", "out.bin", cwd=tmp_path)
    assert (tmp_path / "out.bin").read_bytes() == content
    done = subprocess.run(
        [*ONEHOP, "files", "get", short, "note.txt", "-"],
        env=variables(ONEHOP_URL=shared_server.url),
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == "héllo\n".encode()
    call(shared_server, "files", "rm", short, "in.bin", "note.txt", cwd=tmp_path)
    found = asked(shared_server, "files", "list", short, cwd=tmp_path)
    assert [file["path"] for file in found["files"]] == ["deep/er/in.bin"]


def test_folders_there_and_back(shared_server: Server, session: str, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "a.txt").write_text("a")
    (tmp_path / "tree" / "sub" / "b.txt").write_text("bb")
    (tmp_path / "tree" / "link").symlink_to("/etc/passwd")
    put = asked(shared_server, "files", "put", session, "tree", cwd=tmp_path)["files"]
    assert sorted((one["path"], one["bytes"]) for one in put) == [("tree/a.txt", 1), ("tree/sub/b.txt", 2)]
    call(shared_server, "files", "mv", session, "tree/a.txt", "c.txt", cwd=tmp_path)
    call(shared_server, "files", "put", session, "tree/a.txt", cwd=tmp_path)
    done = call(shared_server, "files", "mv", session, "c.txt", "a.txt", cwd=tmp_path, code=3)
    assert done.stderr.startswith("onehop: ")
    moved = asked(shared_server, "files", "mv", session, "c.txt", "a.txt", "--overwrite", cwd=tmp_path)
    assert moved["path"] == "a.txt"
    got = asked(shared_server, "files", "get", "-r", session, ".", "got", cwd=tmp_path)["files"]
    assert sorted(one["path"] for one in got) == ["got/a.txt", "got/tree/sub/b.txt"]
    assert (tmp_path / "got" / "tree" / "sub" / "b.txt").read_text() == "bb"
    call(shared_server, "files", "get", "-r", session, "tree/sub", cwd=tmp_path)
    assert (tmp_path / "sub" / "b.txt").read_text() == "bb"
    call(shared_server, "files", "rm", session, "tree", cwd=tmp_path, code=3)
    call(shared_server, "files", "rm", "-r", session, "tree", cwd=tmp_path)
    found = asked(shared_server, "files", "list", session, cwd=tmp_path)
    assert [file["path"] for file in found["files"]] == ["a.txt"]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["sessions", "show", "ses_none"], 2, "no session begins with 'ses_none'"),
        (["sessions", "show", "ses_" + "0" * 43], 3, "there is no such session"),
        (["sessions", "delete"], 2, "or all of them with --all"),
        (["sessions", "extend", "{}", "soon"], 2, "expected a time as 90, 30m, 12h or 7d"),
        (["sessions", "extend", "{}"], 2, "say how long"),
        (["files", "get", "{}", "absent.txt"], 3, "absent.txt"),
        (["files", "get", "{}", "../x"], 3, "'..'"),
        (["files", "put", "{}", "absent.txt"], 2, "absent.txt: No such file"),
        (["files", "put", "{}", "-"], 2, "has no name"),
    ],
)
def test_errors_are_one_line_with_the_next_step(
    shared_server: Server, session: str, tmp_path: Path, arguments: list[str], code: int, part: str
) -> None:
    done = call(shared_server, *[one.format(session) for one in arguments], cwd=tmp_path, code=code)
    assert part in done.stderr
    assert done.stderr.startswith("onehop: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_key_is_asked_for_and_comes_from_the_environment(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve()
    key = onehop("keys", "create", "--home", str(server.home), cwd=tmp_path).stdout.strip()
    wait_until(lambda: _refuses(server), END_S, "the server has noticed the key")
    done = call(server, "sessions", cwd=tmp_path, code=3)
    assert "put the key into ONEHOP_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "put the key into ONEHOP_API_KEY" in call(server, "run", "-c", "1", cwd=tmp_path, code=3).stderr
    made = call(server, "sessions", "--json", cwd=tmp_path, ONEHOP_API_KEY=key)
    assert json.loads(made.stdout) == {"sessions": []}
    done = call(server, "run", "-c", "print(6 * 7)", cwd=tmp_path, ONEHOP_API_KEY=key)
    assert done.stdout == "42\n"


def _refuses(server: Server) -> bool:
    try:
        server.call("GET", "/api/sessions")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
    return False


def test_no_server_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = onehop("sessions", "--url", url, cwd=tmp_path, code=3)
    assert done.stderr == f"onehop: no server answers at {url}; start one with: onehop serve\n"
    done = onehop("sessions", "--url", "127.0.0.1:8000", cwd=tmp_path, code=2)
    assert "must be like http://127.0.0.1:8000" in done.stderr
