"""`onehop doctor`: its rows come from an engine that was started; it changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.processes import onehop, variables


def report(home: Path, *flags: str) -> tuple[int, dict[str, object]]:
    import subprocess

    from tests.cli.processes import ONEHOP

    done = subprocess.run(
        [*ONEHOP, "doctor", "--json", "--home", str(home), *flags],
        env=variables(), cwd=home, text=True, capture_output=True, timeout=90,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_every_protection_with_its_state(home: Path) -> None:
    code, found = report(home)
    rows = found["protections"]
    assert isinstance(rows, list)
    by_name = {row["name"]: row for row in rows}
    assert {"namespaces", "seccomp", "landlock", "network", "gateway"} <= set(by_name)
    weaker = [row for row in rows if row["state"] != "active"]
    assert code == (1 if weaker else 0)
    assert all(row["advice"] for row in weaker)
    assert by_name["seccomp"]["state"] == "active"
    assert by_name["gateway"]["state"] == ("active" if os.geteuid() == 0 else "weaker")
    assert found["problem"] == ""
    assert [path.name for path in home.iterdir()] == ["environments"]
    machine = found["machine"]
    assert isinstance(machine, dict)
    assert {"python", "kernel", "libseccomp", "transparent_huge_pages", "disk_free_bytes"} <= set(machine)


def test_people_read_the_same(home: Path) -> None:
    code, found = report(home)
    done = onehop("doctor", "--home", str(home), cwd=home, code=code)
    rows = found["protections"]
    assert isinstance(rows, list)
    for row in rows:
        assert f"  {row['state']:<8} {row['name']:<15} " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("onehop runs here")


def test_without_an_environment_it_says_how_to_build_one_and_builds_none(tmp_path: Path) -> None:
    home = tmp_path / "home with a space"
    home.mkdir()
    code, found = report(home)
    assert code == 2
    assert found["environment"] == {"name": "default", "state": "missing"}
    assert str(found["problem"]).endswith(f"run: ONEHOP_HOME='{home}' onehop run -c 1")
    assert list(home.iterdir()) == []


@pytest.mark.root_only
def test_strict_is_refused_where_something_is_weaker_and_only_there(home: Path) -> None:
    code, _ = report(home)
    strict, _ = report(home, "--strict")
    assert strict == (2 if code == 1 else 0)
