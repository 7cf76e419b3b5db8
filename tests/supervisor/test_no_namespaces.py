"""Machines that refuse namespaces: no start without leave; with it Landlock and seccomp hold what they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onehop.environments.model import Environment
from onehop.jail import syscalls

ROOT = Path(__file__).parents[2]


def run(onehop_home: Path, *, allow: bool, cells: tuple[str, ...] = (), walls: int = 0) -> dict[str, Any]:
    """`walls`: from this cell on they are to be refused, in a command and in a second context, too."""
    request = {"home": str(onehop_home), "allow": allow, "cells": cells, "walls": walls}
    done = subprocess.run(
        [sys.executable, "-m", "tests.supervisor.no_namespaces"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_no_start_without_leave(onehop_home: Path, environment: Environment) -> None:
    answer = run(onehop_home, allow=False)
    assert answer["kind"] == "WeakIsolationError"
    assert "namespaces are refused here" in answer["refused"]
    assert "--allow-no-namespaces" in answer["refused"]
    assert "run" in answer["refused"] or "allow user namespaces" in answer["refused"]


@pytest.mark.root_only
def test_never_as_root(onehop_home: Path, environment: Environment) -> None:
    answer = run(onehop_home, allow=True)
    assert answer["kind"] == "WeakIsolationError"
    assert "as an ordinary user" in answer["refused"]


CELLS = {
    "kept = 41": None,
    "kept + 1": "42",
    "open('mine', 'w').write('x'); import os; os.listdir()": "['mine']",
    "import tempfile; f = tempfile.NamedTemporaryFile(); f.file.closed": "False",
    "import subprocess; subprocess.run(['ls'], capture_output=True, text=True).stdout": "'mine\\n'",
    "open('/proc/self/status').read(5)": "'Name:'",
    "import pandas, polars; len(polars.DataFrame(pandas.DataFrame({'a': [1, 2]}).to_dict('list')))": "2",
    "import matplotlib.pyplot as plt; plt.plot([1]); 5": "5",
    "os.environ['HOME'] == os.getcwd() and os.getuid() != 0": "True",
}
REFUSED = (
    "open('/etc/shadow')",
    "open('/etc/passwd')",
    "import os; os.listdir('{home}')",
    "import os; os.listdir('/')",
    "import os; os.listdir('/proc')",
    "import os; open(f'/proc/{{os.getppid()}}/status')",
    "open('/tmp/planted', 'w')",
    "open('/dev/shm/planted', 'w')",
    "open('/usr/bin/planted', 'w')",
    "import os; os.listdir(os.path.dirname(os.path.dirname(os.getcwd())))",
    "import socket; socket.socket()",
    "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{runtime}/s')",
    "import os; os.kill(os.getppid(), 0)",
    "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
    "if libc.unshare(0x10000000) < 0: raise OSError(ctypes.get_errno(), 'unshare')",
)


@pytest.mark.user_only
def test_with_leave_cells_run_and_walls_hold(onehop_home: Path, environment: Environment) -> None:
    if syscalls.landlock_abi() < 1:
        assert "Landlock" in run(onehop_home, allow=True)["refused"]
        return
    refused = tuple(
        cell.replace("{runtime}", "' + __import__('os').getcwd().split('/sandboxes/')[0] + '")
        .replace("{home}", str(Path.home()))
        .replace("{{", "{")
        .replace("}}", "}")
        for cell in REFUSED
    )
    answer = run(
        onehop_home,
        allow=True,
        cells=(*CELLS, *refused, "import os; os._exit(3)", "os.listdir() if 0 else 7"),
        walls=len(CELLS),
    )
    assert answer["isolation"]["level"] == "process-without-namespaces"
    rows = {row["name"]: row["state"] for row in answer["report"]["protections"]}
    assert (rows["namespaces"], rows["seccomp"]) == ("missing", "active")
    answers = iter(answer["cells"])
    for (cell, expected), found in zip(CELLS.items(), answers, strict=False):
        assert found["status"] == "ok", (cell, found)
        assert expected is None or found["results"][-1]["text/plain"] == expected, (cell, found)
    rest = answer["cells"][len(CELLS) :]
    for cell, found in zip(refused, rest, strict=False):
        assert found["status"] == "error", f"got through: {cell} {found}"
        assert found["error"]["name"] in ("PermissionError", "OSError", "ProcessLookupError"), (cell, found)
    assert rest[-2]["status"] == "kernel_died"
    assert rest[-1]["results"] == [{"text/plain": "7"}]
    elsewhere = [one for one in answer["elsewhere"] if one[1] in refused]
    assert len(elsewhere) == 2 * len(refused)
    assert [one for one in elsewhere if "refused" not in one[2]] == []
    home, temporary = answer["command"][0].splitlines()[0].split()
    assert home.endswith("/workspace")
    assert temporary.endswith("/tmp")
    assert answer["command"][0].splitlines()[1] == home
    assert "ermission denied" in answer["command"][0].splitlines()[2]
    assert answer["command"][1] == 3
    assert (answer["daemons"], answer["daemons_left"]) == (2, 0)
    assert answer["files"] == ["new", "t/a", "t/d/b", "v/w/b"]
    assert answer["left"] is False, "the deleted sandbox's directory is still there"
    assert answer["processes"] > 3
    assert answer["alive"] == [], "processes outlived a killed server"
