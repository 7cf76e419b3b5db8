"""Turns functions of the SDK's logic into methods of its two faces, with types, signature and docstring.

`blocking` and `awaiting` are for an Op, `iterating` and `aiterating` for a Flow: so every call has one
signature, one description and one body.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from onehop.client.steps import Flow, Op

P = ParamSpec("P")
A = TypeVar("A")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Method(Protocol[S_contra, P, R_co]):
    """A method for type checkers; at run time it is a plain function."""

    @overload
    def __get__(self, instance: None, owner: Any) -> Callable[Concatenate[S_contra, P], R_co]: ...
    @overload
    def __get__(self, instance: S_contra, owner: Any = None) -> Callable[P, R_co]: ...


def blocking(op: Callable[Concatenate[S, P], Op[R]]) -> Method[S, P, R]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._carrier.carry(op(self, *args, **kwargs))

    return _dressed(method, op, "")  # type: ignore[no-any-return]


def awaiting(op: Callable[Concatenate[S, P], Op[R]]) -> Method[S, P, Coroutine[Any, Any, R]]:
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._carrier.carry(op(self, *args, **kwargs))

    return _dressed(method, op, "")  # type: ignore[no-any-return]


def blocking_as(op: Callable[Concatenate[S, P], Op[A]], make: Callable[[Any, A], R]) -> Method[S, P, R]:
    """Like `blocking`, for an op whose result becomes an object of this face."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return make(self, self._carrier.carry(op(self, *args, **kwargs)))

    return _dressed(method, op, make.__name__)  # type: ignore[no-any-return]


def awaiting_as(
    op: Callable[Concatenate[S, P], Op[A]], make: Callable[[Any, A], R]
) -> Method[S, P, Coroutine[Any, Any, R]]:
    """Like `awaiting`, for an op whose result becomes an object of this face."""

    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return make(self, await self._carrier.carry(op(self, *args, **kwargs)))

    return _dressed(method, op, make.__name__)  # type: ignore[no-any-return]


def iterating(flow: Callable[Concatenate[S, P], Flow[E]]) -> Method[S, P, Iterator[E]]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._carrier.iterate(flow(self, *args, **kwargs))

    return _dressed(method, flow, "Iterator")  # type: ignore[no-any-return]


def aiterating(flow: Callable[Concatenate[S, P], Flow[E]]) -> Method[S, P, AsyncIterator[E]]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._carrier.iterate(flow(self, *args, **kwargs))

    return _dressed(method, flow, "AsyncIterator")  # type: ignore[no-any-return]


def _dressed(method: Callable[..., Any], op: Callable[..., Any], returns: str) -> Any:
    functools.update_wrapper(method, op)
    inside = str(op.__annotations__.get("return", "")).partition("[")[2].rpartition("]")[0]
    shown = f"{returns}[{inside}]" if returns.endswith("Iterator") else returns or inside
    signature = inspect.signature(op).replace(return_annotation=shown)
    cast(Any, method).__signature__ = signature  # Op and Flow are nobody's business outside
    return method
