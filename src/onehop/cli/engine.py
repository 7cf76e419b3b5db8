"""What all commands need to start an engine: the built environment and the supervisor's settings."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from onehop.config import MIB, UID_RANGE, Settings
from onehop.errors import EngineError

if TYPE_CHECKING:
    from onehop.environments.model import Environment
    from onehop.supervisor.spawn import SupervisorSettings

LOG_LINES = 10
PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def environment(settings: Settings, progress: Callable[[str], None]) -> Environment:
    """The environment that `settings` names, built first if need be. Raises EnvironmentBuildError."""
    from onehop.environments.build import ensure

    return ensure(settings.environment, settings.home, progress=progress)


def service_uid(settings: Settings) -> int | None:
    """The uid that the gateway runs as: the last of the reserved range; None unless started by root."""
    return settings.uid_base + UID_RANGE - 1 if os.geteuid() == 0 else None


@contextlib.contextmanager
def supervisor_log() -> Iterator[IO[bytes]]:
    """A file for the log of a supervisor that serves one command; it is shown only when that fails."""
    with tempfile.TemporaryFile() as log:
        try:
            yield log
        except EngineError:
            log.seek(0)
            for line in log.read().decode(errors="replace").splitlines()[-LOG_LINES:]:
                print(line, file=sys.stderr)
            raise


def supervisor_settings(
    settings: Settings,
    environments: tuple[Environment, ...],
    *,
    for_gateway: bool = False,
    one_session: bool = False,
) -> SupervisorSettings:
    """What the supervisor is told.

    Args:
        environments: the first is warmed at once.
        for_gateway: the service user may connect.
        one_session: for one piece of code: no more than one sandbox is kept ready.
    """
    from onehop.supervisor.spawn import SupervisorSettings

    pool_min, pool_max = (1, 1) if one_session else (settings.pool_min, settings.pool_max)
    return SupervisorSettings(
        environments=environments,
        pool_min=pool_min,
        pool_max=pool_max,
        max_sandboxes=settings.max_sessions + settings.max_concurrent + settings.pool_max,
        uid_base=settings.uid_base,
        socket_uid=service_uid(settings) if for_gateway else None,
        strict=settings.strict,
        allow_no_namespaces=settings.allow_no_namespaces,
        open_files=settings.open_files,
        workspace_bytes=settings.workspace_mb * MIB,
        workspace_inodes=settings.workspace_inodes,
        memory_bytes=settings.memory_mb * MIB,
        processes=settings.processes,
        log_format=settings.log_format,
    )
