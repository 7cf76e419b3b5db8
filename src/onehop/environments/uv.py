"""Runs uv, and tells what it does line by line.

It decides how uv is started (interpreter, indexes, permissions), not what it installs. It must never let uv
fetch an interpreter of its own, nor read the project that happens to be the current directory.
"""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import uv as uv_package

from onehop.environments.pip_config import for_this_process
from onehop.errors import EnvironmentBuildError

Progress = Callable[[str], None]
"""Called with one short line, without a newline, each time there is something to say."""

_TOLD = ("Resolved ", "Downloading ", "Prepared ", "Installed ")
_KEPT_LINES = 30


def run_uv(
    arguments: Sequence[str],
    *,
    cwd: Path,
    progress: Progress,
    held_fds: Sequence[int] = (),
    variables: dict[str, str] | None = None,
    main_index_only: bool = False,
) -> None:
    """Run `uv pip …` or another command of uv to its end.

    Args:
        arguments: without the program's name.
        cwd: an empty directory: uv reads pyproject.toml and uv.toml where it stands.
        progress: gets the lines worth telling.
        held_fds: descriptors that uv keeps open as long as it lives: a lock stays taken when its owner is
            killed.
        variables: added to the environment last.
        main_index_only: leave out extra indexes and directories of files.

    Raises:
        EnvironmentBuildError: uv is missing or failed; its last lines are in the message.
    """
    settings = for_this_process(main_index_only=main_index_only)
    flags = settings.flags if arguments[0] == "pip" else ()
    try:
        program = os.fsdecode(uv_package.find_uv_bin())
    except FileNotFoundError as error:
        raise EnvironmentBuildError(f"uv is not installed beside onehop: {error}") from error
    run(
        [program, *arguments, *flags],
        cwd=cwd,
        held_fds=held_fds,
        variables={
            **settings.variables,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "NO_COLOR": "1",
            **(variables or {}),
        },
        on_line=lambda line: progress(line.strip()) if line.lstrip().startswith(_TOLD) else None,
    )


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    on_line: Callable[[str], None],
    held_fds: Sequence[int] = (),
    variables: dict[str, str] | None = None,
    allow_failure: bool = False,
) -> None:
    """Run a step of a build and hand over each line of its output; it is killed if this is interrupted.

    Raises:
        EnvironmentBuildError: it could not be started, or exited with another status than 0.
    """
    environ = {key: value for key, value in os.environ.items() if key not in _UNWANTED} | (variables or {})
    last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=held_fds,
            umask=0o022,  # sandboxes run under other uids than the builder and must be able to read
        )
    except OSError as error:
        raise EnvironmentBuildError(f"cannot start {command[0]}: {error}") from error
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.lstrip().startswith("sha256:"):  # a wrong hash is answered by all that would do
                    last_lines.append(line.rstrip())
                on_line(line.rstrip())
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status != 0 and not allow_failure:
        tail = "\n".join(last_lines)
        raise EnvironmentBuildError(f"{Path(command[0]).name} failed with status {status}:\n{tail}")


_UNWANTED = frozenset(
    {
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "UV_PROJECT",
        "UV_WORKING_DIR",
    }
)
"""These would point uv or a python of the build at another environment than the one being built."""
