"""Code out of a call's arguments while their JSON is still being written."""

from __future__ import annotations

import json
import random

import pytest

from onehop.agent.code import MAX_BEFORE, CodeText

CODE = "print(\"a\\b\t☃ 😀 \u0001\")\nx = '/' # \\u0041\n"


def fed(text: str, *cuts: int) -> list[str]:
    reader = CodeText("code")
    ends = [*cuts, len(text)]
    return [reader.feed(text[start:end]) for start, end in zip([0, *cuts], ends, strict=True)]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {"code": CODE},
        {"context": "a", "code": CODE, "more": "code"},
        {"x": [1, {"code": "no"}], "code": CODE},
    ],
)
def test_cut_anywhere(arguments: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps(arguments, ensure_ascii=ascii_only, indent=1)
    for cut in range(len(text) + 1):
        assert "".join(fed(text, cut)) == CODE
    assert "".join(CodeText("code").feed(text)) == CODE
    reader = CodeText("code")
    assert "".join(reader.feed(one) for one in text) == CODE
    for seed in range(50):
        cuts = sorted(random.Random(seed).choices(range(len(text)), k=5))
        assert "".join(fed(text, *cuts)) == CODE


def test_it_is_shown_as_it_comes() -> None:
    """Nothing is held back but half an escape or half a pair of surrogates."""
    assert fed('{"code": "ab\\ncd', 12, 13)[:2] == ["ab", ""]
    assert fed('{"code": "a\\ud83d\\ude00b', 17) == ["a", "😀b"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"code": "\\ud83dx"}', "\ufffdx"),
        ('{"code": "\\ude00x"}', "\ufffdx"),
        ('{"code": "line\nbreak"}', "line\nbreak"),
        ('{"code": 7}', ""),
        ('["code", "x"]', ""),
        ("", ""),
        ('{"code": "a"} {"code": "b"}', "a"),
        ('{"a": ' + "[" * 100_000, ""),
        ('{"' + "a" * 100_000 + '": 1, "code": "x"}', ""),
    ],
)
def test_hostile_arguments(text: str, shown: str) -> None:
    reader = CodeText("code")
    found = "".join(reader.feed(text[at : at + 7]) for at in range(0, len(text), 7))
    assert found == shown
    found.encode()  # text that can leave the process
    assert len(reader._buffer) <= MAX_BEFORE + 7
