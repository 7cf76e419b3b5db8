"""Shell commands in a sandbox: what happens between init's fork and bash, behind the walls of a kernel.

Folders are opened below the workspace's descriptor and never followed out of it. Init itself reads
nothing that user code wrote.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any, NoReturn

from onehop.jail import enter, landlock, syscalls

SHELL = "/bin/bash"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK
_RESOLVE = (
    syscalls.RESOLVE_BENEATH
    | syscalls.RESOLVE_NO_SYMLINKS
    | syscalls.RESOLVE_NO_MAGICLINKS
    | syscalls.RESOLVE_NO_XDEV
)
_DEFAULTS = (signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD, signal.SIGXFSZ)
"""Python handles or ignores these; what is ignored stays ignored in the programs that it starts."""


def open_folder(workspace: int, path: str) -> int:
    """A descriptor of a folder of the workspace. Raises OSError when there is none of that name."""
    if not path:
        return os.dup(workspace)
    return syscalls.openat2(workspace, os.fsencode(path), _FOLDER, 0, _RESOLVE)


def become(
    fds: list[int], folder: int, home: str, template: Any, ruleset: int, go: dict[str, Any]
) -> NoReturn:
    """Turns this fork of init into bash.

    Args:
        fds: stdin, stdout, stderr, and a file with `command` and `env` as JSON.
        folder: where it starts.
        home: path of the workspace.
        template: of the zygote's sandboxes.
        go: what init was told at its start.
    """
    signal.set_wakeup_fd(-1)
    for number in _DEFAULTS:
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    with os.fdopen(os.dup(fds[3]), "rb") as file:
        file.seek(0)
        asked = json.loads(file.read())
    os.fchdir(folder)
    high = [os.dup(fd) for fd in fds[:3]]
    ruleset = os.dup(ruleset) if ruleset >= 0 else -1
    for target, fd in enumerate(high):
        os.dup2(fd, target)
    if ruleset >= 0:
        ruleset = os.dup2(ruleset, 3, inheritable=False)
    os.closerange(4, 4096)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    _oom_score("1000")
    if ruleset >= 0 and not template.namespaces:
        landlock.allow_reading(ruleset, "/proc/self")
    environ = {**os.environ, **go.get("environ", {}), "HOME": home}
    with contextlib.suppress(FileNotFoundError):  # the folder is gone again
        environ["PWD"] = os.getcwd()
    environ |= asked["env"]
    enter.drop_privileges(ruleset, template.seccomp, go["limits"])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execve(SHELL, [SHELL, "-c", asked["command"]], environ)
    except (OSError, ValueError) as error:
        os.write(2, f"the command cannot be started: {error}\n".encode())
    os._exit(126)


def _oom_score(score: str) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, score.encode())
    finally:
        os.close(fd)
