"""From functions to tools: signatures, docstrings, arguments, and modules that cannot be used."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

import onehop
from onehop.errors import CallFailedError, ConfigurationError
from onehop.tools import docstrings
from onehop.tools.declare import MARK, Mark
from onehop.tools.python import Function, hinted, load, marked


class Unit(enum.Enum):
    C = "c"
    F = "f"


@dataclass
class Place:
    lat: float
    lon: float = 0.0


class Query(BaseModel):
    text: str
    limit: int = 10


def forecast(city: str, days: Annotated[int, Field(ge=1, le=14)] = 3, unit: Unit = Unit.C) -> list[float]:
    """Highest temperatures.

    From a table.

    Args:
        city: its name, as people
            write it
        days: how many
    Returns:
        Degrees.
    """
    return [float(days)]


def everything(
    when: date,
    place: Place,
    query: Query,
    mode: Literal["a", "b"] = "a",
    tags: list[str] | None = None,
    pairs: dict[str, int] = {},  # noqa: B006 - a default that has a form in JSON
    schema: int = 0,
    model_name: str = "",
) -> dict[str, Any]:
    return {"when": when, "place": place, "query": query, "mode": mode, "tags": tags, "schema": schema}


def only_positions(a: int, b: int = 2, /, *, c: int = 3, **others: int) -> list[int]:
    return [a, b, c, *others.values()]


def test_the_schema_of_a_signature() -> None:
    spec = Function(forecast, Mark(read_only=True, timeout_s=5)).spec
    assert spec.name == "forecast"
    assert spec.description == "Highest temperatures.\n\nFrom a table.\n\nReturns:\n    Degrees."
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "its name, as people write it"},
            "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 3, "description": "how many"},
            "unit": {"$ref": "#/$defs/Unit", "default": "c"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"Unit": {"type": "string", "enum": ["c", "f"]}},
    }
    assert spec.returns == {"type": "array", "items": {"type": "number"}}
    assert (spec.read_only, spec.idempotent, spec.timeout_s) == (True, False, 5)


def test_arguments_become_what_the_hints_say() -> None:
    function = Function(everything, Mark())
    found = function(
        {"when": "2026-01-02", "place": {"lat": 1}, "query": {"text": "x"}, "tags": ["a"], "schema": 5}
    )
    assert found["when"] == date(2026, 1, 2)
    assert found["place"] == Place(1.0)
    assert found["query"] == Query(text="x")
    assert (found["mode"], found["tags"], found["schema"]) == ("a", ["a"], 5)


def test_positions_and_others() -> None:
    function = Function(only_positions, Mark())
    assert function({"a": 1}) == [1, 2, 3]
    assert function({"a": 1, "b": 5, "c": 6, "d": 7}) == [1, 5, 6, 7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["city is missing"]),
        ({"city": None}, ["city: input should be a valid string, got None"]),
        ({"city": "Oslo", "days": 15}, ["days: input should be less than or equal to 14, got 15"]),
        ({"city": "Oslo", "unit": "k"}, ["unit: input should be 'c' or 'f', got 'k'"]),
        ({"cyti": "Oslo"}, ["city is missing", "there is no parameter cyti"]),
        ({"city": "x" * 5000, "days": "y" * 5000}, ["days: "]),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(CallFailedError) as caught:
        Function(forecast, Mark())(arguments)
    assert caught.value.kind == "bad_arguments"
    assert all(word in caught.value.message for word in words), caught.value.message
    assert len(caught.value.message) < 1000


def test_a_tools_own_validation_error_is_not_the_callers() -> None:
    def inside() -> None:
        Query.model_validate({})

    with pytest.raises(ValueError, match="text"):
        Function(inside, Mark())({})


@pytest.mark.parametrize(
    "function",
    [lambda *values: values, eval("lambda x: x", {}), only_positions],
    ids=["*args", "no hint is anything", "control"],
)
def test_what_cannot_be_a_tool(function: Callable[..., Any]) -> None:
    if function.__code__.co_flags & 4:
        with pytest.raises(ConfigurationError, match="take a list instead"):
            Function(function, Mark(name="f"))
    else:
        Function(function, Mark(name="f"))


def test_a_hint_that_pydantic_does_not_know() -> None:
    class Unknown:
        pass

    def worse(x: Any) -> None: ...

    worse.__annotations__["x"] = Unknown
    with pytest.raises(ConfigurationError, match="the function worse cannot be a tool"):
        Function(worse, Mark())


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    @onehop.tool
    def plain_one(x: int) -> int:
        return x

    @onehop.tool(name="other.name", idempotent=True)
    async def named() -> None: ...

    assert plain_one(3) == 3
    assert getattr(plain_one, MARK) == Mark()
    assert getattr(named, MARK) == Mark(name="other.name", idempotent=True)
    with pytest.raises(TypeError):
        onehop.tool(nonsense=True)  # type: ignore[call-overload]


def test_which_functions_of_a_module(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import onehop\nfrom os.path import join\n"
        "def public(x: int) -> int: return x\n"
        "def _private(x: int) -> int: return x\n"
        "def unhinted(x): return x\n"
        "class Thing: pass\n"
    )
    module = load(str(file), "mine")
    assert [one.__name__ for one in hinted(module)] == ["public"]
    assert marked(module) == []
    file.write_text("import onehop\n@onehop.tool\ndef chosen(x): return x\ndef public() -> int: return 1\n")
    assert [one.__name__ for one, _ in marked(load(str(file), "mine"))] == ["chosen"]


def test_a_package_is_a_module_too(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .inner import value\ndef f() -> int:\n    return value\n")
    (folder / "inner.py").write_text("value = 7\n")
    (function,) = hinted(load(str(folder), "pack"))
    assert function() == 7


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1\nimport nowhere_at_all\n", "line 2: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    ],
)
def test_modules_that_cannot_be_loaded(tmp_path: Path, code: str, words: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code)
    with pytest.raises(ConfigurationError) as caught:
        load(str(file), "mine")
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "Does it.\n\nArgs:\n    a: the first\n        of all\n    b (int, optional): the second\n",
        "Does it.\n\nParameters\n----------\na : int\n    the first\n    of all\nb\n    the second\n",
        "Does it.\n\n:param int a: the first of all\n:param b: the second\n",
    ],
    ids=["Google", "NumPy", "Sphinx"],
)
def test_docstrings(text: str) -> None:
    description, said = docstrings.split(text, ["a", "b"])
    assert description == "Does it."
    assert said == {"a": "the first of all", "b": "the second"}


def test_a_docstring_without_parameters_stays_as_it_is() -> None:
    text = "Does it: well.\n\nReturns:\n    A number: 5\n"
    assert docstrings.split(text, ["a"]) == (text.strip(), {})
    assert docstrings.split(None, ["a"]) == ("", {})
