"""Environments for the tests: the default one as users have it, and locks that build in a second."""

import os
import re
from pathlib import Path

import pytest

from onehop.environments import DEFAULT_NAME, Environment, ensure
from onehop.environments.locking import DEFAULT_LOCK


@pytest.fixture(scope="session")
def default_environment() -> Environment:
    home = os.environ.get("ONEHOP_HOME")
    directory = Path(home).expanduser() if home else Path.home() / ".local" / "share" / "onehop"
    return ensure(DEFAULT_NAME, directory.absolute(), progress=print)


def lock_of(*names: str) -> str:
    """The entries of default.lock for these packages: real pins and hashes, already in uv's cache."""
    text = DEFAULT_LOCK.read_text(encoding="utf-8")
    entries = re.findall(r"^[a-z0-9].*(?:\n .*)*", text, flags=re.MULTILINE)
    chosen = [entry for entry in entries if entry.partition("==")[0] in names]
    assert len(chosen) == len(names)
    return "\n".join(chosen) + "\n"
