"""Both faces of the SDK behind one: the cases are written once, for asyncio.

The blocking face runs in threads, so that two of its calls can be under way at once there, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import onehop

ITERATING = {"stream", "events"}
PARTS = (onehop.Files, onehop.Contexts, onehop.Commands, onehop.Keys, onehop.Command, onehop.Session)


class Awaited:
    """A blocking object whose methods can be awaited."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if isinstance(value, PARTS):
            return Awaited(value)
        if name in ITERATING:
            return lambda *args, **kwargs: _iterate(value(*args, **kwargs))
        if name in ("session", "attach"):
            return lambda *args, **kwargs: Awaited(value(*args, **kwargs))
        if not callable(value):
            return value
        return _threaded(value)

    async def __aenter__(self) -> Awaited:
        await asyncio.to_thread(self.inner.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self.inner.__exit__, *error)


def _threaded(method: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        found = await asyncio.to_thread(method, *args, **kwargs)
        return Awaited(found) if isinstance(found, PARTS) else found

    return call


async def _iterate(values: Iterator[Any]) -> AsyncIterator[Any]:
    end = object()
    while (value := await asyncio.to_thread(next, values, end)) is not end:
        yield value


class Face:
    """Makes sessions and clients of one face."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    @property
    def is_async(self) -> bool:
        return self.name == "async"

    def session(self, url: str, **options: Any) -> Any:
        if self.is_async:
            return onehop.AsyncSession(url=url, **options)
        return Awaited(onehop.Session(url=url, **options))

    def attach(self, session_id: str, url: str) -> Any:
        if self.is_async:
            return onehop.AsyncSession.attach(session_id, url=url)
        return Awaited(onehop.Session.attach(session_id, url=url))

    def client(self, url: str, api_key: str | None = None) -> Any:
        return onehop.AsyncClient(url, api_key) if self.is_async else Awaited(onehop.Client(url, api_key))
