"""The parts of tools inside the code that need no kernel: plain data, schemas, modes, search."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import inspect
import pathlib
import pickle
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onehop.kernel import catalogue, modes, schemas
from onehop.kernel.plain import NotPlainError, plain
from onehop.kernel.tool_errors import CLASSES, ToolArgumentError
from onehop.protocol import CALL_ERRORS, ToolEntry, decode_call, encode


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, {"a": None}), [1, {"a": None}]),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(minutes=1), 60.0),
        (decimal.Decimal("12.5"), 12.5),
        (decimal.Decimal("12"), 12),
        (Point(1, 2.0), {"x": 1, "y": 2.0}),
        (Colour.RED, "red"),
        ({3, 1}, [1, 3]),
        (range(2), [0, 1]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
    ],
)
def test_what_has_a_plain_form_gets_it(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "says", "place"),
    [
        ({"a": [1, float("nan")]}, "nan is no JSON number", "['a'][1]"),
        ([float("inf")], "inf is no JSON number", "[0]"),
        ({"a": {1: 2}}, "keys are text", "['a']"),
        (b"x", "base64", ""),
        (object(), "an object is no JSON data", ""),
        (2**64, "64 bits", ""),
        (decimal.Decimal("NaN"), "nan", ""),
        (len, "is no JSON data", ""),
    ],
)
def test_what_has_none_is_refused_with_its_place(value: Any, says: str, place: str) -> None:
    with pytest.raises(NotPlainError, match=says) as caught:
        plain(value)
    assert caught.value.place == place


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(value=json_values)
def test_json_data_passes_unchanged(value: Any) -> None:
    assert plain(value) == value
    raw = encode({"name": "x", "arguments": {"value": plain(value)}})
    assert decode_call(raw).arguments == {"value": value}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(schema=st.dictionaries(st.sampled_from(["type", "enum", "const", "anyOf", "oneOf", "properties", "required", "items", "additionalProperties", "default", "description"]), json_values))  # fmt: skip
def test_no_schema_is_too_odd(schema: dict[str, Any]) -> None:
    """Schemas come from other people's servers."""
    entry = ToolEntry("x", "x", "", schema, returns=schema)
    parameters = schemas.Parameters(schema)
    assert schemas.signature_text(parameters, schema)
    assert schemas.documentation(entry, parameters)
    nested = schemas.Parameters({"properties": {"a": schema, "class": schema, "1-b": schema}})
    assert schemas.signature_text(nested, None)
    found = catalogue.Catalogue([entry])
    assert found.describe("x")
    assert found.search("x", 3)


def test_a_signature_has_the_required_parameters_first() -> None:
    parameters = schemas.Parameters(
        {
            "properties": {
                "days": {"type": "integer", "default": 3},
                "unit": {"enum": ["C", "F"], "default": "C"},
                "city": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "from": {"type": ["string", "null"]},
            },
            "required": ["city"],
        }
    )
    signature = schemas.signature(parameters, {"type": "object"})
    assert isinstance(signature, inspect.Signature)
    assert list(signature.parameters) == ["city", "days", "unit", "tags", "from_"]
    assert signature.parameters["unit"].annotation == Literal["C", "F"]
    assert signature.parameters["from_"].annotation == str | None
    assert schemas.signature_text(parameters, {"type": "object"}) == (
        "(city: str, days: int = 3, unit: Literal['C', 'F'] = 'C', tags: list[str] = None, "
        "from_: str | None = None) -> dict"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("tools.f()", False),
        ("x = await tools.f()", True),
        ("import asyncio", True),
        ("from asyncio import gather", True),
        ("asyncio.run(main())", True),
        ("async def f(): pass", False),
        ("async def f():\n    async with a: pass", True),
        ("async def f():\n    return [x async for x in a]", True),
        ("'''say await and asyncio'''\ntools.f()", False),
        ("# await\nx = 1", False),
        ("import asyncio_mqtt", False),
        ("def (", False),
    ],
)
def test_code_is_asynchronous_when_it_awaits_or_names_asyncio(source: str, expected: bool) -> None:
    assert modes.is_asynchronous(source) is expected


def test_search_puts_the_best_first() -> None:
    entries = [
        ToolEntry("mail.send", "mail.send", "Sends a message to people."),
        ToolEntry("weather.forecast", "weather.forecast", "The weather of the coming days in a city."),
        ToolEntry("city.population", "city.population", "How many people live there."),
        ToolEntry("db.runQuery", "db.runQuery", "Runs SQL."),
    ]
    found = catalogue.Catalogue(entries)
    assert [one["name"] for one in found.search("weather in a city", 2)] == [
        "weather.forecast",
        "city.population",
    ]
    assert {one["name"] for one in found.search("people", 5)} == {"city.population", "mail.send"}
    assert [one["name"] for one in found.search("query", 5)] == ["db.runQuery"]
    assert found.search("zebra", 5) == []
    assert len(found.search("", 3)) == 3


def test_every_kind_of_error_has_its_class_and_can_be_pickled() -> None:
    assert set(CLASSES) == set(CALL_ERRORS)
    error = ToolArgumentError("weather.forecast", "it has no parameter 'town'", {"city": {"type": "string"}})
    assert (error.kind, error.tool) == ("bad_arguments", "weather.forecast")
    assert str(error) == "tools.weather.forecast: it has no parameter 'town' (its parameters: city)"
    with _importable_as_tools():
        again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.parameters) == (str(error), error.parameters)


@contextmanager
def _importable_as_tools() -> Iterator[None]:
    import sys

    from onehop.kernel import tool_errors

    sys.modules["tools"] = tool_errors
    try:
        yield
    finally:
        del sys.modules["tools"]
