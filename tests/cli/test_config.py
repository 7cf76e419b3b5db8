"""`onehop config`: the effective values, their origin, no secrets, and a hint for each misspelt variable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onehop.cli import config as command
from onehop.config import SETTINGS, unknown_variables
from tests.cli.processes import onehop

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_every_setting_with_its_value_and_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('pool_max = 7\nallowed_hosts = ["a.example", "b.example"]\n')
    arguments = ("config", "--json", "--home", str(tmp_path), "--port", "8123")
    document = json.loads(onehop(*arguments, cwd=tmp_path, ONEHOP_TIMEOUT_S="5").stdout)
    rows = {row["name"]: row for row in document["settings"]}
    assert list(rows) == [setting.name for setting in SETTINGS]
    found = {name: (rows[name]["value"], rows[name]["source"], rows[name]["from"]) for name in rows}
    assert found["port"] == (8123, "flag", "--port")
    assert found["timeout_s"] == (5.0, "variable", "ONEHOP_TIMEOUT_S")
    assert found["pool_max"] == (7, "file", str(tmp_path / "config.toml"))
    assert found["allowed_hosts"][0] == ["a.example", "b.example"]
    assert found["strict"] == (False, "default", "")
    text = onehop("config", "--home", str(tmp_path), cwd=tmp_path).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("pool_max "))
    assert line.split(maxsplit=2)[1:] == ["7", f"(file {tmp_path}/config.toml)"]
    assert len(text.splitlines()) == len(SETTINGS)


def test_one_value(tmp_path: Path) -> None:
    assert onehop("config", "memory_mb", cwd=tmp_path, ONEHOP_MEMORY_MB="512").stdout == "512\n"
    assert onehop("config", "memory-mb", cwd=tmp_path).stdout == "1024\n"
    assert json.loads(onehop("config", "strict", "--json", cwd=tmp_path).stdout)["value"] is False
    done = onehop("config", "memory", cwd=tmp_path, code=2)
    assert done.stderr == "onehop: there is no setting 'memory'; onehop config lists all\n"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pa:ss/w@db.example/x", "postgresql://me:***@db.example/x"),
        (
            "postgresql://me:s3cret@db/x?sslpassword=s3cret&a=1",
            "postgresql://me:***@db/x?sslpassword=***&a=1",
        ),
        ("postgresql://db/x?user=me&password=s3cret", "postgresql://db/x?user=me&password=***"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
    ],
)
def test_a_password_is_never_printed(tmp_path: Path, url: str, shown: str) -> None:
    for arguments in (["config", "--json"], ["config"], ["config", "database_url"]):
        done = onehop(*arguments, cwd=tmp_path, ONEHOP_DATABASE_URL=url)
        assert shown in done.stdout
        assert "s3cret" not in done.stdout + done.stderr
        assert "pa:ss" not in done.stdout + done.stderr


def test_a_misspelt_variable_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    done = onehop("config", "port", cwd=tmp_path, ONEHOP_PROT="9", ONEHOP_XYZ="1", ONEHOP_URL="http://x")
    assert done.stdout == "8000\n"
    assert done.stderr.splitlines() == [
        "onehop: warning: the variable ONEHOP_PROT is no setting; is ONEHOP_PORT meant?",
        "onehop: warning: the variable ONEHOP_XYZ is no setting; onehop config lists all",
    ]
    assert unknown_variables({"ONEHOP_PORT": "1", "ONEHOP_CONFIG": "x", "OTHER": "1"}) == {}


def test_the_reference_has_every_setting_as_it_is() -> None:
    assert command.reference() in REFERENCE.read_text(), (
        "docs/configuration.md is behind: put the output of `onehop config --reference` there"
    )
