"""What both faces of a session hold: where it is, its id, and how it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from onehop.client.requests import document, new_key, path_of, post, send
from onehop.client.steps import Op


class SessionOptions(TypedDict, total=False):
    """What a session can be made with; the server's defaults hold for what is left out.

    environment: the set of packages.
    memory_mb, processes, workspace_mb: MiB of memory, processes and threads, MiB of the workspace.
    idle_timeout_s: seconds without use after which it ends.
    max_age_s: seconds after which it ends in any case.
    pinned: it does not end for being idle.
    metadata: names and values of your own.
    env: environment variables of all its executions and commands.
    tools: what its code may call: names of tools that the server has, and tools as the API writes them.
    imports: `{"allow": […]}` or `{"deny": […]}`: modules that its code may import; a guard rail, no wall.
    """

    environment: str | None
    memory_mb: int | None
    processes: int | None
    workspace_mb: int | None
    idle_timeout_s: float | None
    max_age_s: float | None
    pinned: bool | None
    metadata: Mapping[str, str] | None
    env: Mapping[str, str] | None
    tools: Sequence[str | Mapping[str, Any]] | None
    imports: Mapping[str, Sequence[str]] | None


class Holder:
    """An object with a carrier; methods.py asks for nothing else."""

    _carrier: Any


class SessionCore(Holder):
    """A session that exists, or is made at its first use.

    Two first uses at once make one session: they carry the same key, which the server answers twice.
    """

    def __init__(self, carrier: Any, options: SessionOptions, session_id: str = "") -> None:
        if unknown := options.keys() - SessionOptions.__annotations__.keys():
            raise TypeError(f"a session has no option {sorted(unknown)[0]!r}")
        self._carrier = carrier
        self._options: Mapping[str, Any] = {**options}
        self._key = new_key()
        self._id = session_id

    @property
    def id(self) -> str:
        """The session's id; empty until its first use."""
        return self._id

    def _path(self, *parts: str) -> Op[str]:
        """The path of something in it; makes the session if need be."""
        if not self._id:
            reply = yield from send(post("/api/sessions", self._options, key=self._key))
            self._id = str(document(reply)["id"])
        return path_of("sessions", self._id, *parts)


class Part(Holder):
    """A group of a session's calls, such as `session.files`."""

    def __init__(self, session: SessionCore) -> None:
        self._carrier = session._carrier
        self._session = session

    def _path(self, *parts: str) -> Op[str]:
        return self._session._path(*parts)
