"""The gateway's service user: what it can reach after the change, against what root reaches before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onehop.jail.service import own_directory

pytestmark = pytest.mark.root_only

UID = 1_900_065_535

PROBE = """
import ctypes, errno, json, os, signal, sys
from onehop.errors import JailError
from onehop.jail import service
spec = json.loads(sys.argv[1])
def attempt(action):
    try:
        return action() or "through"
    except OSError as error:
        return errno.errorcode[error.errno]
def status():
    fields = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
    names = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs")
    return {name: fields[name] for name in names}
def look():
    return {
        "shadow": attempt(lambda: open("/etc/shadow").close()),
        "secret": attempt(lambda: open(spec["secret"]).close()),
        "signal": attempt(lambda: os.kill(os.getppid(), 0)),
        "beside": attempt(lambda: os.listdir(spec["closed"])),
        "write code": attempt(lambda: open(spec["code"] + "/planted.py", "w").close()),
        "write state": attempt(lambda: open(f"{spec['state']}/written-{os.geteuid()}", "w").close()),
        "write cover": attempt(lambda: open(spec["closed"] + "/planted", "w").close()),
        "setuid": attempt(lambda: os.setuid(0)),
        "status": status(),
    }
before = look()
covered = service.enter(uid=spec["uid"], readable=[*service.interpreter_paths(), spec["code"]],
                        writable=[spec["state"]], parent=os.getppid())
after = look()
import sqlalchemy, encodings.idna, onehop.errors  # what is imported late must still be there
sys.path.insert(0, spec["code"])
import planted_before
print(json.dumps({"before": before, "after": after, "covered": covered, "imported": planted_before.value}))
"""


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A private directory with a secret, code (behind a symlink as well) and a state directory."""
    top = tmp_path / "closed"
    (top / "deep/code").mkdir(parents=True)
    (top / "deep/code/planted_before.py").write_text("value = 7\n")
    (top / "secret").write_text("secret")
    (top / "link").symlink_to("deep/code")
    top.chmod(0o700)
    own_directory(top / "state", UID)
    return top


def probe(closed: Path, code: str) -> Any:
    spec = {
        "uid": UID,
        "closed": str(closed),
        "secret": str(closed / "secret"),
        "code": str(closed / code),
        "state": str(closed / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(spec)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("code", ["deep/code", "link"])
def test_the_service_user_reaches_what_it_needs_and_nothing_else(closed: Path, code: str) -> None:
    found = probe(closed, code)
    before, after = found["before"], found["after"]
    for name in ("shadow", "secret", "signal", "write code", "write state", "write cover", "setuid"):
        assert before[name] == "through", f"the control failed: {name}"
    assert "secret" in before["beside"]

    assert after["shadow"] == "EACCES"
    assert after["secret"] == "ENOENT"
    assert after["signal"] == "EPERM"
    assert sorted(after["beside"]) == sorted({"state", "deep", *([code] if code == "link" else [])})
    assert after["write code"] in ("EROFS", "EACCES")
    assert after["write state"] == "through"
    assert after["write cover"] in ("EROFS", "EACCES")
    assert after["setuid"] == "EPERM"
    status = after["status"]
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"].strip() == ""
    assert {status[name].strip("0") for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {""}
    assert status["NoNewPrivs"] == "1"
    assert found["imported"] == 7
    # pytest's own folder is closed to others as well, and then covers the one below it.
    assert any(str(closed).startswith(top) for top in found["covered"])
    assert (closed / f"state/written-{UID}").stat().st_uid == UID


def test_the_mounts_are_private(closed: Path) -> None:
    probe(closed, "deep/code")
    assert (closed / "secret").read_text() == "secret"
    assert str(closed) not in Path("/proc/self/mounts").read_text()


def test_code_that_stays_closed_is_said_with_the_command_that_opens_it(closed: Path) -> None:
    (closed / "deep/code").chmod(0o700)
    spec = {
        "uid": UID,
        "closed": str(closed),
        "secret": "",
        "code": str(closed / "deep/code"),
        "state": str(closed / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(spec)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"run: chmod -R go+rX {closed}/deep/code" in done.stderr


def test_state_is_handed_over_without_following_links(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    outside = tmp_path / "outside"
    outside.write_text("precious")
    linked = tmp_path / "linked"
    linked.write_text("precious")
    (state / "onehop.db").write_text("")
    (state / "link").symlink_to(outside)
    os.link(linked, state / "hard")
    own_directory(state, UID)
    assert state.stat().st_uid == UID
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "onehop.db").stat().st_uid == UID
    assert outside.stat().st_uid == linked.stat().st_uid == 0


def test_a_link_in_the_place_of_the_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "state").symlink_to("target")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        own_directory(tmp_path / "state", UID)
    assert (tmp_path / "target").stat().st_uid == 0
