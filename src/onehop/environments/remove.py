"""Removes an environment that nobody uses. It must never take a file from under a sandbox.

Whoever runs sandboxes of an environment holds a shared lock on its directory (`hold`); a supervisor lets go of
one whose name is gone and whose sandboxes have ended. So the name goes first, and the files after the last lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack
from pathlib import Path

from onehop.environments import known
from onehop.environments.build import locked, staging_name, sweep
from onehop.environments.model import DEFAULT_NAME
from onehop.errors import EnvironmentBuildError, EnvironmentInUseError

RELEASE_S = 5.0
"""How long a supervisor gets to notice that a name is gone; it looks every second."""
POLL_S = 0.05


def hold(path: Path) -> int:
    """A descriptor that keeps the environment at `path` from being removed until it is closed.

    Raises:
        EnvironmentInUseError: it is being removed at this moment.
        OSError: there is nothing at `path`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise EnvironmentInUseError(f"the environment at {path} is being removed") from None
    return fd


def remove(name: str, home: Path, *, wait_s: float = RELEASE_S) -> int:
    """Takes the name away, then all its builds. Either all of it happens or nothing.

    Args:
        wait_s: seconds for whoever has it open without using it to let go.

    Returns:
        How many builds were deleted.

    Raises:
        EnvironmentInUseError: sandboxes use it; it is as it was before.
        EnvironmentBuildError: there is no such environment, or it cannot be removed.
    """
    known.check_name(name)
    if name == DEFAULT_NAME:
        raise EnvironmentBuildError(f"{DEFAULT_NAME!r} comes with onehop and cannot be removed")
    lock, aside = known.lock_path(name, home), known.aside_path(name, home)
    if not lock.exists() and not aside.exists():
        known.lock_text(name, home)  # raises, and says what there is
    try:
        with locked(known.folder(home), name, lambda line: None), ExitStack() as held:
            if lock.exists():
                lock.rename(aside)  # from now on nobody new finds it; a removal that was killed goes on here
            builds = list(known.builds(name, home))
            deadline_s = time.monotonic() + wait_s
            try:
                for build in builds:
                    _take_alone(build, deadline_s, held)
            except BaseException:
                aside.rename(lock)
                raise
            for build in builds:
                build.rename(staging_name(known.folder(home), name))
            sweep(known.folder(home), name)
            aside.unlink()
    except OSError as error:
        raise EnvironmentBuildError(f"the environment {name!r} cannot be removed: {error}") from error
    return len(builds)


def bytes_on_disk(path: Path) -> int:
    """What the files below `path` take; files that uv's cache shares count as well."""
    total = 0
    for directory, _, files in os.walk(path):
        for file in files:
            total += os.lstat(os.path.join(directory, file)).st_blocks * 512
    return total


def _take_alone(build: Path, deadline_s: float, held: ExitStack) -> None:
    fd = os.open(build, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, fd)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise EnvironmentInUseError(
                    f"sessions or runs use {build.name}, so nothing was removed; end them first "
                    "(onehop sessions list shows those of a server)"
                ) from None
            time.sleep(POLL_S)
        else:
            return
