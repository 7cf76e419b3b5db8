"""The lambda lane: expressions and small functions, JSON in and JSON out, and those stored under names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from onehop.client.core import Holder
from onehop.client.methods import awaiting, blocking
from onehop.client.records import record
from onehop.client.requests import JSON, document, get, path_of, post, send
from onehop.client.results import ErrorInfo, Usage
from onehop.client.steps import Op, Request
from onehop.errors import ExecutionFailedError


@dataclass(frozen=True)
class Evaluation:
    """What a lambda gave.

    Attributes:
        status: as of a Result.
        value: plain data, when the status is `ok`.
        engine: `monty` or `sandbox`: where it ran.
        routed: why not in Monty.
        error: what the code raised; `NotJsonError` when its value is no JSON.
        reason: one sentence on a status other than `ok` and `error`.
        stdout: what it printed.
        execution: id of the execution in the sandbox, if there was one.
    """

    status: str
    value: Any = None
    engine: str = ""
    routed: str = ""
    error: ErrorInfo | None = None
    reason: str = ""
    stdout: str = ""
    usage: Usage | None = None
    execution: str | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Evaluation:
        """From the API's answer."""
        parts = {
            name: None if answer.get(name) is None else record(kind, answer[name])
            for name, kind in (("error", ErrorInfo), ("usage", Usage))
        }
        return record(cls, {**answer, **parts})

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def raise_for_error(self) -> Evaluation:
        """This one if its status is `ok`, so that calls can be chained.

        Raises:
            ExecutionFailedError: for every other status.
        """
        if self.ok:
            return self
        if self.error is not None:
            raise ExecutionFailedError(f"{self.error.name}: {self.error.value}", self)
        raise ExecutionFailedError(f"{self.status.replace('_', ' ')}: {self.reason}", self)


@dataclass(frozen=True)
class FunctionInfo:
    """A stored function; `code` is empty in a list. `routed` says why it does not fit Monty."""

    name: str
    engine: str
    routed: str
    created_at: datetime
    updated_at: datetime
    code: str = ""


def evaluate(
    self: Holder,
    code: str,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    engine: str | None = None,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
) -> Op[Evaluation]:
    """Evaluates an expression or calls a small function: in Monty where it fits that, else in a fresh sandbox.

    Args:
        code: Python; what its last statement gives is called with the arguments, if it can be called.
        args: JSON values.
        kwargs: keyword arguments, JSON values.
        engine: `monty` or `sandbox` to insist on one.
        timeout_s, memory_mb: wall seconds until it is stopped, MiB of its sandbox.

    Raises:
        InvalidRequestError: an argument is out of its bounds, or the code does not fit the engine insisted on.
        TooManyError: too much runs at once; `retry_after_s` says when to try again.
        UnreachableError: the connection broke; the code may have run.
    """
    body = {"code": code, **_arguments(args, kwargs, engine, timeout_s, memory_mb)}
    return Evaluation.of(document((yield from send(post("/api/lambda", body)))))


def _arguments(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None,
    engine: str | None,
    timeout_s: float | None,
    memory_mb: int | None,
) -> dict[str, Any]:
    return {
        "args": list(args) or None,
        "kwargs": dict(kwargs) if kwargs else None,
        "engine": engine,
        "timeout_s": timeout_s,
        "memory_mb": memory_mb,
    }


def put_function(self: Holder, name: str, code: str) -> Op[FunctionInfo]:
    """Stores a function under a name; one of that name is replaced. Its code is checked, not run.

    Args:
        name: 1 to 64 letters, digits and `_`, no digit first.
        code: as for `evaluate`.

    Raises:
        InvalidRequestError: the name cannot be one, or the code is no Python.
    """
    body = json.dumps({"code": code}).encode()
    reply = yield from send(Request("PUT", path_of("functions", name), headers=JSON, body=body))
    return record(FunctionInfo, document(reply))


def call_function(
    self: Holder,
    name: str,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    engine: str | None = None,
    timeout_s: float | None = None,
    memory_mb: int | None = None,
) -> Op[Evaluation]:
    """Calls a stored function; the other arguments are those of `evaluate`.

    Raises:
        FunctionNotFoundError: there is none of that name.
    """
    body = _arguments(args, kwargs, engine, timeout_s, memory_mb)
    return Evaluation.of(document((yield from send(post(path_of("functions", name), body)))))


def get_function(self: Holder, name: str) -> Op[FunctionInfo]:
    """A stored function with its code. Raises FunctionNotFoundError."""
    return record(FunctionInfo, (yield from get(path_of("functions", name))))


def list_functions(self: Holder) -> Op[list[FunctionInfo]]:
    """The caller's functions by name, without their code."""
    found = yield from get("/api/functions")
    return [record(FunctionInfo, one) for one in found["functions"]]


def delete_function(self: Holder, name: str) -> Op[None]:
    """Forgets a stored function. Raises FunctionNotFoundError."""
    yield from send(Request("DELETE", path_of("functions", name)))


class Functions(Holder):
    """Functions stored under names."""

    def __init__(self, client: Holder) -> None:
        self._carrier = client._carrier

    put = blocking(put_function)
    call = blocking(call_function)
    get = blocking(get_function)
    list = blocking(list_functions)
    delete = blocking(delete_function)


class AsyncFunctions(Holder):
    """Functions stored under names."""

    def __init__(self, client: Holder) -> None:
        self._carrier = client._carrier

    put = awaiting(put_function)
    call = awaiting(call_function)
    get = awaiting(get_function)
    list = awaiting(list_functions)
    delete = awaiting(delete_function)
