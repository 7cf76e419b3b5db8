"""Launches a seed: builds its root, gives it a user namespace of its own and becomes it by exec.

Started by the supervisor as `python -I -c … launch.main()` with a JSON specification in a file whose descriptor
is argv[1]; the seed's control socket is descriptor 3. What a later tier (gVisor) needs is another
launcher that ends in the same exec; nothing else knows how a seed came to be.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import json
import os
import sys as python
from typing import Any

from onehop.jail import root
from onehop.jail import syscalls as sys

CONTROL_FD, SPEC_FD = 3, 4


def main() -> None:
    spec_fd = int(python.argv[1])
    spec = read_spec(spec_fd)
    if spec["namespaces"]:
        _enter_root(spec)
        interpreter = f"{root.ENVIRONMENT_MOUNT}/bin/python"
    else:
        interpreter = f"{spec['environment']}/bin/python"
    code = write_code(spec)
    os.dup2(spec_fd, SPEC_FD)
    start = (
        f"import sys; sys.path.insert(0, {code + '/src'!r}); from onehop.zygote.seed import start; start()"
    )
    os.execve(interpreter, [interpreter, "-s", "-P", "-c", start], spec["variables"])


def read_spec(fd: int) -> dict[str, Any]:
    """What the supervisor wrote into the file `fd`, which stays open for the next reader."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        spec: dict[str, Any] = json.load(file)
    return spec


def write_code(spec: dict[str, Any]) -> str:
    """Puts our source where an interpreter finds it; where there is a root, on a mount that is taken away again.

    Returns:
        The directory above `src`.
    """
    code: str = spec["staging"]
    if spec["namespaces"]:
        code = root.CODE_MOUNT
        flags = sys.MS_NOSUID | sys.MS_NODEV
        sys.mount("tmpfs", code, "tmpfs", flags, "size=8m,nr_inodes=1024,mode=755")
    for name, text in spec["code"].items():
        path = f"{code}/src/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    return code


def _enter_root(spec: dict[str, Any]) -> None:
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount("none", "/", "", sys.MS_REC | sys.MS_PRIVATE)
    root.build(
        spec["staging"],
        environment=spec["environment"],
        base_prefix=spec["base_prefix"],
        python=spec["python"],
        version=spec["version"],
    )
    root.enter(spec["staging"])
    _own_user_namespace(spec["id_map"])
    os.setresgid(0, 0, 0)
    if not spec["single_id"]:
        os.setgroups([])
    os.setresuid(0, 0, 0)
    # For libraries that want a temporary directory on import; every sandbox mounts its own over it.
    sys.mount("tmpfs", "/tmp", "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "size=8m,nr_inodes=1024,mode=1777")


def _own_user_namespace(id_map: str) -> None:
    """Unshares; a helper that stays outside writes the maps, since only it has the right to."""
    ready, started = os.pipe()
    me = os.getpid()
    helper = os.fork()
    if helper == 0:
        status = 1
        try:
            os.close(started)
            if os.read(ready, 1):
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{me}/{name}", "w") as file:
                        file.write(id_map)
                status = 0
        finally:
            os._exit(status)
    os.close(ready)
    sys.unshare(sys.CLONE_NEWUSER | sys.CLONE_NEWNS | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS | sys.CLONE_NEWNET)
    os.write(started, b"x")
    os.close(started)
    _, status = os.waitpid(helper, 0)
    if status != 0:
        raise OSError(1, "the id maps of the zygote's user namespace could not be written")
