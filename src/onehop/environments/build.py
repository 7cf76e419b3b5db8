"""Builds environments, once each, and finds the ones that are built.

An environment appears under its final name by one rename, complete or not at all; a build that fails or is
killed changes nothing. It must never write into an environment that is there, for sandboxes may have it
mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onehop.environments import known, locking
from onehop.environments.assemble import assemble
from onehop.environments.model import DEFAULT_NAME, KERNEL_REQUIREMENTS, Environment, load
from onehop.environments.uv import Progress
from onehop.errors import EnvironmentBuildError


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
    return ensure_lock(name, known.lock_text(name, home), home, progress=progress)


def add(
    name: str,
    requirements: str,
    home: Path,
    *,
    progress: Progress,
    preload: Sequence[str] = (),
    allow_build: bool = False,
) -> Environment:
    """Lock `requirements` and what the kernel needs, build them, and only then remember `name` for `ensure`.

    Args:
        name: lower-case letters, digits, "_" and "-"; not "default".
        requirements: the text of a requirements.txt; an earlier environment of that name stays as it is on
            disk.
        home: ONEHOP_HOME.
        progress: called with one line of text at each step.
        preload: modules that its zygote imports besides those of preload.txt.
        allow_build: True lets packages without a wheel run their build code on this machine.

    Raises:
        EnvironmentBuildError: as `ensure`, the requirements contradict each other, or a module to preload is
            not there or cannot be imported before a fork.
    """
    known.check_name(name)
    if wrong := [module for module in preload if not all(map(str.isidentifier, module.split(".")))]:
        raise EnvironmentBuildError(f"{wrong[0]!r} is no name of a module to preload")
    if name == DEFAULT_NAME:
        raise EnvironmentBuildError(
            f"{DEFAULT_NAME!r} is the environment that comes with onehop; take another name"
        )
    progress("resolving")
    text = locking.compile_for(requirements, known.base_python(), progress, allow_build=allow_build)
    if preload:
        text = f"{known.PRELOAD_MARK}{' '.join(dict.fromkeys(preload))}\n{text}"
    environment = ensure_lock(name, text, home, progress=progress, allow_build=allow_build)
    target = known.lock_path(name, home)
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
    known.check_name(name)
    python = known.base_python()
    digest = known.digest_of(lock, python)
    directory = known.folder(home)
    final = known.place(name, digest, home)
    started = time.monotonic()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (built := known.intact(final)) is not None:
            _sweep_if_idle(directory, name)
            return built
        with locked(directory, name, progress) as lock_fd:
            sweep(directory, name)
            if (built := known.intact(final)) is not None:
                return built
            with _staging(directory, name) as staging:
                progress(f"building the environment {name!r} for Python {platform.python_version()}")
                assemble(
                    staging,
                    name=name,
                    digest=digest,
                    lock=lock,
                    preload=known.preload_list(),
                    own_preload=known.own_preload(lock),
                    python=python,
                    progress=progress,
                    held_fds=(lock_fd,),
                    allow_build=allow_build,
                    needs=needs,
                )
                if final.exists():  # damaged: `intact` would have returned it
                    final.rename(staging_name(directory, name))
                staging.rename(final)
            sweep(directory, name)
    except OSError as error:
        raise EnvironmentBuildError(f"cannot build the environment {name!r}: {error}") from error
    progress(f"environment {name!r} is ready after {time.monotonic() - started:.0f} s: {final}")
    return load(final)


@contextlib.contextmanager
def locked(directory: Path, name: str, progress: Progress) -> Iterator[int]:
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


def staging_name(directory: Path, name: str) -> Path:
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


def sweep(directory: Path, name: str) -> None:
    """Remove what dead builders left. Only for the lock's holder: all that is staged is then a dead one's."""
    for path in directory.glob(f"{_staging_prefix(name)}*"):
        _remove(path)


def _sweep_if_idle(directory: Path, name: str) -> None:
    if not any(directory.glob(f"{_staging_prefix(name)}*")):
        return
    descriptor = os.open(directory / f".{name}.building", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sweep(directory, name)
    except BlockingIOError:
        pass  # somebody is building; it is his
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
