"""A supervisor that is not safe does not serve."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from onehop.environments.model import Environment
from onehop.errors import EngineError, WeakIsolationError
from onehop.supervisor import spawn
from onehop.supervisor.spawn import SupervisorSettings, start
from tests.supervisor.machine import groups

WEAKEN = {
    "a hole in seccomp": (
        "from onehop.jail import seccomp\n"
        "real = seccomp.load_policy\n"
        "def load_policy():\n"
        "    policy = real()\n"
        "    policy['allow_when'].append({'call': 'socket', 'reason': 'weakened', 'errno': 'EPERM',\n"
        "                                 'arguments': [{'index': 0, 'equals': 16}]})\n"
        "    return policy\n"
        "seccomp.load_policy = load_policy\n",
        "netlink: through",
    ),
    "no filter at all": (
        "from onehop.jail import seccomp\n"
        "import struct\n"
        "seccomp.compile_policy = lambda **_: struct.pack('HBBI', 6, 0, 0, 0x7fff0000)\n",
        "Seccomp|packet|ptrace|netlink",
    ),
    "a root with more in it": (
        "import onehop.supervisor.selftest as selftest\nselftest.ROOT_ENTRIES.discard('workspace')\n",
        "in the root: \\['workspace'\\]",
    ),
    "a thread that nobody knows": (
        "from onehop.supervisor import zygotes\n"
        "real = zygotes.Zygote._spec\n"
        "def spec(self):\n"
        "    found = real(self)\n"
        "    found['code']['onehop/kernel/magics.py'] += (\n"
        "        '\\nimport threading, time\\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\\n')\n"
        "    found['allowed_threads'] = []\n"
        "    return found\n"
        "zygotes.Zygote._spec = spec\n",
        "threads that are not on the list",
    ),
}


@pytest.mark.parametrize("name", WEAKEN)
def test_a_weakened_wall_stops_the_start(
    name: str, environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if spawn.namespaces_work():
        pytest.skip("needs namespaces")
    # Every Python of the supervisor imports this first; the zygote's and the sandboxes' do not.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'ONEHOP_SUPERVISOR_SPEC' in os.environ and 'supervisor.main' in ' '.join(sys.orig_argv):\n"
        + "".join(f"    {line}\n" for line in WEAKEN[name][0].splitlines())
    )
    monkeypatch.setattr(secrets, "token_hex", lambda size: "abcdef0123")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=WEAKEN[name][1]):
        start(SupervisorSettings(environments=(environment,)), stderr=subprocess.DEVNULL, timeout_s=40)
    assert not groups("abcdef0123")


def test_the_same_start_unweakened(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the tests above do to the start does not stop it by itself."""
    if spawn.namespaces_work():
        pytest.skip("needs namespaces")
    (tmp_path / "sitecustomize.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with start(SupervisorSettings(environments=(environment,)), timeout_s=40) as handle:
        assert handle.report["self_test"]["ptrace"] == "EPERM"


def test_strict_refuses_what_is_weaker(environment: Environment) -> None:
    if spawn.namespaces_work():
        pytest.skip("needs namespaces")
    weaker = []
    with start(SupervisorSettings(environments=(environment,))) as handle:
        weaker = [row["name"] for row in handle.report["protections"] if row["state"] != "active"]
    strict = SupervisorSettings(environments=(environment,), strict=True)
    if weaker:
        with pytest.raises(WeakIsolationError, match=weaker[0]):
            start(strict, stderr=subprocess.DEVNULL)
    else:
        start(strict).stop()


def test_a_missing_environment_is_said(environment: Environment, tmp_path: Path) -> None:
    import dataclasses

    broken = dataclasses.replace(environment, path=tmp_path)
    with pytest.raises((EngineError, WeakIsolationError), match=r"zygote|namespaces"):
        start(SupervisorSettings(environments=(broken,)), stderr=subprocess.DEVNULL, timeout_s=60)


def test_a_process_that_is_no_supervisor(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(spawn, "namespaces_work", lambda: "")
    with pytest.raises(EngineError, match="it ended"):
        start(SupervisorSettings(environments=(environment,)))
