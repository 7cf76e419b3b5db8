"""The command itself: quick help, every setting as a flag, one-line errors with their exit codes."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from onehop import __version__
from onehop.cli.main import COMMANDS, parser
from onehop.config import SETTINGS
from tests.cli.processes import onehop


def test_help_names_every_command_and_loads_none(tmp_path: Path) -> None:
    done = onehop("--help", cwd=tmp_path)
    assert all(re.search(rf"^    {name}\s", done.stdout, re.MULTILINE) for name in COMMANDS)
    code = (
        "import json, sys; from onehop.cli.main import parser; parser(None).format_help();"
        "print(json.dumps(list(sys.modules)))"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(json.loads(listed.stdout))
    assert "onehop.cli.main" in loaded
    assert not {name for name in loaded if name.startswith("onehop.cli.")} - {"onehop.cli.main"}
    assert not loaded & {"asyncio", "fastapi", "msgspec", "sqlalchemy", "httpx2"}


def test_version(tmp_path: Path) -> None:
    assert onehop("--version", cwd=tmp_path).stdout == f"onehop {__version__}\n"


def test_every_setting_is_a_flag_of_serve() -> None:
    text = parser("serve").parse_args(["serve"])
    assert {setting.name for setting in SETTINGS} <= set(vars(text))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["serve", "--host", "0.0.0.0"], "not a loopback address"),
        (["serve", "--port", "70000"], "port (from the flag --port)"),
        (["serve", "--memory-mb", "much"], "memory_mb (from the flag --memory-mb)"),
        (["run", "absent.py"], "absent.py cannot be read: No such file"),
        (["run", "-c", "1", "--file", "absent.csv"], "there is no file 'absent.csv'"),
        (["run", "-c", "1", "--file", __file__ + ":../x"], "contains '..'"),
        (["run", "-c", "1", "--timeout", "-1"], "must be more than 0 seconds"),
        (["run", "-c", "1", "--url", "ftp://127.0.0.1"], "must begin with http"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], part: str) -> None:
    done = onehop(*arguments, cwd=tmp_path, code=2)
    assert part in done.stderr
    assert done.stderr.startswith("onehop: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_arguments_that_do_not_exist_are_exit_code_2(tmp_path: Path) -> None:
    for arguments in ([], ["frobnicate"], ["run"], ["run", "a.py", "-c", "1"], ["serve", "--por", "1"]):
        assert "usage: onehop" in onehop(*arguments, cwd=tmp_path, code=2).stderr


def test_a_port_in_use_is_one_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = onehop("serve", "--home", str(home), "--port", str(port), cwd=home, code=2)
    assert done.stderr == (
        f"onehop: cannot listen on 127.0.0.1 port {port}: Address already in use; take another with --port\n"
    )


def test_no_server_at_the_url_is_exit_code_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = onehop("run", "-c", "1", "--url", url, cwd=tmp_path, code=3)
    assert done.stderr == f"onehop: no server answers at {url}; start one with: onehop serve\n"
