"""`onehop keys`: works with and without a server, and leaves the database to the server's user."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onehop.cli.keys import _seconds
from onehop.errors import ConfigurationError
from tests.cli.processes import END_S, ONEHOP, Server, onehop, variables, wait_until

Serve = Callable[..., Server]
SERVICE_UID = 1_900_065_535


def create(home: Path, *arguments: str) -> dict[str, Any]:
    done = onehop("keys", "create", "--home", str(home), "--json", *arguments, cwd=Path("/"))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def listed(home: Path) -> list[dict[str, Any]]:
    done = onehop("keys", "list", "--json", "--home", str(home), cwd=Path("/"))
    found: list[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return found


def test_a_key_is_printed_once_and_nothing_else(home: Path, tmp_path: Path) -> None:
    done = onehop("keys", "create", "--name", "first", "--home", str(home), cwd=tmp_path)
    assert re.fullmatch(r"oh_[A-Za-z0-9_-]{43}\n", done.stdout)
    assert done.stderr.count("\n") == 1
    assert done.stdout.strip() not in done.stderr
    assert re.fullmatch(r"e2b_[0-9a-f]{40}", create(home, "--e2b")["key"])
    text = onehop("keys", "list", "--home", str(home), cwd=tmp_path).stdout
    assert "first" in text
    assert done.stdout.strip()[:8] in text
    assert done.stdout.strip()[:12] not in text


def test_everything_about_a_key(home: Path) -> None:
    made = create(
        home,
        *("--name", "n", "--owner", "alice", "--scope", "read", "--scope", "admin", "--expires", "2h"),
        *("--max-sessions", "1", "--executions-per-minute", "2", "--cpu-s-per-hour", "3.5"),
        *("--max-memory-mb", "128", "--max-workspace-mb", "5"),
        *("--tools", "weather.*", "--tools", "mine.add"),
    )
    (row,) = listed(home)
    assert row == {name: value for name, value in made.items() if name != "key"}
    assert (row["owner"], row["scopes"], row["state"]) == ("alice", ["read", "admin"], "active")
    assert row["limits"] == {
        "max_sessions": 1,
        "executions_per_minute": 2,
        "cpu_s_per_hour": 3.5,
        "max_memory_mb": 128,
        "max_workspace_mb": 5,
        "tools": ["weather.*", "mine.add"],
    }
    assert row["expires_at"] > row["created_at"]


def test_a_key_for_no_tools_and_patterns_that_are_none(home: Path, tmp_path: Path) -> None:
    assert create(home, "--tools", "")["limits"]["tools"] == []
    assert create(home)["limits"]["tools"] is None
    done = onehop("keys", "create", "--tools", "a b", "--home", str(home), cwd=tmp_path, code=2)
    assert "--limits" not in done.stderr
    assert "tools" in done.stderr


def test_a_revoked_key_stays_in_the_list(home: Path, tmp_path: Path) -> None:
    made = create(home)
    revoke = ("keys", "revoke", made["id"], "--home", str(home))
    assert json.loads(onehop(*revoke, "--json", cwd=tmp_path).stdout) == {"revoked": made["id"]}
    assert [row["state"] for row in listed(home)] == ["revoked"]
    assert "see: onehop keys list" in onehop(*revoke, cwd=tmp_path, code=3).stderr
    onehop("keys", "revoke", made["key"], "--home", str(home), cwd=tmp_path, code=3)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--expires", "soon"], "--expires: expected a time as 90d"),
        (["--max-sessions", "0"], "--max-sessions: expected a number above 0"),
        (["--max-sessions", "1.5"], "--max-sessions: Expected `int`".replace("`", "")),
        (["--max-memory-mb", "1"], "--max-memory-mb: Expected int >= 64"),
        (["--owner", "a b"], "--owner: expected up to 64"),
        (["--name", "x" * 300], "--name: longer than 255"),
    ],
)
def test_what_cannot_be_made(home: Path, tmp_path: Path, arguments: list[str], part: str) -> None:
    done = onehop("keys", "create", "--home", str(home), *arguments, cwd=tmp_path, code=2)
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_times() -> None:
    assert [_seconds(text) for text in ("1s", "2m", "3h", "90d", "1w")] == [1, 120, 10800, 7776000, 604800]
    for text in ("", "1", "d", "-1d", "1.5d", "0d", "1d ", "1y"):
        with pytest.raises(ConfigurationError):
            _seconds(text)


def status(server: Server, key: str | None) -> int:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(server.url + "/api/info")
    if key is not None:
        request.add_header("X-API-Key", key)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_running_server_notices(serve: Serve, home: Path) -> None:
    server = serve()
    assert status(server, None) == 200
    made = create(home)
    wait_until(lambda: status(server, None) == 401, END_S, "it wants a key")
    assert status(server, made["key"]) == 200
    os.kill(server.gateway(), signal.SIGKILL)
    assert status(server, None) == 401, "the next gateway knows at once"
    assert status(server, made["key"]) == 200
    onehop("keys", "revoke", made["id"], "--home", str(home), cwd=Path("/"))
    wait_until(lambda: status(server, None) == 200, END_S, "it wants none any more")
    server.close()
    owners = {path.stat().st_uid for path in (home / "state").iterdir()}
    assert owners == {(home / "state").stat().st_uid}, "nothing is left that the server could not open"
    again = serve()
    assert status(again, None) == 200


@pytest.mark.root_only
def test_root_leaves_everything_to_the_service_user(serve: Serve, home: Path, tmp_path: Path) -> None:
    """Made before the first start, which has to be able to open it."""
    key = create(home)["key"]
    assert {path.stat().st_uid for path in [home / "state", *(home / "state").iterdir()]} == {SERVICE_UID}
    server = serve()
    assert status(server, key) == 200
    assert status(server, None) == 401
    # A crash leaves WAL files behind; whoever opens the database next must not change whose they are.
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert (home / "state" / "onehop.db-wal").exists()
    assert len(listed(home)) == 1
    create(home)
    assert {path.stat().st_uid for path in (home / "state").iterdir()} == {SERVICE_UID}
    assert status(serve(), key) == 200


@pytest.mark.root_only
def test_root_does_not_follow_links_of_the_service_user(home: Path, tmp_path: Path) -> None:
    create(home)
    target = tmp_path / "of-root.db"
    shutil.copyfile(home / "state" / "onehop.db", target)
    target.chmod(0o600)
    before = target.read_bytes()
    (home / "state" / "onehop.db").unlink()
    (home / "state" / "onehop.db").symlink_to(target)
    done = onehop("keys", "create", "--home", str(home), cwd=tmp_path, code=2)
    assert "cannot be opened" in done.stderr
    assert target.read_bytes() == before


@pytest.mark.root_only
def test_another_user_is_told_whom_to_ask(home: Path, tmp_path: Path) -> None:
    create(home)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        if folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(0o711)
    user = 1002
    done = subprocess.run(
        [*ONEHOP, "keys", "list", "--home", str(home)],
        cwd="/",
        env=variables(HOME="/nonexistent"),
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "Permission denied" in done.stderr and "state" not in done.stderr:
        pytest.skip("this checkout is closed to other users")
    assert done.returncode == 2, done.stderr
    assert f"belongs to another user (uid {SERVICE_UID}); run this as root, or as that user" in done.stderr


def test_usage_with_and_without_a_server(serve: Serve, home: Path, tmp_path: Path) -> None:
    usage = ("usage", "--home", str(home), "--json")
    assert json.loads(onehop(*usage, cwd=tmp_path).stdout) == {"usage": [], "currency": ""}
    server = serve()
    assert server.call("POST", "/api/execute", {"code": "1"})["status"] == "ok"

    def rows() -> list[dict[str, Any]]:
        prices = ("--price-per-execution", "0.25", "--currency", "EUR")
        found: list[dict[str, Any]] = json.loads(onehop(*usage, *prices, cwd=tmp_path).stdout)["usage"]
        return found

    wait_until(rows, END_S, "it is counted")
    (row,) = rows()
    assert (row["executions"], row["key"], row["owner"], row["cost"]) == (1, "", "", 0.25)
    text = onehop("usage", "--home", str(home), cwd=tmp_path).stdout
    assert [line.split()[0] for line in text.splitlines()] == ["DAY", row["day"]]
    assert "--from: expected a day" in onehop("usage", "--from", "x", cwd=tmp_path, code=2).stderr


def test_nothing_listens_for_others_without_a_key(home: Path, tmp_path: Path) -> None:
    arguments = ("serve", "--home", str(home), "--port", "0", "--host", "0.0.0.0")
    refusal = onehop(*arguments, cwd=tmp_path, code=2).stderr
    assert refusal == (
        "onehop: host (from the flag --host): '0.0.0.0' is not a loopback address, and without a key anybody "
        f"who reaches it could run code; make one first: onehop keys create --home {home}\n"
    )
    made = create(home)
    onehop("keys", "revoke", made["id"], "--home", str(home), cwd=tmp_path)
    assert "make one first" in onehop(*arguments, cwd=tmp_path, code=2).stderr


def test_a_server_for_others_wants_the_key(serve: Serve, home: Path) -> None:
    key = create(home)["key"]
    server = serve("--host", "0.0.0.0")
    server.screen = server.screen.replace("//0.0.0.0:", "//127.0.0.1:")
    assert status(server, None) == 401
    assert status(server, key) == 200
