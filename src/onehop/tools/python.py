"""Tools that are Python functions of the operator, from a module of theirs.

Runs in the worker only. A function's signature and docstring become its JSON Schema by pydantic, which
also checks the arguments and makes of them what the annotations say.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NotRequired, Required

import typing_extensions
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from onehop.errors import CallFailedError, ConfigurationError
from onehop.tools import docstrings
from onehop.tools.declare import MARK, Mark
from onehop.tools.model import SourceSpec, ToolSpec
from onehop.tools.source import Publish, Source

MAX_PROBLEMS = 5
"""So many wrong arguments are named in one error."""


class PythonSource(Source):
    """Options: `module`, the path of a file, or of a folder with an __init__.py."""

    threads = True

    def __init__(self, spec: SourceSpec, secrets: dict[str, str]) -> None:
        super().__init__(spec, secrets)
        self._functions: dict[str, Function] = {}

    async def start(self, publish: Publish) -> None:
        module = load(self.spec.options["module"], self.spec.name)
        functions = [Function(*found) for found in marked(module)]
        if not functions:
            functions = [Function(found, Mark()) for found in hinted(module)]
        if not functions:
            raise ConfigurationError(
                f"{self.spec.options['module']} has no tools: mark functions with @onehop.tool, or give all "
                "parameters of its public functions type hints"
            )
        self._functions = {one.spec.name: one for one in functions}
        publish([one.spec for one in functions])

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        return await self._function(tool)(arguments)

    def here(self, tool: str) -> Callable[[dict[str, Any]], Any] | None:
        function = self._functions.get(tool)
        return None if function is None or function.is_async else function

    def _function(self, tool: str) -> Function:
        function = self._functions.get(tool)
        if function is None:
            raise CallFailedError("not_found", f"the source {self.spec.name!r} has no tool {tool!r}")
        return function


class Function:
    """One function as a tool. Calling it with the arguments as a dict checks them first.

    Raises:
        ConfigurationError: its signature cannot be that of a tool.
    """

    def __init__(self, function: Callable[..., Any], mark: Mark) -> None:
        self.is_async = inspect.iscoroutinefunction(function)
        self._function = function
        name = mark.name or function.__name__
        try:
            hints = typing.get_type_hints(function, include_extras=True)
            parameters = list(inspect.signature(function).parameters.values())
            self._positional = [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY]
            described, said = docstrings.split(function.__doc__, [one.name for one in parameters])
            adapter = TypeAdapter(_arguments(name, parameters, hints))
            schema = adapter.json_schema()
            returns = _returns(hints)
        except (NameError, TypeError, PydanticUserError, ValueError) as error:
            raise ConfigurationError(f"the function {name} cannot be a tool: {error}") from None
        self._validate = adapter.validator.validate_python
        self.spec = ToolSpec(
            name=name,
            description=described,
            parameters=_tidied(schema, parameters, said),
            returns=returns,
            read_only=mark.read_only,
            idempotent=mark.idempotent,
            requires_approval=mark.requires_approval,
            timeout_s=mark.timeout_s,
        )

    def __call__(self, arguments: dict[str, Any]) -> Any:
        try:
            valid = self._validate(arguments)
        except ValidationError as error:
            raise _bad_arguments(error) from None
        if self._positional:
            first = [valid.pop(name) for name in self._positional if name in valid]
            return self._function(*first, **valid)
        return self._function(**valid)


def load(path: str, name: str) -> ModuleType:
    """The operator's module. Raises ConfigurationError with the place of what is wrong in it."""
    file = Path(path, "__init__.py") if os.path.isdir(path) else Path(path)
    places = [path] if os.path.isdir(path) else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # it is the operator's code, and may raise anything
        if before is not None:
            sys.modules[name] = before
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(path)]
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{error.filename}, line {error.lineno}"
        else:
            place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else path
        raise ConfigurationError(f"{place}: {type(error).__name__}: {error}") from error
    return module


def marked(module: ModuleType) -> list[tuple[Callable[..., Any], Mark]]:
    """What `onehop.tool` marked, in the module's order."""
    found: list[tuple[Callable[..., Any], Mark]] = []
    for value in vars(module).values():
        mark = getattr(value, MARK, None)
        if isinstance(mark, Mark) and not any(value is one for one, _ in found):
            found.append((value, mark))
    return found


def hinted(module: ModuleType) -> list[Callable[..., Any]]:
    """Its own public functions, as far as every parameter has a type hint."""
    found: list[Callable[..., Any]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or not inspect.isfunction(value) or value.__module__ != module.__name__:
            continue
        if all(one.annotation is not one.empty for one in inspect.signature(value).parameters.values()):
            found.append(value)
        else:
            sys.stderr.write(f"{name} is no tool: not all of its parameters have type hints\n")
    return found


def _arguments(name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]) -> Any:
    """A TypedDict of the parameters: pydantic's checks without a model's reserved names."""
    members: dict[str, Any] = {}
    extra: typing.Literal["allow", "forbid"] = "forbid"
    for one in parameters:
        if one.kind is one.VAR_POSITIONAL:
            raise TypeError(f"*{one.name} has no place in a JSON object; take a list instead")
        if one.kind is one.VAR_KEYWORD:
            extra = "allow"
            continue
        hint = hints.get(one.name, Any)
        members[one.name] = Required[hint] if one.default is one.empty else NotRequired[hint]
    make: Any = typing_extensions.TypedDict  # called, it wants literals from a type checker
    made = make(name, members)
    made.__pydantic_config__ = ConfigDict(extra=extra, arbitrary_types_allowed=False)
    return made


def _returns(hints: dict[str, Any]) -> dict[str, Any] | None:
    if hints.get("return", Any) is Any:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schema: dict[str, Any] = _without_titles(
                TypeAdapter(hints["return"]).json_schema(mode="serialization")
            )
            return schema
    except (PydanticUserError, TypeError, ValueError):
        return None  # it says nothing about the value then


def _tidied(
    schema: dict[str, Any], parameters: list[inspect.Parameter], said: dict[str, str]
) -> dict[str, Any]:
    schema = _without_titles(schema)
    schema.setdefault("properties", {})
    for one in parameters:
        member = schema["properties"].get(one.name)
        if member is None:
            continue
        if one.name in said and "description" not in member:
            member["description"] = said[one.name]
        if one.default is not one.empty:
            try:
                member["default"] = to_jsonable_python(one.default)
            except ValueError:
                pass  # it has no form in JSON; that it may be left out is said by `required`
    return schema


def _without_titles(schema: Any, *, names: bool = False) -> Any:
    """Without the titles that pydantic makes of names: they tell a model nothing, and cost tokens."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key != "title" or not isinstance(value, str)
    }


def _bad_arguments(error: ValidationError) -> CallFailedError:
    problems = []
    for one in error.errors(include_url=False, include_context=False, include_input=True)[:MAX_PROBLEMS]:
        where = ".".join(map(str, one["loc"])) or "the arguments"
        if one["type"] == "missing":
            problems.append(f"{where} is missing")
        elif one["type"] == "extra_forbidden":
            problems.append(f"there is no parameter {where}")
        else:
            what = one["msg"][0].lower() + one["msg"][1:]
            problems.append(f"{where}: {what}, got {one['input']!r:.80}")
    more = error.error_count() - len(problems)
    return CallFailedError("bad_arguments", "; ".join(problems) + (f"; and {more} more" if more > 0 else ""))
