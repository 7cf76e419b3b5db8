"""Starts a supervisor as a process of its own and waits until it serves."""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onehop.environments.model import Environment
from onehop.errors import EngineError, WeakIsolationError

START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class SupervisorSettings:
    """What a supervisor is told at its start.

    Args:
        environments: built environments, warmed at once. Others of the first one's home are found and warmed
            when a request names them, also those that are added later.
        pool_min, pool_max: bounds of the number of ready sandboxes per environment.
        max_sandboxes: most sandboxes at once, ready ones included.
        uid_base: first host uid of the reserved range of 65536 (as root only).
        socket_uid: who may connect besides the own uid (the gateway's service user).
        strict: refuse to start when a protection is weaker than the best this version knows.
        allow_no_namespaces: the operator's leave to fall back to Landlock, seccomp and rlimits.
        sandbox: defaults of SandboxSpec that ready sandboxes are made with.
        tmp_bytes, shm_bytes, open_files: per sandbox.
        log_format: `text` or `json`.
    """

    environments: tuple[Environment, ...]
    pool_min: int = 2
    pool_max: int = 32
    max_sandboxes: int = 2000
    uid_base: int = 1_900_000_000
    socket_uid: int | None = None
    strict: bool = False
    allow_no_namespaces: bool = False
    tmp_bytes: int = 256 << 20
    shm_bytes: int = 64 << 20
    open_files: int = 256
    workspace_bytes: int = 256 << 20
    workspace_inodes: int = 16384
    memory_bytes: int = 1 << 30
    processes: int = 64
    log_format: str = "text"


class SupervisorHandle:
    """A supervisor. Use as a context manager, or call `stop`.

    Its socket at `path` takes connections from the start on; they are answered once it is ready, which
    is when `report_fd` can be read and `wait_ready` has the report.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], runtime: str, report_fd: int, token: str = ""
    ) -> None:
        self.process = process
        self.runtime = runtime
        self.report_fd = report_fd
        self.token = token
        """Names what the supervisor has outside its directory: its control groups."""
        self.report: dict[str, Any] = {}
        self.path = f"{runtime}/s"

    def wait_ready(self, *, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Waits for the first warm zygote and a passed self-test; raises as `start`, and stops it then."""
        try:
            self.report = _read_report(self.report_fd, self.process, timeout_s)
        except BaseException:
            self.stop()
            raise
        self._close_report()
        return self.report

    def _close_report(self) -> None:
        if self.report_fd >= 0:
            os.close(self.report_fd)
            self.report_fd = -1

    def __enter__(self) -> SupervisorHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after `timeout_s`; either way every sandbox is gone afterwards."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close_report()
        shutil.rmtree(self.runtime, ignore_errors=True)


_WORKED: set[int] = set()
"""User ids for which namespaces were found to work: a server that is started again has clients waiting."""


def namespaces_work() -> str:
    """Empty when this process may make the namespaces it needs, else why not (tried in a child)."""
    if os.geteuid() in _WORKED:
        return ""
    flags = "CLONE_NEWNS | s.CLONE_NEWPID" + ("" if os.geteuid() == 0 else " | s.CLONE_NEWUSER")
    private = "s.mount('none', '/', '', s.MS_REC | s.MS_PRIVATE)"
    code = f"from onehop.jail import syscalls as s; s.unshare(s.{flags}); {private}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    if result.returncode != 0:
        return result.stderr.strip().splitlines()[-1]
    _WORKED.add(os.geteuid())
    return ""


def start(
    settings: SupervisorSettings, *, stderr: Any = None, timeout_s: float = START_TIMEOUT_S
) -> SupervisorHandle:
    """Starts shim and supervisor, returns when the first zygote is warm and a sandbox has passed the self-test.

    Args:
        stderr: where its log goes (default: this process's stderr).

    Raises:
        WeakIsolationError: a protection is missing; the message says how to get it.
        EngineError: it did not start; the message has its last words.
    """
    handle = launch(settings, stderr=stderr)
    handle.wait_ready(timeout_s=timeout_s)
    return handle


def launch(settings: SupervisorSettings, *, stderr: Any = None) -> SupervisorHandle:
    """The first half of `start`: returns as soon as the processes run; `wait_ready` is the second."""
    problem = namespaces_work()
    if problem and not settings.allow_no_namespaces:
        raise WeakIsolationError(namespace_advice(problem))
    if problem and os.geteuid() == 0:
        raise WeakIsolationError(
            f"namespaces are refused here ({problem}), and without them user code would run as root: "
            "start as an ordinary user (in a container: --user 1000)"
        )
    runtime, token = tempfile.mkdtemp(prefix="onehop-"), secrets.token_hex(6)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    report_read, report_write = os.pipe()
    try:
        os.mkdir(f"{runtime}/root")
        listener.bind(f"{runtime}/s")
        os.chmod(f"{runtime}/s", 0o600)
        if settings.socket_uid is not None:
            os.chmod(runtime, 0o711)
            os.chown(f"{runtime}/s", settings.socket_uid, settings.socket_uid)
        listener.listen(512)
        spec = {
            "runtime": runtime,
            "listen_fd": listener.fileno(),
            "report_fd": report_write,
            "namespaces": not problem,
            "namespace_problem": problem,
            "user": os.geteuid(),
            "token": token,
            **{
                name: getattr(settings, name)
                for name in settings.__dataclass_fields__
                if name != "environments"
            },
            "environments": [describe_environment(e) for e in settings.environments],
        }
        variables = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "ONEHOP_CRASH_AT", "PYTHONPATH")
        }
        variables |= {"ONEHOP_SUPERVISOR_SPEC": json.dumps(spec), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "onehop.supervisor.launch"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stderr or sys.stderr.fileno(),
            stderr=stderr or sys.stderr.fileno(),
            pass_fds=(listener.fileno(), report_write),
            start_new_session=True,
        )
    except BaseException:
        shutil.rmtree(runtime, ignore_errors=True)
        os.close(report_read)
        raise
    finally:
        listener.close()
        os.close(report_write)
    return SupervisorHandle(process, runtime, report_read, token)


def namespace_advice(problem: str) -> str:
    """The one command that allows namespaces here, as far as the machine tells which one it is."""

    def flag(path: str) -> str:
        try:
            return Path(path).read_text().strip()
        except OSError:
            return ""

    if os.geteuid() == 0:
        advice = "run the container with --security-opt seccomp=unconfined --cap-add SYS_ADMIN, or outside a container"
    elif flag("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        advice = "run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    elif flag("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        advice = "run: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    elif flag("/proc/sys/user/max_user_namespaces") == "0":
        advice = "run: sudo sysctl -w user.max_user_namespaces=15000"
    else:
        advice = "allow user namespaces (in a container: --security-opt seccomp=unconfined)"
    return (
        f"namespaces are refused here ({problem}); {advice}; or accept weaker walls (seccomp, Landlock and rlimits "
        "only) by name with --allow-no-namespaces"
    )


def describe_environment(environment: Environment) -> dict[str, Any]:
    """What a supervisor is told of one."""
    from onehop.environments.model import ENVIRONMENT_VARIABLES

    return {
        "name": environment.name,
        "path": str(environment.path),
        "python": str(environment.python),
        "base_prefix": str(environment.base_prefix),
        "version": ".".join(environment.python_version.split(".")[:2]),
        "preload": list(environment.preload),
        "variables": dict(ENVIRONMENT_VARIABLES),
    }


def _read_report(fd: int, process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    raw = b""
    while not raw.endswith(b"\n"):
        readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(fd, 65536) if readable else b""
        if not chunk:
            why = "it ended" if readable else f"it did not answer within {timeout_s:g} s"
            raise EngineError(f"the supervisor did not start: {why}; its log has the reason")
        raw += chunk
    report: dict[str, Any] = json.loads(raw)
    if report.get("error"):
        kind = WeakIsolationError if report.get("weak") else EngineError
        raise kind(report["error"])
    return report
