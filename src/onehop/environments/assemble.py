"""The steps of one build, in a directory that nobody else sees yet.

Everything that user code would otherwise pay for on first use is done here: bytecode, the font list. It
must never leave a path of the host inside, except the interpreter's: users can read all of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from onehop.environments.locking import normalise
from onehop.environments.model import (
    ALLOWED_THREADS,
    ENVIRONMENT_VARIABLES,
    MANIFEST,
    MOUNT_POINT,
    SHARE,
    Environment,
)
from onehop.environments.uv import Progress, run, run_uv
from onehop.errors import EnvironmentBuildError

_HERE = Path(__file__).parent
_REPORT_EVERY_S = 5.0


def assemble(
    root: Path,
    *,
    name: str,
    digest: str,
    lock: str,
    preload: Sequence[str],
    own_preload: Sequence[str],
    python: Path,
    progress: Progress,
    held_fds: Sequence[int],
    allow_build: bool,
    needs: Sequence[str],
) -> Environment:
    """Make a whole environment in `root`, an empty directory.

    Args:
        root: will be renamed afterwards; nothing inside may depend on its path.
        lock: text of the lock, with hashes.
        preload: wished for; those that are not installed are left out of the manifest.
        own_preload: what must be there and fit into a zygote besides.
        python: base interpreter.
        held_fds: kept open by every process started here.
        allow_build: see `build.add`.
        needs: distributions that must be there afterwards.

    Raises:
        EnvironmentBuildError: a step failed.
    """
    lock_file = root / SHARE / "requirements.lock"
    lock_file.parent.mkdir(parents=True)
    lock_file.write_text(lock, encoding="utf-8")
    run_uv(
        ["venv", "--relocatable", "--allow-existing", "--no-project", "--python", str(python), str(root)],
        cwd=lock_file.parent,
        progress=lambda line: None,
        held_fds=held_fds,
    )
    # --relocatable makes console scripts find their python beside them. Nobody activates an environment.
    for script in {*(root / "bin").glob("*activate*"), *(root / "bin").glob("*.bat")}:
        script.unlink()
    command = ["pip", "sync", "--require-hashes", "--python", str(root / "bin" / "python"), str(lock_file)]
    run_uv(
        command if allow_build else [*command, "--no-build"],
        cwd=lock_file.parent,
        progress=progress,
        held_fds=held_fds,
    )
    site = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages = _installed(site)
    if missing := [need for need in needs if need not in packages]:
        raise EnvironmentBuildError(f"the kernel needs {' and '.join(missing)}, which the lock does not have")
    # Copied, not hard-linked: the source may be a developer's working copy.
    shutil.copyfile(_HERE / "warm.py", site / "onehop_warm.py")
    _compile(site, python, progress, held_fds)
    inside = [str(root / "bin" / "python"), "-I"]
    run(
        [*inside, str(_HERE / "fonts.py"), str(root)],
        cwd=root,
        held_fds=held_fds,
        on_line=lambda line: progress(f"listed {line}"),
    )
    environment = Environment(
        name=name,
        digest=digest,
        path=root,
        python=python,
        python_version=platform.python_version(),
        base_prefix=Path(sys.base_prefix).resolve(),
        packages=packages,
        preload=_importable(inside, [*preload, *own_preload], held_fds),
    )
    if own_preload:
        progress(f"importing {' '.join(own_preload)}")
        _check_own(inside, own_preload, environment.preload, held_fds)
    (root / MANIFEST).write_text(environment.manifest(), encoding="utf-8")
    _make_readable(root)
    os.sync()  # the rename that follows must not reach the disk before the files do
    return environment


def _installed(site: Path) -> dict[str, str]:
    found = importlib.metadata.distributions(path=[str(site)])
    return dict(sorted((normalise(dist.metadata["Name"]), dist.version) for dist in found))


def _compile(site: Path, python: Path, progress: Progress, held_fds: Sequence[int]) -> None:
    """Write bytecode for every module but the packages' own tests, three files in ten, which nobody imports.

    Not by `uv --compile-bytecode`, for two reasons. Bytecode holds its source's path: here it is the one
    under MOUNT_POINT, so the host's is not told to user code, and the importer has nothing to correct. And
    it is marked as never to be checked against the source's time: a copy that loses file times stays fast.
    """
    sources = [path for path in site.rglob("*.py") if "tests" not in path.relative_to(site).parts]
    progress(f"compiling bytecode of {len(sources)} files")
    done = 0
    told = time.monotonic()

    def count(line: str) -> None:
        nonlocal done, told
        done += line.startswith("Compiling")
        if time.monotonic() - told >= _REPORT_EVERY_S:
            told = time.monotonic()
            progress(f"compiled {done} of {len(sources)} files")

    inside = Path(MOUNT_POINT, *site.parts[-3:])
    command = [
        str(python),
        "-I",
        "-u",
        "-m",
        "compileall",
        "-f",
        "-j",
        "0",
        "-s",
        str(site),
        "-p",
        str(inside),
    ]
    run(
        [*command, "-x", "/tests/", "--invalidation-mode", "unchecked-hash", str(site)],
        cwd=site,
        held_fds=held_fds,
        on_line=count,
        allow_failure=True,  # packages carry sources that are no valid Python on purpose; checked below
    )
    tag = sys.implementation.cache_tag
    for source in sources:
        if not (source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc").exists():
            try:
                compile(source.read_bytes(), str(source), "exec", dont_inherit=True)
            except (SyntaxError, ValueError):
                continue
            raise EnvironmentBuildError(f"no bytecode was written for {source.relative_to(site)}")


def _importable(inside: Sequence[str], preload: Sequence[str], held_fds: Sequence[int]) -> tuple[str, ...]:
    """Those of `preload` that are there; a module that is there and fails to import fails the build."""
    completed = subprocess.run(
        [*inside, "-B", "-m", "onehop_warm"],
        input="\n".join(preload),
        capture_output=True,
        text=True,
        pass_fds=held_fds,
        env={"PATH": os.defpath, "MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    if completed.returncode != 0:
        raise EnvironmentBuildError(f"the modules to preload cannot be imported:\n{completed.stderr[-2000:]}")
    found: list[str] = json.loads(completed.stdout)
    return tuple(found)


def _check_own(
    inside: Sequence[str], own: Sequence[str], importable: Sequence[str], held_fds: Sequence[int]
) -> None:
    """Raises EnvironmentBuildError for modules that are not there, or that a zygote would refuse."""
    if missing := [module for module in own if module not in importable]:
        raise EnvironmentBuildError(
            f"the modules to preload are not in the environment: {', '.join(missing)}; add their packages, or "
            "name modules and not packages (`PIL`, not `pillow`)"
        )
    completed = subprocess.run(
        [*inside, "-B", "-c", _THREADS],
        input="\n".join(importable),
        capture_output=True,
        text=True,
        pass_fds=held_fds,
        env={"PATH": os.defpath, "MPLBACKEND": "agg", **ENVIRONMENT_VARIABLES},
        check=False,
    )
    if completed.returncode != 0:
        raise EnvironmentBuildError(f"the modules to preload cannot be imported:\n{completed.stderr[-2000:]}")
    if threads := [name for name in json.loads(completed.stdout) if name not in ALLOWED_THREADS]:
        raise EnvironmentBuildError(
            f"the modules to preload start threads ({', '.join(threads)}), which a fork would lose; leave out the "
            "one that does: code can still import it"
        )


_THREADS = """
import glob, json, os, sys, onehop_warm
onehop_warm.load(sys.stdin.read().split())
own = str(os.getpid())
found = [open(f"{task}/comm").read().strip() for task in glob.glob("/proc/self/task/*") if not task.endswith("/" + own)]
print(json.dumps(found))
"""
"""Imports as a zygote does; prints the names of all threads but the first."""


def _make_readable(root: Path) -> None:
    """Let every uid read, for a sandbox has its own; uv links files with the modes they have in its cache."""
    for directory, _, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, file) for file in files)]:
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = mode | (0o555 if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0o444)
            if wanted != mode:
                os.chmod(path, stat.S_IMODE(wanted))
