"""Builds the minimal read-only root that a zygote and all its sandboxes live in, and moves into it.

Runs in the launcher of a zygote, a process of its own, with the caller's privileges and before any
user code exists. It must never make anything writable visible, nor a path that holds the server's
own files.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import os
import re
from pathlib import Path

from onehop.jail import syscalls as sys

DEVICES = ("null", "zero", "full", "random", "urandom")
SYSTEM = (
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib32",
    "usr/lib64",
    "usr/libexec",
    "usr/share",
    "bin",
    "sbin",
    "lib",
    "lib32",
    "lib64",
)
ETC_BINDS = ("ld.so.cache", "alternatives", "mime.types")
ETC = {
    "passwd": "root:x:0:0::/:/usr/sbin/nologin\nsandbox:x:1000:1000::/workspace:/bin/bash\n"
    "nobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
    "shells": "/bin/sh\n/bin/bash\n",
}
# Where other installations keep Python packages; the server's own may be among them.
HIDDEN = ("usr/lib/python3/dist-packages",)
ENVIRONMENT_MOUNT = "/opt/env"
CODE_MOUNT = "/opt/onehop"


def build(new_root: str, *, environment: str, base_prefix: str, python: str, version: str) -> None:
    """Mounts the root at `new_root`, an existing directory, in the caller's own mount namespace.

    Args:
        new_root: mount point, absolute.
        environment: directory of the environment (a virtual environment), mounted at /opt/env.
        base_prefix: `sys.base_prefix` of the interpreter that the environment was built with.
        python: its real executable.
        version: "3.11".

    Raises:
        OSError: a mount is refused.
    """
    sys.mount("tmpfs", new_root, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, "size=16m,nr_inodes=4096,mode=755")
    root = Path(new_root)
    for directory in (
        "etc",
        "dev",
        "dev/shm",
        "home",
        "mnt",
        "proc",
        "tmp",
        "workspace",
        "run/empty",
        "opt/onehop",
        "opt/env",
        "var/tmp",
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for name in SYSTEM:
        source = Path("/", name)
        if source.is_symlink():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            _bind(root, str(source))
    _bind_python(root, base_prefix, python, version)
    _bind(root, environment, ENVIRONMENT_MOUNT)
    for name in HIDDEN:
        _hide(root, "/" + name)
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    for name in ETC_BINDS:
        if os.path.exists(f"/etc/{name}"):
            _bind(root, f"/etc/{name}")
    # Where other code interpreters keep files: models write there from habit.
    for habit in (root / "mnt/data", root / "home/user"):
        # It is there when the interpreter itself is installed below it.
        if not habit.exists():
            habit.symlink_to("/workspace")
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    for name in DEVICES:
        target = root / "dev" / name
        target.touch()
        # A device node on a nodev mount cannot be opened, so these five keep the flags of their source.
        sys.mount(f"/dev/{name}", str(target), "", sys.MS_BIND)
        sys.mount_setattr(str(target), sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NOEXEC)
    for name, to in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        (root / "dev" / name).symlink_to(to)
    sys.mount("proc", str(root / "proc"), "proc", sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC)
    sys.mount_setattr(new_root, sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV)


def enter(new_root: str) -> None:
    """Makes `new_root` the root of the caller's mount namespace and drops every other mount."""
    os.chdir(new_root)
    # Both arguments the same directory: the old root ends up on top and is detached (pivot_root(2), NOTES).
    sys.pivot_root(".", ".")
    sys.umount(".", sys.MNT_DETACH)
    os.chdir("/")


def _bind(root: Path, source: str, target: str | None = None) -> None:
    destination = root / (target or source).lstrip("/")
    if os.path.isdir(source):
        destination.mkdir(parents=True, exist_ok=True)
    else:
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.touch()
    sys.mount(source, str(destination), "", sys.MS_BIND | sys.MS_REC)
    sys.mount_setattr(
        str(destination), sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV, recursive=True
    )


def _hide(root: Path, path: str) -> None:
    covered = root / path.lstrip("/")
    if covered.is_dir():
        sys.mount(str(root / "run/empty"), str(covered), "", sys.MS_BIND)
        sys.mount_setattr(str(covered), sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV)


def _bind_python(root: Path, base_prefix: str, python: str, version: str) -> None:
    """The interpreter, its shared libraries and its standard library, without its site-packages."""
    library = f"{base_prefix}/lib/python{version}"
    if base_prefix != "/usr":
        _bind(root, library)
        for entry in sorted(os.scandir(f"{base_prefix}/lib"), key=lambda e: e.name):
            if not re.fullmatch(r"lib.+\.so[.\d]*", entry.name):
                continue
            if entry.is_symlink():
                (root / entry.path.lstrip("/")).symlink_to(os.readlink(entry.path))
            elif entry.is_file():
                _bind(root, entry.path)
    if not (root / python.lstrip("/")).exists():
        _bind(root, python)
    for name in ("site-packages", "dist-packages"):
        _hide(root, f"{library}/{name}")
