"""What a call gives in asynchronous code: something to await, whose call is under way already.

It is a future where a loop runs, so that gather and wait take it as it is, and a coroutine by its methods, so
that create_task and TaskGroup do, too. Whoever takes it for the value is told to await it.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from onehop.kernel.calls import Calls, Pending


class _Hints:
    """What both kinds have: the coroutine's methods, and errors that say what is missing."""

    _calls: Calls
    _pending: Pending
    _steps: Any = None

    def _hint(self) -> str:
        path = self._pending.path
        return (
            f"the call of tools.{path} was not awaited: write `await tools.{path}(…)`, "
            f"or tools.{path}.sync(…) for the value"
        )

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r}: {self._hint()}")

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(self._hint())

    __len__ = __getitem__ = __contains__ = __iter__ = __bool__ = _refuse
    __int__ = __float__ = __add__ = __radd__ = __lt__ = __gt__ = _refuse

    def __repr__(self) -> str:
        return f"<{self._pending.state()} call of tools.{self._pending.path}: await it for its value>"

    def send(self, value: Any) -> Any:
        """As of a coroutine."""
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps.send(value)

    def throw(self, *details: Any) -> Any:
        """As of a coroutine."""
        if self._steps is None:
            self._steps = self.__await__()
        self._abandon()
        return self._steps.throw(*details)

    def _abandon(self) -> None:
        """Whoever awaited it as a coroutine does not any more."""
        self._calls.give_up(self._pending)

    def close(self) -> None:
        """As of a coroutine."""
        if self._steps is not None:
            self._steps.close()

    def __await__(self) -> Generator[Any, None, Any]:
        raise NotImplementedError


class UnawaitedToolCall(_Hints, asyncio.Future):  # type: ignore[type-arg]
    """A future of the loop that ran when the call was made."""

    def __init__(self, calls: Calls, pending: Pending, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._calls, self._pending = calls, pending

    def __await__(self) -> Generator[Any, None, Any]:
        self._calls.used(self._pending)
        return asyncio.Future.__await__(self)

    def add_done_callback(self, *arguments: Any, **options: Any) -> None:
        self._calls.used(self._pending)
        super().add_done_callback(*arguments, **options)

    def cancel(self, msg: Any = None) -> bool:
        self._calls.give_up(self._pending)
        return super().cancel(msg)


class UnboundToolCall(_Hints):
    """For a call that was made while no loop ran, as in `asyncio.run(tools.f())`: one that runs takes it over."""

    def __init__(self, calls: Calls, pending: Pending) -> None:
        self._calls, self._pending = calls, pending

    def __await__(self) -> Generator[Any, None, Any]:
        return self._calls.future(self._pending).__await__()


UnboundToolCall.__name__ = UnboundToolCall.__qualname__ = UnawaitedToolCall.__name__
