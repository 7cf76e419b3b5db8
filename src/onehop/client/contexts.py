"""A session's contexts: further interpreters in the same sandbox, with variables of their own and the same files."""

from __future__ import annotations

from onehop.client.core import Part
from onehop.client.methods import awaiting, blocking
from onehop.client.records import ContextInfo, record
from onehop.client.requests import document, get, post, send
from onehop.client.steps import Op, Request


def create(self: Part, name: str | None = None, *, cwd: str | None = None) -> Op[ContextInfo]:
    """Makes a context, to be named in `run(code, context=…)`.

    Args:
        name: 1 to 64 of A-Z a-z 0-9 _ -; a random one when left out.
        cwd: folder of the workspace that its code runs in.

    Raises:
        ConflictError: the name is taken.
        TooManyError: there are as many as one session may have.
    """
    path = yield from self._path("contexts")
    reply = yield from send(post(path, {"name": name, "cwd": cwd}))
    return record(ContextInfo, document(reply))


def list_contexts(self: Part) -> Op[list[ContextInfo]]:
    """All contexts; `main` is always there."""
    path = yield from self._path("contexts")
    found = yield from get(path)
    return [record(ContextInfo, one) for one in found["contexts"]]


def get_context(self: Part, name: str) -> Op[ContextInfo]:
    """One context. Raises NotFoundError."""
    path = yield from self._path("contexts", name)
    return record(ContextInfo, (yield from get(path)))


def restart(self: Part, name: str = "main") -> Op[ContextInfo]:
    """A new interpreter: variables are gone, files stay, what runs in it ends as `killed`."""
    path = yield from self._path("contexts", name, "restart")
    return record(ContextInfo, document((yield from send(post(path, {})))))


def delete(self: Part, name: str) -> Op[None]:
    """Ends a context. Raises ConflictError for `main`."""
    path = yield from self._path("contexts", name)
    yield from send(Request("DELETE", path))


class Contexts(Part):
    """The contexts of a session."""

    create = blocking(create)
    list = blocking(list_contexts)
    get = blocking(get_context)
    restart = blocking(restart)
    delete = blocking(delete)


class AsyncContexts(Part):
    """The contexts of a session."""

    create = awaiting(create)
    list = awaiting(list_contexts)
    get = awaiting(get_context)
    restart = awaiting(restart)
    delete = awaiting(delete)
