"""Stubs for a prompt: Python that parses, whatever others have written into names, texts and schemas."""

from __future__ import annotations

import ast
import random
from typing import Any

import pytest

from onehop.protocol import ToolEntry
from onehop.tools import naming
from onehop.tools.stubs import stubs


def entry(path: str, **more: Any) -> ToolEntry:
    return ToolEntry(name=path, path=path, **more)


FORECAST = entry(
    "weather.forecast",
    description="Highest temperatures.\n\nIn °C.",
    parameters={
        "type": "object",
        "properties": {
            "days": {"type": "integer", "default": 3, "description": "how\nmany"},
            "city": {"type": "string"},
            "unit": {"$ref": "#/$defs/Unit", "default": "c"},
            "where": {
                "anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}],
                "default": None,
            },
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["c", "f"]}},
    },
    returns={"type": "object", "additionalProperties": {"type": "number"}},
    read_only=True,
)


def test_what_a_model_reads() -> None:
    assert stubs([FORECAST, entry("weather.alarm.set", waits=True)]) == (
        '"""Tools that code may call. In a cell with `await` a call is awaited, in any other it gives its value."""\n'
        "\nfrom typing import Any, Literal\n\n\n"
        "class weather:\n\n"
        "    class alarm:\n\n"
        "        def set() -> Any:\n"
        '            """Waits for the client."""\n'
        "            ...\n\n"
        "    def forecast(\n"
        "        city: str,\n"
        "        days: int = 3,\n"
        "        unit: Literal['c', 'f'] = 'c',\n"
        "        where: list[float] | None = None,\n"
        "    ) -> dict[str, float]:\n"
        '        """Highest temperatures.\n\n'
        "        In °C.\n\n"
        "        Changes nothing.\n\n"
        "        Args:\n"
        "            days: how many\n"
        '        """\n'
        "        ...\n"
    )


def test_the_order_of_sources_does_not_matter() -> None:
    entries = [FORECAST, *(entry(f"s{n}.t{m}") for n in range(5) for m in range(5))]
    expected = stubs(entries)
    random.Random(1).shuffle(entries)
    assert stubs(entries) == expected


HOSTILE = [
    {"description": 'x"""\nimport os\nos.system("x")\n"""'},
    {"description": "ends with a backslash\\"},
    {"description": 'ends with a quote"'},
    {"description": "\x00\x1b[31m\r\u2028\u202e"},
    {"parameters": {"properties": {'a"""; import os': {"type": "string"}, "class": {}, "x y": {}, "": {}}}},
    {
        "parameters": {
            "properties": {"a": {"default": "'\"\n"}, "b": {"enum": ["\n", "'"]}, "c": {"const": "\\"}}
        }
    },
    {"parameters": {"properties": {"a": {"type": ["string", {"evil": 1}]}, "b": {"items": 5}, "c": 7}}},
    {"parameters": {"properties": [], "required": "x"}},
    {"parameters": {"properties": {"a": {"$ref": "#/properties/a"}}}},
    {"parameters": {"properties": {"a": {"$ref": "http://x/"}, "b": {"enum": list(range(10_000))}}}},
    {"parameters": {"properties": {"a": {"description": 'x"""\ny'}}}},
    {"returns": {"anyOf": []}},
    {"returns": {"type": "x'); import os; ('"}},
]


@pytest.mark.parametrize("more", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_texts_of_others_are_texts(more: dict[str, Any]) -> None:
    tree = ast.parse(stubs([entry("a.b", **more), entry("a.c")]))
    (literal, imported, source) = tree.body
    assert isinstance(literal, ast.Expr) and isinstance(imported, ast.ImportFrom)
    assert isinstance(source, ast.ClassDef) and source.name == "a"
    assert [type(one) for one in source.body] == [ast.FunctionDef, ast.FunctionDef]
    for function in source.body:
        assert isinstance(function, ast.FunctionDef)
        assert all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in function.body)


def test_a_name_that_is_a_group_as_well() -> None:
    ast.parse(stubs([entry("a.b"), entry("a.b.c"), entry("a.b.d")]))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("get-weather", "s.get_weather"),
        ("class", "s.class_"),
        ("a.b", "s.a.b"),
        ("1st", "s._1st"),
        ("", "s._"),
        ("ß", "s.ß"),
    ],
)
def test_paths_are_python(name: str, path: str) -> None:
    assert naming.path_of("s", name) == path
    assert naming.path_of("s", name, {path}) == f"{path}_2"


def test_patterns() -> None:
    assert naming.allowed("weather.forecast", ("weather.*",))
    assert naming.allowed("weather.forecast", ("x", "weather.forecast"))
    assert naming.allowed("weather.forecast", ("*",))
    assert not naming.allowed("weatherx.forecast", ("weather.*",))
    assert not naming.allowed("weather.forecast", ("weather",))
    assert not naming.allowed("weather.forecast", ())
