"""Which environments a home has, by name: looked up and never built, so it needs nothing but the standard library.

A name is a file `<name>.lock` in `home/environments`, and `default` is always one. The supervisor looks here while
it serves: nothing below may wait for anybody, and a name that comes from a request must not lead out of the folder.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from onehop.environments.model import DEFAULT_NAME, LAYOUT_VERSION, Environment, load
from onehop.errors import EnvironmentBuildError

DEFAULT_LOCK = Path(__file__).with_name("default.lock")
PRELOAD_MARK = "# onehop preload: "
"""Begins the line of a lock that names what the zygote imports besides preload.txt."""
_HERE = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIGEST_CHARACTERS = 12


def find(name: str, home: Path) -> Environment | None:
    """What `build.ensure` would return without building; None when it would build. Nothing is changed.

    Raises:
        EnvironmentBuildError: no such name.
    """
    lock = lock_text(name, home)
    return intact(place(name, digest_of(lock, base_python()), home))


def names(home: Path) -> list[str]:
    """All that can be asked for, built or not, sorted."""
    found = (path.stem for path in folder(home).glob("[!.]*.lock"))
    return sorted({DEFAULT_NAME, *(name for name in found if _NAME.fullmatch(name))})


def list_environments(home: Path) -> tuple[Environment, ...]:
    """All that are built and whole, older builds of a name included, sorted by path."""
    directory = folder(home)
    if not directory.is_dir():
        return ()
    found = (intact(path) for path in sorted(directory.iterdir()) if not path.name.startswith("."))
    return tuple(environment for environment in found if environment is not None)


def builds(name: str, home: Path) -> Iterator[Path]:
    """The directories of all builds of a name, this one's and earlier ones."""
    pattern = re.compile(rf"{re.escape(name)}-[0-9a-f]{{{_DIGEST_CHARACTERS}}}")
    directory = folder(home)
    if directory.is_dir():
        yield from (path for path in sorted(directory.iterdir()) if pattern.fullmatch(path.name))


def folder(home: Path) -> Path:
    return home / "environments"


def lock_path(name: str, home: Path) -> Path:
    return folder(home) / f"{name}.lock"


def aside_path(name: str, home: Path) -> Path:
    """Where the lock of an environment lies while it is being removed; a removal that was killed leaves it."""
    return folder(home) / f".{name}.removing"


def place(name: str, digest: str, home: Path) -> Path:
    """The directory of one build."""
    return folder(home) / f"{name}-{digest[:_DIGEST_CHARACTERS]}"


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise EnvironmentBuildError(f"{name!r} is no name for an environment: use a-z, 0-9, '_' and '-'")


def lock_text(name: str, home: Path) -> str:
    """Raises EnvironmentBuildError when there is no such name."""
    check_name(name)
    lock = DEFAULT_LOCK if name == DEFAULT_NAME else lock_path(name, home)
    try:
        return lock.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EnvironmentBuildError(
            f"there is no environment {name!r}; there are: {', '.join(names(home))}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentBuildError(
            f"the lock of the environment {name!r} cannot be read: {error}"
        ) from error


def base_python() -> Path:
    """The interpreter that this one's virtual environment was made from, with all symlinks resolved."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def preload_list() -> tuple[str, ...]:
    """The modules of preload.txt."""
    lines = (_HERE / "preload.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def own_preload(lock: str) -> tuple[str, ...]:
    """The modules that a lock itself asks for."""
    lines = (line for line in lock.splitlines() if line.startswith(PRELOAD_MARK))
    return tuple(module for line in lines for module in line.removeprefix(PRELOAD_MARK).split())


def digest_of(lock: str, python: Path) -> str:
    """Over everything that decides what the built directory contains."""
    parts = [
        str(LAYOUT_VERSION),
        str(python),
        sys.version,
        platform.machine(),
        lock,
        "\n".join(preload_list()),
        *((_HERE / file).read_text(encoding="utf-8") for file in ("warm.py", "fonts.py")),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def intact(path: Path) -> Environment | None:
    """The environment at `path`; None when there is none, or it is damaged."""
    try:
        environment = load(path)
    except EnvironmentBuildError:
        return None
    return environment if environment.python.exists() else None
