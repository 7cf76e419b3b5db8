"""`onehop env` beside a running server: real builds, taken up and let go without a restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onehop.environments.model import Environment
from tests.cli.processes import END_S, ONEHOP, Server, onehop, variables, wait_until

PACKAGE = "cowsay==6.1"
"""Pure Python, without requirements, 25 kB, and not in the default environment."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environment: Environment) -> Iterator[Server]:
    """With environments of its own, besides the default one that is built already."""
    folder = tmp_path_factory.mktemp("env")
    (folder / "home" / "environments").mkdir(parents=True)
    os.symlink(environment.path, folder / "home" / "environments" / environment.path.name)
    server = Server(folder / "home", folder)
    try:
        server.wait_for_screen()
        yield server
    finally:
        server.close()


def env(server: Server, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return onehop("env", *arguments, "--home", str(server.home), cwd=server.home, code=code)


def listing(server: Server) -> set[str]:
    """What lies in the folder, but the empty files that builders lock."""
    found = os.listdir(server.home / "environments")
    return {name for name in found if not name.endswith(".building")}


def refused(server: Server, body: Any) -> dict[str, Any]:
    with pytest.raises(urllib.error.HTTPError) as raised:
        server.call("POST", "/api/sessions", body)
    with raised.value as error:
        problem: dict[str, Any] = json.loads(error.read())
    return problem


def names(server: Server) -> list[str]:
    return [one["name"] for one in server.call("GET", "/api/environments")["environments"]]


def run(server: Server, session: str, code: str) -> str:
    answer = server.execute(session, code)
    return str(answer["stdout"] if answer["status"] == "ok" else answer["error"]["name"])


def test_a_running_server_takes_it_up_and_lets_it_go(server: Server) -> None:
    problem = refused(server, {"environment": "mini"})
    assert problem["type"] == "urn:onehop:problem:unknown-environment"
    assert "onehop env add" in problem["detail"]

    (server.home / "wanted.txt").write_text(f"# one package\n{PACKAGE}\n")
    done = env(server, "add", "mini", "-r", str(server.home / "wanted.txt"), "--preload", "cowsay", "--json")
    added = json.loads(done.stdout)
    assert "compiling bytecode" in done.stderr
    assert not next(one for one in _environments(server) if one["name"] == "mini")["ready"]
    session = server.call("POST", "/api/sessions", {"environment": "mini"})["id"]
    code = "import sys; warm = 'cowsay' in sys.modules; import cowsay; print(cowsay.__name__, warm)"
    assert run(server, session, code) == "cowsay True\n"
    first, mini = _environments(server)
    assert (first["name"], first["default"], first["ready"]) == ("default", True, True)
    assert (mini["name"], mini["default"], mini["ready"]) == ("mini", False, True)
    assert mini["packages"]["cowsay"] == "6.1"
    assert "numpy" not in mini["packages"]
    other = server.call("POST", "/api/sessions", {})["id"]
    assert run(server, other, "import cowsay") == "ModuleNotFoundError"
    once = server.call("POST", "/api/execute", {"environment": "mini", "code": "import cowsay; print(1)"})
    assert once["stdout"] == "1\n"
    assert {row["name"] for row in json.loads(env(server, "list", "--json").stdout)["environments"]} == {
        "default",
        "mini",
    }
    shown = json.loads(env(server, "show", "mini", "--json").stdout)
    assert shown["path"] == added["path"]
    assert "cowsay" in shown["preload"]
    assert f"{PACKAGE} \\\n    --hash=sha256:" in Path(shown["lock"]).read_text()

    # A session uses it: nothing is removed, and it is not in the way of new ones.
    before = listing(server)
    done = env(server, "remove", "mini", code=3)
    assert "sessions or runs use mini-" in done.stderr
    assert done.stderr.count("\n") == 1
    assert listing(server) == before
    assert run(server, session, "print(cowsay.__name__)") == "cowsay\n"
    server.call(
        "DELETE", f"/api/sessions/{server.call('POST', '/api/sessions', {'environment': 'mini'})['id']}"
    )

    # Built anew under the same name: who has the old one keeps it. A server sees it within a second, or when asked.
    env(server, "add", "mini", "--python-packages", "cowsay==6.0")
    assert _environments(server)[1]["packages"]["cowsay"] == "6.0"
    newer = server.call("POST", "/api/sessions", {"environment": "mini"})["id"]
    version = "from importlib.metadata import version; print(version('cowsay'))"
    assert run(server, newer, version) == "6.0\n"
    assert run(server, session, version) == "6.1\n"

    for one in (session, newer, other):
        server.call("DELETE", f"/api/sessions/{one}")
    assert json.loads(env(server, "remove", "mini", "--json").stdout)["builds"] == 2
    assert names(server) == ["default"]
    assert not any("mini" in name for name in listing(server))
    assert refused(server, {"environment": "mini"})["type"] == "urn:onehop:problem:unknown-environment"
    wait_until(
        lambda: "mini" not in server.call("GET", "/api/info")["environments"], END_S, "its pool is closed"
    )


def test_a_failed_build_changes_nothing(server: Server) -> None:
    before = listing(server)
    done = env(server, "add", "bad", "--python-packages", "cowsay==99.0", code=3)
    assert "unsatisfiable" in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("onehop: uv failed")
    assert listing(server) == before
    assert names(server) == ["default"]


def test_a_build_that_is_killed_changes_nothing(server: Server) -> None:
    before = listing(server)
    command = [*ONEHOP, "env", "add", "cut", "--python-packages", PACKAGE, "--home", str(server.home)]
    with subprocess.Popen(command, env=variables(), stderr=subprocess.PIPE, text=True) as builder:
        assert builder.stderr is not None
        for line in builder.stderr:
            if "compiling bytecode" in line:
                break
        builder.send_signal(signal.SIGKILL)
    assert builder.returncode == -signal.SIGKILL
    assert names(server) == ["default"]
    (left,) = listing(server) - before
    assert left.startswith(".staging.cut.")
    assert "there is no environment 'cut'" in env(server, "show", "cut", code=2).stderr
    env(server, "add", "cut", "--python-packages", PACKAGE)
    assert sorted(names(server)) == ["cut", "default"]
    env(server, "remove", "cut")
    assert listing(server) == before


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("-r base.txt", "name that file with a -r of its own"),
        ("--index-url https://example.org/simple", "options belong into pip's configuration"),
        ("./package", "only packages of an index"),
        ("", "name packages with -r"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_cannot_be_locked_is_said_before_anything_is_built(
    tmp_path: Path, text: str | None, part: str
) -> None:
    file = tmp_path / "wanted.txt"
    if text is not None:
        file.write_text(text + "\n")
    arguments = ("env", "add", "x", "-r", str(file), "--home", str(tmp_path / "home"))
    done = onehop(*arguments, cwd=tmp_path, code=2)
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_names_that_do_not_exist_or_cannot_go(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    assert (
        "there is no environment 'x'; there are: default"
        in onehop("env", "remove", "x", *home, cwd=tmp_path, code=2).stderr
    )
    assert "comes with onehop" in onehop("env", "remove", "default", *home, cwd=tmp_path, code=3).stderr
    assert "no name for an environment" in onehop("env", "remove", "../x", *home, cwd=tmp_path, code=2).stderr
    rows = json.loads(onehop("env", "list", "--json", *home, cwd=tmp_path).stdout)["environments"]
    assert rows == [{"name": "default", "built": False, "default": True}]


def _environments(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.call("GET", "/api/environments")["environments"]
    return found
