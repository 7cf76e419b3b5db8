"""JSON Schemas that others wrote, put to use: whether they can be used, and whether data is valid for one.

Runs in workers only: a schema may hold an expression that takes for ever. Nothing here fetches what a
schema refers to.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from onehop.errors import CallFailedError

MAX_PROBLEMS = 5
"""So many wrong places are named in one error."""
PROBLEM_CHARACTERS = 300
MAX_DEPTH = 100


class Schema:
    """A JSON Schema (draft 2020-12, unless its `$schema` says otherwise).

    Raises:
        ValueError: it is none that can be used; the text says why.
    """

    def __init__(self, schema: Any) -> None:
        if deeper_than(schema, MAX_DEPTH):
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        try:
            kind = validator_for(schema, default=Draft202012Validator)
            kind.check_schema(schema)
        except SchemaError as error:
            raise ValueError(error.message[:PROBLEM_CHARACTERS]) from None
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}"[:PROBLEM_CHARACTERS]) from None
        self._validator: Validator = kind(schema, registry=Registry())

    def problems(self, value: Any) -> list[str]:
        """What is wrong with `value`, at most MAX_PROBLEMS; empty: it is valid. Raises ValueError."""
        try:
            return [_told(error) for error in islice(self._validator.iter_errors(value), MAX_PROBLEMS)]
        except Unresolvable as error:
            raise ValueError(f"it refers to {error}"[:PROBLEM_CHARACTERS]) from None
        except RecursionError:
            return ["it is nested too deep"]


class Arguments:
    """Checks arguments of a tool. With a schema that is unusable everything passes: its owner checks again."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.unusable = ""
        self._schema: Schema | None = None
        try:
            self._schema = Schema(schema)
        except ValueError as error:
            self.unusable = str(error)

    def check(self, arguments: dict[str, Any]) -> None:
        """Raises CallFailedError, of kind bad_arguments."""
        if self._schema is None:
            return
        try:
            problems = self._schema.problems(arguments)
        except ValueError as error:
            self.unusable, self._schema = str(error), None
            return
        if problems:
            raise CallFailedError("bad_arguments", "; ".join(problems))


def deeper_than(value: Any, depth: int) -> bool:
    """Whether lists and maps in `value` are nested more than `depth` deep; cycles are."""
    level = [value]
    for _ in range(depth + 1):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def size_bytes(value: Any) -> int:
    """Bytes of `value` as JSON. Raises TypeError, ValueError or RecursionError for what is none."""
    return len(msgspec.json.encode(value))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [one for one in value.values() if isinstance(one, dict | list)]
    if isinstance(value, list):
        return [one for one in value if isinstance(one, dict | list)]
    return []


def _told(error: Any) -> str:
    place = ".".join(map(str, error.absolute_path))
    text = error.message if len(error.message) <= PROBLEM_CHARACTERS else _shortened(error)
    return f"{place}: {text}" if place else text


def _shortened(error: Any) -> str:
    """jsonschema puts the whole value into its message."""
    return f"…{error.message[-PROBLEM_CHARACTERS:]} ({error.validator})"
