"""`onehop serve` as processes: what it says, that it comes back, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.processes import END_S, ONEHOP, START_S, Server, Traces, onehop, variables, wait_until

Serve = Callable[..., Server]


@pytest.mark.needs_apt("curl")
def test_the_printed_curl_line_works_when_pasted(shared_server: Server) -> None:
    (line,) = (line.strip() for line in shared_server.screen.splitlines() if line.strip().startswith("curl"))
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=True)
    answer = json.loads(done.stdout)
    assert answer["status"] == "ok"
    assert "mean" in answer["results"][0]["text/plain"]


def test_the_screen_says_where_everything_is(shared_server: Server) -> None:
    screen = shared_server.screen
    assert f"docs         {shared_server.url}/docs" in screen
    assert f"state        {shared_server.home}/state" in screen
    assert (shared_server.home / "state").is_dir()
    assert "active       namespaces, " in screen
    assert len(screen.splitlines()) <= 24


def test_on_the_ipv6_loopback(serve: Serve) -> None:
    try:
        server = serve("--host", "::1")
    except AssertionError as error:
        if "Cannot assign requested address" in str(error):
            pytest.skip("this machine has no IPv6 loopback")
        raise
    assert server.url.startswith("http://[::1]:")
    assert server.healthy()
    assert "curl -s -g http://[::1]:" in server.screen


def test_json_is_one_line_when_it_is_ready(home: Path, tmp_path: Path) -> None:
    command = [*ONEHOP, "serve", "--json", "--home", str(home), "--port", "0"]
    environ = variables(TMPDIR=str(tmp_path))
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=log, text=True)
    with server:
        assert server.stdout is not None
        document = json.loads(server.stdout.readline())
        try:
            with urllib.request.urlopen(document["url"] + "/healthz", timeout=30) as response:
                assert json.load(response) == {"status": "ok"}
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.stdout.read() == ""
    assert server.returncode == 0
    assert document["pid"] == server.pid
    assert document["environment"]["name"] == "default"
    assert {row["state"] for row in document["protections"]} <= {"active", "weaker", "missing"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(serve: Serve, number: signal.Signals) -> None:
    server = serve()
    session = server.call("POST", "/api/sessions", {})["id"]
    server.execute(session, "import subprocess; subprocess.Popen(['sleep', '600'])")
    traces = Traces(server)
    assert len(traces.processes) > 5
    assert traces.left(), "the control failed"
    server.process.send_signal(number)
    assert server.process.wait(END_S) == 0
    assert traces.left() == []
    assert server.said().endswith("onehop: ended\n")


def test_a_killed_master_takes_everything_along(serve: Serve) -> None:
    server = serve()
    server.execute(
        server.call("POST", "/api/sessions", {})["id"],
        "import subprocess; subprocess.Popen(['sleep', '600'])",
    )
    traces = Traces(server)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not traces.left(), END_S, "nothing is left")


def test_a_killed_gateway_comes_back_with_its_sessions(serve: Serve) -> None:
    server = serve()
    session = server.call("POST", "/api/sessions", {})["id"]
    server.execute(session, "kept = 41")
    first = server.gateway()
    os.kill(first, signal.SIGKILL)
    # No refusal in between: the socket stays open, and the request waits for the next gateway.
    assert server.execute(session, "kept + 1")["results"] == [{"text/plain": "42"}]
    assert server.gateway() != first
    assert "the gateway ended (killed by SIGKILL); starting it again" in server.said()
    os.kill(server.gateway(), signal.SIGKILL)
    assert server.execute(session, "kept + 2")["results"] == [{"text/plain": "43"}]


def test_a_killed_supervisor_is_started_again(serve: Serve) -> None:
    server = serve()
    session = server.call("POST", "/api/sessions", {})["id"]
    traces = Traces(server)
    os.kill(server.shim(), signal.SIGKILL)
    server.wait_for_screen()
    assert server.healthy()
    assert server.call("POST", "/api/execute", {"code": "6 * 7"})["results"] == [{"text/plain": "42"}]
    assert "the supervisor ended, and all sessions with it; starting everything again" in server.said()
    with pytest.raises(OSError, match="HTTP Error 410"):
        server.call("GET", f"/api/sessions/{session}")
    server.close()
    assert traces.left() == []


def test_a_second_start_finds_the_state_of_the_first(serve: Serve) -> None:
    first = serve()
    execution = first.call("POST", "/api/execute", {"code": "'stored'"})["id"]
    first.close()
    second = serve()
    assert second.call("GET", f"/api/executions/{execution}")["results"] == [{"text/plain": "'stored'"}]


@pytest.mark.root_only
def test_the_gateway_is_a_service_user_without_a_way_to_the_rest(shared_server: Server) -> None:
    gateway = shared_server.gateway()
    status = Path(f"/proc/{gateway}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1900065535"] * 4
    assert fields["NoNewPrivs"] == "1"
    assert {fields[name].strip("0") for name in ("CapEff", "CapPrm", "CapBnd")} == {""}
    assert Path(f"/proc/{gateway}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
    environment = Path(f"/proc/{gateway}/environ").read_bytes().split(b"\0")
    names = {variable.partition(b"=")[0] for variable in environment if variable}
    assert not {name for name in names if not name.startswith((b"ONEHOP_", b"LC_", b"PYTHON"))} - {
        b"PATH", b"LANG", b"TZ", b"HOME", b"SSL_CERT_FILE", b"SSL_CERT_DIR",
    }  # fmt: skip
    assert (shared_server.home / "state").stat().st_uid == 1_900_065_535


def test_a_second_server_on_the_same_state_is_refused(shared_server: Server, tmp_path: Path) -> None:
    done = onehop("serve", "--home", str(shared_server.home), "--port", "0", cwd=tmp_path, code=2)
    assert done.stderr == (
        f"onehop: another onehop serve uses {shared_server.home}; stop it, or take another place with --home\n"
    )
    assert shared_server.healthy()


def test_a_start_with_nohup_survives_the_terminal(home: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does; children inherit it
    try:
        server = Server(home, tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        server.wait_for_screen()
        server.process.send_signal(signal.SIGHUP)
        assert server.call("POST", "/api/execute", {"code": "6 * 7"})["results"] == [{"text/plain": "42"}]
        assert server.process.poll() is None
    finally:
        server.close()


def test_a_state_that_cannot_be_opened_stops_the_start(home: Path, tmp_path: Path) -> None:
    (home / "state").write_text("not a folder")
    server = Server(home, tmp_path)
    assert server.process.wait(START_S) == 3
    last = server.said().splitlines()[-1]
    assert last.startswith("onehop: ")
    server.close()
    assert list(server.temporary.iterdir()) == []
