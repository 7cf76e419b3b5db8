"""`onehop.run`: one piece of code, and nothing to open or close."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from onehop.client import clients
from onehop.client.core import Holder
from onehop.client.steps import Op

P = ParamSpec("P")
R = TypeVar("R")


def _once(op: Callable[Concatenate[Holder, P], Op[R]], method: Any) -> Callable[P, R]:
    """`op` as a function, on a client of its own."""

    @functools.wraps(op)
    def function(*args: P.args, **kwargs: P.kwargs) -> Any:
        with clients.Client() as client:
            return client._carrier.carry(op(client, *args, **kwargs))

    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[1:]
    cast(Any, function).__signature__ = signature.replace(parameters=parameters)
    return function


run = _once(clients.run, clients.Client.run)
