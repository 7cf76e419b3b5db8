"""Builds environments, once each, and finds the ones that are built.

An environment appears under its final name by one rename, complete or not at all; a build that fails or is
killed changes nothing. It must never write into an environment that is there, for sandboxes may have it
mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onehop.environments import locking
from onehop.environments.assemble import assemble
from onehop.environments.model import DEFAULT_NAME, KERNEL_REQUIREMENTS, LAYOUT_VERSION, Environment, load
from onehop.environments.uv import Progress
from onehop.errors import EnvironmentBuildError

_HERE = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIGEST_CHARACTERS = 12


def ensure(name: str, home: Path, *, progress: Progress) -> Environment:
    """The environment called `name`, built now if it is not there yet.

    Two callers at once build it once: the second says that it waits, and then finds it. It blocks; call it
    from a thread where that matters.

    Args:
        name: "default", or one that `add` has made.
        home: ONEHOP_HOME; environments lie in `home/environments/<name>-<first 12 of the digest>`.
        progress: called with one line of text at each step.

    Raises:
        EnvironmentBuildError: no such name, packages cannot be reached or fit their hashes not, no room.
    """
    return ensure_lock(name, _lock_text(name, home), home, progress=progress)


def find(name: str, home: Path) -> Environment | None:
    """What `ensure` would return without building; None when it would build. Nothing is changed.

    Raises:
        EnvironmentBuildError: no such name.
    """
    digest = _digest(_lock_text(name, home), preload_list(), base_python())
    return _find(home / "environments" / f"{name}-{digest[:_DIGEST_CHARACTERS]}")


def add(
    name: str, requirements: str, home: Path, *, progress: Progress, allow_build: bool = False
) -> Environment:
    """Lock `requirements` and what the kernel needs, build them, and only then remember `name` for `ensure`.

    Args:
        name: lower-case letters, digits, "_" and "-"; not "default".
        requirements: the text of a requirements.txt; an earlier environment of that name stays as it is on
            disk.
        home: ONEHOP_HOME.
        progress: called with one line of text at each step.
        allow_build: True lets packages without a wheel run their build code on this machine.

    Raises:
        EnvironmentBuildError: as `ensure`, or the requirements contradict each other.
    """
    _check_name(name)
    if name == DEFAULT_NAME:
        raise EnvironmentBuildError(
            f"{DEFAULT_NAME!r} is the environment that comes with onehop; take another name"
        )
    progress("resolving")
    text = locking.compile_for(requirements, base_python(), progress, allow_build=allow_build)
    environment = ensure_lock(name, text, home, progress=progress, allow_build=allow_build)
    target = _lock_path(home, name)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(target)
    return environment


def ensure_lock(
    name: str,
    lock: str,
    home: Path,
    *,
    progress: Progress,
    allow_build: bool = False,
    needs: Sequence[str] = KERNEL_REQUIREMENTS,
) -> Environment:
    """As `ensure`, from the text of a lock.

    Args:
        needs: distributions that the lock must bring, by normalised name.
    """
    _check_name(name)
    python = base_python()
    preload = preload_list()
    digest = _digest(lock, preload, python)
    directory = home / "environments"
    final = directory / f"{name}-{digest[:_DIGEST_CHARACTERS]}"
    started = time.monotonic()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (built := _find(final)) is not None:
            _sweep_if_idle(directory, name)
            return built
        with _locked(directory, name, progress) as lock_fd:
            _sweep(directory, name)
            if (built := _find(final)) is not None:
                return built
            with _staging(directory, name) as staging:
                progress(f"building the environment {name!r} for Python {platform.python_version()}")
                assemble(
                    staging,
                    name=name,
                    digest=digest,
                    lock=lock,
                    preload=preload,
                    python=python,
                    progress=progress,
                    held_fds=(lock_fd,),
                    allow_build=allow_build,
                    needs=needs,
                )
                if final.exists():  # damaged: `_find` would have returned it
                    final.rename(_staging_name(directory, name))
                staging.rename(final)
            _sweep(directory, name)
    except OSError as error:
        raise EnvironmentBuildError(f"cannot build the environment {name!r}: {error}") from error
    progress(f"environment {name!r} is ready after {time.monotonic() - started:.0f} s: {final}")
    return load(final)


def list_environments(home: Path) -> tuple[Environment, ...]:
    """All that are built and whole, older builds of a name included, sorted by path."""
    directory = home / "environments"
    if not directory.is_dir():
        return ()
    found = (_find(path) for path in sorted(directory.iterdir()) if not path.name.startswith("."))
    return tuple(environment for environment in found if environment is not None)


def base_python() -> Path:
    """The interpreter that this one's virtual environment was made from, with all symlinks resolved."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def preload_list() -> tuple[str, ...]:
    """The modules of preload.txt."""
    lines = (_HERE / "preload.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise EnvironmentBuildError(f"{name!r} is no name for an environment: use a-z, 0-9, '_' and '-'")


def _lock_text(name: str, home: Path) -> str:
    _check_name(name)
    if name == DEFAULT_NAME:
        lock = locking.DEFAULT_LOCK
    else:
        lock = _lock_path(home, name)
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise EnvironmentBuildError(f"there is no environment {name!r}: {error}") from error
    return text


def _lock_path(home: Path, name: str) -> Path:
    return home / "environments" / f"{name}.lock"


def _digest(lock: str, preload: tuple[str, ...], python: Path) -> str:
    """Over everything that decides what the built directory contains."""
    parts = [
        str(LAYOUT_VERSION),
        str(python),
        sys.version,
        platform.machine(),
        lock,
        "\n".join(preload),
        *((_HERE / file).read_text(encoding="utf-8") for file in ("warm.py", "fonts.py")),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _find(path: Path) -> Environment | None:
    try:
        environment = load(path)
    except EnvironmentBuildError:
        return None
    return environment if environment.python.exists() else None


@contextlib.contextmanager
def _locked(directory: Path, name: str, progress: Progress) -> Iterator[int]:
    """Hold the build lock of `name`. Its file stays: removing it would let two builders hold two locks."""
    descriptor = os.open(directory / f".{name}.building", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another process is building the environment {name!r}; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


# A name has no dot, so that one environment's leftovers cannot be taken for another's ("a" and "a-b").
def _staging_prefix(name: str) -> str:
    return f".staging.{name}."


def _staging_name(directory: Path, name: str) -> Path:
    return directory / f"{_staging_prefix(name)}{os.getpid()}.{time.monotonic_ns()}"


@contextlib.contextmanager
def _staging(directory: Path, name: str) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=_staging_prefix(name), dir=directory))
    path.chmod(0o755)
    try:
        yield path
    finally:
        if path.exists():
            _remove(path)


def _sweep(directory: Path, name: str) -> None:
    """Remove what dead builders left. Only for the lock's holder: all that is staged is then a dead one's."""
    for path in directory.glob(f"{_staging_prefix(name)}*"):
        _remove(path)


def _sweep_if_idle(directory: Path, name: str) -> None:
    if not any(directory.glob(f"{_staging_prefix(name)}*")):
        return
    descriptor = os.open(directory / f".{name}.building", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sweep(directory, name)
    except BlockingIOError:
        pass  # somebody is building; it is his
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
