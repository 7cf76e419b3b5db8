"""Tools of the client: Python functions here that code in a sandbox calls, while the call of `run` lasts.

A function's name, signature and docstring are what the code sees. Values that come from the sandbox are
data from hostile code: a function must take its arguments for that.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onehop.client.requests import document, get, new_key, path_of, post, send
from onehop.client.results import Result, ToolCall
from onehop.client.steps import CallAll, Op, Request
from onehop.errors import InvalidRequestError

Tool = str | Mapping[str, Any] | Callable[..., Any]
Approve = Callable[[ToolCall], bool]

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    bytes: {"type": "string"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}


class OwnTools:
    """The tools of one request, and the answers to their calls.

    Args:
        given: functions, names of tools that the server has, and tools as the API writes them.
        approve: says for a call of a tool that needs approval whether it may be made.

    Attributes:
        field: for the request; None when there are none.
    """

    def __init__(self, given: Sequence[Tool] | None, approve: Approve | None) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._approve = approve
        self.field: list[Any] | None = None if given is None else [self._described(one) for one in given]

    @property
    def any(self) -> bool:
        """Calls can be answered here."""
        return bool(self._functions) or self._approve is not None

    def _described(self, tool: Tool) -> Any:
        if isinstance(tool, str):
            return tool
        if isinstance(tool, Mapping):
            return dict(tool)
        if not callable(tool):
            raise InvalidRequestError(
                f"tools: {tool!r} is no function, no name and no description", field="tools"
            )
        described = describe(tool)
        self._functions[described["name"]] = tool
        return described

    def answer(self, result: Result) -> Op[Result]:
        """Runs what can be run here, until the execution ends or waits for something else."""
        while result.status == "tool_call_required" and (calls := self._ours(result.tool_calls)):
            given = yield from self.outcomes(calls)
            result = yield from submit(result.id, given)
        return result

    def _ours(self, calls: Sequence[ToolCall]) -> list[ToolCall]:
        return [
            call
            for call in calls
            if (call.needs == "approval" and self._approve is not None)
            or (call.needs == "result" and call.name in self._functions)
        ]

    def outcomes(self, calls: Sequence[ToolCall]) -> Op[list[dict[str, Any]]]:
        """Results of those of the pending calls that can be answered here; parallel ones run together."""
        ours = self._ours(calls)
        if not ours:
            return []
        done: list[object] = yield CallAll([self._bound(call) for call in ours])
        return [_outcome(call, value) for call, value in zip(ours, done, strict=True)]

    def _bound(self, call: ToolCall) -> Callable[[], Any]:
        if call.needs == "approval":
            approve = self._approve
            assert approve is not None
            return lambda: bool(approve(call))
        function = self._functions[call.name]
        return lambda: function(**call.arguments)


def _outcome(call: ToolCall, value: object) -> dict[str, Any]:
    if isinstance(value, Exception):
        return {"id": call.id, "error": f"{type(value).__name__}: {value}"} if call.needs == "result" else {
            "id": call.id, "approve": False, "reason": f"{type(value).__name__}: {value}",
        }  # fmt: skip
    if call.needs == "approval":
        return {"id": call.id, "approve": bool(value)}
    try:
        return {"id": call.id, "result": json.loads(json.dumps(value, allow_nan=False, default=_plain))}
    except (TypeError, ValueError, RecursionError) as error:
        return {"id": call.id, "error": f"the result of {call.name} is no JSON: {error}"}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def submit(execution: str, results: Sequence[Mapping[str, Any]]) -> Op[Result]:
    """Answers pending calls; the result when the execution has ended, or waits again."""
    return Result.of(document((yield from send(results_request(execution, results)))))


def results_request(execution: str, results: Sequence[Mapping[str, Any]]) -> Request:
    """The POST that answers pending calls, and may be repeated."""
    path = path_of("executions", execution, "tool_results")
    return post(path, {"results": [dict(one) for one in results]}, key=new_key())


def once(execution: str) -> Op[Result]:
    """The result as it is now."""
    return Result.of((yield from get(path_of("executions", execution))))


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """The tool that a function is, as the API writes it.

    Raises:
        InvalidRequestError: it cannot be called with named arguments only.
    """
    name = getattr(function, "__name__", "")
    properties: dict[str, Any] = {}
    required = []
    try:
        signature, hints = inspect.signature(function), typing.get_type_hints(function)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidRequestError(
            f"tools: the signature of {name or function!r} cannot be read: {error}"
        ) from None
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise InvalidRequestError(
                f"tools: {name} has the argument {parameter.name!r}, which has no name to be called by"
            )
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        schema = dict(schema_of(hints.get(parameter.name, Any)))
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif parameter.default is None or isinstance(parameter.default, str | int | float | bool):
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": inspect.getdoc(function) or "", "parameters": parameters}


def schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema of a type hint; what it has no word for may be anything."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(one) for one in arguments]}
    if origin is typing.Annotated:
        return schema_of(arguments[0])
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if inspect.isclass(origin) and issubclass(origin, typing.cast(Any, typing.Collection)):
        return {"type": "array", "items": schema_of(arguments[0])}
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint)
        return {"type": "object", "properties": {name: schema_of(one) for name, one in fields.items()}}
    return {}
