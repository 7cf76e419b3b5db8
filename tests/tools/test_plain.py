"""What tools return, made plain: data of many kinds, files, and what has no plain form."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest

from onehop.errors import CallFailedError
from onehop.tools.plain import FOLDER, Blob, plain


@dataclass
class Point:
    x: int
    when: datetime.date


class Model(pydantic.BaseModel):
    name: str
    points: list[int]


class Struct(msgspec.Struct):
    a: int


class Colour(enum.Enum):
    RED = "red"


class Loud(str):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (2**63, 2**63),
        ([1.5, "a", None, True], [1.5, "a", None, True]),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        ({"a": {"b": ()}}, {"a": {"b": []}}),
        ({1: "a", Colour.RED: 2}, {"1": "a", "red": 2}),
        (Point(1, datetime.date(2026, 1, 2)), {"x": 1, "when": "2026-01-02"}),
        (Model(name="n", points=[1]), {"name": "n", "points": [1]}),
        ([Struct(3)], [{"a": 3}]),
        (datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC), "2026-01-02T03:00:00+00:00"),
        (datetime.timedelta(seconds=90), 90.0),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({3, 1, 2}, [1, 2, 3]),
        (Colour.RED, "red"),
        (Loud("x"), "x"),
        ((n for n in range(3)), [0, 1, 2]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_plain_data(value: Any, expected: Any) -> None:
    found, files = plain(value)
    assert (found, files) == (expected, {})
    assert type(found) is type(expected)
    msgspec.msgpack.encode(found)


def test_bytes_become_files(tmp_path: Path) -> None:
    report = tmp_path / "re port.csv"
    report.write_bytes(b"a,b")
    found, files = plain(
        {"image": b"\x89PNG\r\n...", "other": [b"x", b"x"], "path": report, "named": Blob(b"y", "../y.txt")}
    )
    assert sorted(found) == ["image", "named", "other", "path"]
    assert found["image"].startswith(f"{FOLDER}/") and found["image"].endswith(".png")
    assert found["other"][0] == found["other"][1], "equal content is one file"
    assert found["path"].endswith("-re_port.csv")
    assert found["named"].endswith("-y.txt")
    assert files == {
        found["image"]: b"\x89PNG\r\n...",
        found["other"][0]: b"x",
        found["path"]: b"a,b",
        found["named"]: b"y",
    }
    assert all(path.count("/") == 1 for path in files)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (float("nan"), "the result is nan"),
        ({"a": [1, float("inf")]}, "the result['a'][1] is inf"),
        ([1.0, float("-inf")], "the result[1] is -inf"),
        (2**64, "more than 64 bits"),
        (-(2**63) - 1, "more than 64 bits"),
        ({"a": object()}, "the result['a'] is of the type object"),
        ({(1, 2): 3}, "a key of the type tuple"),
        (int, "of the type type"),
        (Path("/nowhere/at/all"), "cannot be read"),
    ],
    ids=str,
)
def test_what_has_no_plain_form(value: Any, where: str) -> None:
    with pytest.raises(CallFailedError) as caught:
        plain(value)
    assert caught.value.kind == "bad_result"
    assert where in caught.value.message


def test_what_has_no_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(CallFailedError, match="nested more than"):
        plain(endless)
