"""The operator's environments folder as the supervisor sees it: what was added or removed while it serves.

Only the supervisor reads the folder. The gateway is confined and may be lied to by every client, so it hands on a
name and gets a sandbox or a refusal; it never says a path, and nothing that a sandbox can write to is read here.
Looking costs one stat while the folder is unchanged, so names that do not exist can be asked for at any rate.
"""

from __future__ import annotations

import time
from pathlib import Path

from onehop.environments import known
from onehop.environments.model import DEFAULT_NAME, Environment, load
from onehop.errors import EnvironmentBuildError

SETTLED_NS = 2_000_000_000
"""A folder changed this recently may change again without another time of change: it is read again."""


class Catalogue:
    """
    Attributes:
        found: the environments that are built, by name, as of the last look.
    """

    def __init__(self, home: Path) -> None:
        self.found: dict[str, Environment] = {}
        self._home = home
        self._folder = known.folder(home)
        self._stamp_ns = -1
        self._settled = False
        self._seen: dict[str, tuple[tuple[int, int], Environment]] = {}
        self._packages: dict[str, dict[str, str]] = {}

    def look(self) -> bool:
        """Brings `found` up to date. Returns whether it was read again."""
        try:
            stamp_ns = self._folder.stat().st_mtime_ns
        except OSError:
            stamp_ns = 0
        if stamp_ns == self._stamp_ns and self._settled:
            return False
        self._stamp_ns = stamp_ns
        self._settled = abs(time.time_ns() - stamp_ns) > SETTLED_NS
        self.found = {name: one for name in known.names(self._home) if (one := self._find(name))}
        return True

    def packages(self, path: str) -> dict[str, str]:
        """Versions by name of the environment at `path`; builds never change."""
        if path not in self._packages:
            try:
                self._packages[path] = load(Path(path)).packages
            except EnvironmentBuildError:
                return {}
        return self._packages[path]

    def _find(self, name: str) -> Environment | None:
        """One that was whole and whose lock is the same file is not read again."""
        try:
            status = self._lock(name).stat()
            key = (status.st_ino, status.st_mtime_ns)
            before = self._seen.get(name)
            if before is not None and before[0] == key and before[1].path.exists():
                return before[1]
            one = known.find(name, self._home)
        except (OSError, EnvironmentBuildError):
            return None
        if one is not None:
            self._seen[name] = (key, one)
        return one

    def _lock(self, name: str) -> Path:
        return known.DEFAULT_LOCK if name == DEFAULT_NAME else known.lock_path(name, self._home)
