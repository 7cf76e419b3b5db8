"""The gateway's process: gives up every privilege, and only then imports and serves the API.

Started by processes.py with `python -m`; it must never import anything of the API before `confine`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, TextIO

from onehop.errors import EngineError, OnehopError
from onehop.jail import service

SUPERVISOR_LOST_EXIT = 75
"""Tells the master that supervisor and gateway must be started again."""
READY = b"ready"
BEAT = b"beat"
"""What it says to the master, a line each, besides the row: that it serves, and that its loop turns."""


def main() -> int:
    spec: dict[str, Any] = json.loads(os.environ.pop("ONEHOP_GATEWAY_SPEC"))
    with os.fdopen(spec["report_fd"], "w") as report:
        try:
            row = enter(spec)
        except OnehopError as error:
            print(json.dumps({"error": str(error)}), file=report)
            return 1
        print(json.dumps(row), file=report, flush=True)
        return 0 if spec["check_only"] else _serve(spec, report)


def _serve(spec: dict[str, Any], report: TextIO) -> int:
    import functools
    import socket

    from onehop import config
    from onehop.api import logs
    from onehop.api.serve import EXIT_SUPERVISOR_LOST, serve
    from onehop.wires import Wires

    def say(word: bytes) -> None:
        try:
            os.write(report.fileno(), word + b"\n")
        except BlockingIOError:
            pass  # a master that does not listen must not stop us

    os.set_blocking(report.fileno(), False)
    settings = config.load()
    logs.configure(settings)
    listener = socket.socket(fileno=spec["listen_fd"])
    try:
        code = serve(
            settings,
            spec["supervisor_path"],
            listener=listener,
            on_ready=lambda _: say(READY),
            on_beat=lambda: say(BEAT),
            tools=socket.socket(fileno=spec["tools_fd"]) if spec["tools_fd"] >= 0 else None,
            wires=functools.partial(Wires, keys=_keys(spec["keys_fd"])),
        )
    except EngineError:
        return SUPERVISOR_LOST_EXIT  # the master knows more about the supervisor than we do
    except OnehopError as error:
        print(f"onehop: {error}", file=sys.stderr)
        return 1
    return SUPERVISOR_LOST_EXIT if code == EXIT_SUPERVISOR_LOST else code


def _keys(fd: int) -> dict[str, str]:
    """Of the models' servers: handed over by descriptor, since others of this user can read an environment."""
    if fd < 0:
        return {}
    with os.fdopen(fd, "rb") as file:
        keys: dict[str, str] = json.load(file)
    return keys


def enter(spec: dict[str, Any]) -> dict[str, Any]:
    """Gives up what this process does not need; returns the row that the start screen and doctor show."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uid = spec["uid"]
    if uid is None:
        service.confine(parent=spec["parent"])
        return _row(
            "weaker", "no capabilities, no new privileges, but the caller's uid and files", "start as root"
        )
    covered = service.enter(
        uid=uid,
        readable=[*service.interpreter_paths(), *spec["readable"]],
        writable=spec["writable"],
        parent=spec["parent"],
        allow_no_namespaces=spec["allow_no_namespaces"],
    )
    if covered is None:
        return _row("weaker", f"uid {uid}, no capabilities, but it sees every open file", "needs namespaces")
    hidden = f"; hidden from it: {', '.join(covered)}" if covered else ""
    return _row("active", f"uid {uid}, no capabilities{hidden}")


def _row(state: str, detail: str, advice: str = "") -> dict[str, Any]:
    return {"name": "gateway", "state": state, "detail": detail, "advice": advice}


if __name__ == "__main__":
    sys.exit(main())
