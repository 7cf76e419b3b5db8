"""The server's database for a command that works on it directly, also while the server runs.

Where the server was started by root its state belongs to the service user. Root then becomes that user
first: a file that root made there would be closed to the server, and whoever is the service user must
not be able to make root follow a link.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onehop.cli.engine import service_uid
from onehop.config import Settings
from onehop.errors import ConfigurationError
from onehop.jail import service

if TYPE_CHECKING:
    from sqlalchemy import Connection

SOURCE = str(Path(__file__).parents[2])
"""Where onehop itself is loaded from."""
NAMES = ("home", "database_url", "uid_base")
"""The settings that such a command takes."""


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Connection]:
    """A connection whose changes are committed at the end.

    Raises:
        ConfigurationError: it cannot be opened, or belongs to another user.
    """
    if not settings.database_url:
        _become_owner(settings)
    from sqlalchemy.exc import DBAPIError

    from onehop.store.database import open_database

    engine = open_database(settings.database_url, settings.state)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise ConfigurationError(f"database_url: the database cannot be used: {error.orig}") from error
    finally:
        engine.dispose()


def _become_owner(settings: Settings) -> None:
    state = settings.state
    try:
        owner: int | None = os.lstat(state).st_uid
    except FileNotFoundError:
        owner = None
    except OSError as error:
        raise ConfigurationError(f"home: {error}; run this as root, or as the server's user") from error
    uid = os.geteuid()
    if uid != 0:
        if owner not in (None, uid):
            raise ConfigurationError(
                f"{state} belongs to another user (uid {owner}); run this as root, or as that user"
            )
        return
    service_user = owner or service_uid(settings)
    assert service_user is not None
    try:
        service.own_directory(state, service_user)
    except OSError as error:
        raise ConfigurationError(f"home: {state} cannot be used: {error}") from error
    service.enter(
        uid=service_user,
        # Without the folder that the command was called in, which `python -m` adds and which may be closed.
        readable=[path for path in service.interpreter_paths() if path != os.getcwd() or path == SOURCE],
        writable=[str(state)],
        parent=os.getppid(),
        allow_no_namespaces=True,
    )
