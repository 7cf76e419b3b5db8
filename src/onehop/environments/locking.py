"""Turns a list of requirements into a lock: every package with its version and hashes.

A lock must never name an index: it is published, and the hashes are what counts.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from onehop.environments.known import DEFAULT_LOCK
from onehop.environments.model import KERNEL_REQUIREMENTS
from onehop.environments.uv import Progress, run_uv

DEFAULT_REQUIREMENTS = Path(__file__).with_name("default.in")
__all__ = [
    "DEFAULT_LOCK",
    "DEFAULT_REQUIREMENTS",
    "compile_default",
    "compile_for",
    "direct_requirements",
    "normalise",
]

LOCK_COMMAND = "python -m onehop.environments.lock"

COMMON_FLAGS = ("--generate-hashes", "--no-emit-index-url", "--quiet")
DEFAULT_FLAGS = ("--universal", "--python-version", "3.11", "--no-build", *COMMON_FLAGS)
"""One lock for every supported Python and architecture, of wheels only."""


def compile_default(progress: Progress) -> str:
    """The text of default.lock for what default.in says today; package versions may be newer than before.

    Only the main index is asked: with a directory of files for this machine beside it, the lock once had the
    hashes of those files alone, and could be installed nowhere else.
    """
    text = DEFAULT_REQUIREMENTS.read_text(encoding="utf-8")
    return _compile(text, DEFAULT_FLAGS, progress, main_index_only=True)


def compile_for(requirements: str, python: Path, progress: Progress, *, allow_build: bool = False) -> str:
    """A lock of `requirements` and what the kernel needs, for one interpreter on this machine.

    Args:
        requirements: in pip's format; may be a lock itself.
        python: the base interpreter it will run on.
        allow_build: True lets packages without a wheel run their build code on this machine.

    Raises:
        EnvironmentBuildError: they cannot be satisfied, or cannot be reached.
    """
    text = "\n".join([requirements, *KERNEL_REQUIREMENTS, ""])
    flags = ("--python", str(python), "--upgrade", *COMMON_FLAGS)
    return _compile(text, flags if allow_build else (*flags, "--no-build"), progress)


def _compile(text: str, flags: tuple[str, ...], progress: Progress, *, main_index_only: bool = False) -> str:
    with tempfile.TemporaryDirectory(prefix="onehop-lock-") as directory:
        source = Path(directory, "requirements.in")
        target = Path(directory, "requirements.lock")
        source.write_text(text, encoding="utf-8")
        run_uv(
            ["pip", "compile", source.name, "--output-file", target.name, *flags],
            cwd=Path(directory),
            progress=progress,
            variables={"UV_CUSTOM_COMPILE_COMMAND": LOCK_COMMAND},
            main_index_only=main_index_only,
        )
        return target.read_text(encoding="utf-8")


def direct_requirements(text: str) -> tuple[str, ...]:
    """The normalised names in a requirements file, without versions, comments and options."""
    names = []
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)", line)
        if match:
            names.append(normalise(match[1]))
    return tuple(names)


def normalise(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
