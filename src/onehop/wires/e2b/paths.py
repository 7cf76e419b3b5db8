"""Paths as E2B's clients write them: the home of its user is the workspace here, by three names."""

from __future__ import annotations

import posixpath

from onehop.errors import InvalidPathError

HOME = "/home/user"
ROOTS = (HOME, "/workspace", "/mnt/data")


def absolute(path: str) -> str:
    """For a program in the sandbox. Raises InvalidPathError for what no program can open."""
    if not path or "\0" in path:
        raise InvalidPathError("path: it is empty or holds a NUL character", field="path")
    if path == "~" or path.startswith("~/"):
        path = HOME + path[1:]
    return posixpath.normpath(posixpath.join(HOME, path))


def in_workspace(path: str) -> str:
    """Relative to the workspace, empty for itself. Raises InvalidPathError for what is outside of it."""
    whole = absolute(path)
    for root in ROOTS:
        if whole == root:
            return ""
        if whole.startswith(root + "/"):
            return whole[len(root) + 1 :]
    raise InvalidPathError(
        f"path: {path[:200]!r} is not in {HOME}; files are read and written there, elsewhere by commands",
        field="path",
    )
