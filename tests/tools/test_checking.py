"""Arguments against schemas that may be hostile: typed problems, no way out, bounded time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from onehop.errors import InvalidRequestError
from onehop.tools.checking import Checker

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 14}},
    "required": ["city"],
    "additionalProperties": False,
}


def nested(depth: int, key: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {key: found}
    return found


def doubling(depth: int) -> dict[str, Any]:
    """2 ** depth ways to fail."""
    definitions: dict[str, Any] = {"d0": {"required": ["nothing"]}}
    for n in range(1, depth + 1):
        definitions[f"d{n}"] = {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}, {"$ref": f"#/$defs/d{n - 1}"}]}
    return {"$defs": definitions, "$ref": f"#/$defs/d{depth}"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["city", "required"]),
        ({"city": 1}, ["city: 1", "string"]),
        ({"city": "Oslo", "days": 15}, ["days: 15", "14"]),
        ({"city": "Oslo", "dais": 1}, ["dais", "unexpected"]),
        ({"city": 1, "days": "x"}, ["city", "; days"]),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], words: list[str]) -> None:
    problems = Checker(CITY, "parameters").problems(arguments)
    assert all(word in problems for word in words), problems


def test_what_is_right_has_no_problems() -> None:
    assert Checker(CITY, "parameters").problems({"city": "Oslo", "days": 3}) == ""
    assert Checker({}, "parameters").problems({"anything": [1, None, {"a": 2.5}]}) == ""


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "string"},
        {"type": ["object", "null"]},
        {"properties": 5},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "http://127.0.0.1:9/schema"},
        {"properties": {"x": {"pattern": "("}}},
        {"properties": {"x": {"pattern": "(((a{100}){100}){100}){100}"}}},
        nested(5000, "not"),
        {"description": "x" * 70_000},
    ],
    ids=map(str, range(11)),
)
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=r"^tools\[3\].parameters: ") as caught:
        Checker(schema, "tools[3].parameters")
    assert caught.value.extra == {"field": "tools[3].parameters"}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (doubling(40), {}),
        ({"$ref": "#"}, {}),
        ({"allOf": [{"$ref": "#"}]}, {}),
        ({"$dynamicAnchor": "n", "$dynamicRef": "#n"}, {}),
        ({"properties": {"x": {"pattern": "(a+)+$"}}}, {"x": "a" * 100_000 + "b"}),
        ({"properties": {"x": {"items": {"enum": list(range(4000))}}}}, {"x": [-1] * 1_000_000}),
        (
            {"properties": {"x": {"items": {"anyOf": [{"const": n} for n in range(800)]}}}},
            {"x": [-1] * 100_000},
        ),
    ],
    ids=["doubling", "itself", "allOf itself", "dynamic", "pattern", "enum", "anyOf"],
)
def test_hostile_schemas_take_no_time(schema: dict[str, Any], arguments: dict[str, Any]) -> None:
    before_s = time.process_time()
    Checker(schema, "parameters").problems(arguments)
    assert time.process_time() - before_s < 1.0


def test_the_control_takes_its_time() -> None:
    """The check itself would be slow: it is the bound that holds."""
    checker = Checker(doubling(12), "parameters")
    assert checker._max_bytes == 0
    before_s = time.process_time()
    checker._validator.is_valid({})
    short_s = time.process_time() - before_s
    deep = Checker(doubling(22), "parameters")
    before_s = time.process_time()
    deep._validator.is_valid({})
    assert time.process_time() - before_s > 10 * short_s
