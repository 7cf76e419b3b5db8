"""One corpus of small programs through both lanes: the same values, and no program where they would differ."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

from tests.lambdas.conftest import run
from tests.lambdas.corpus import FITS, UNFIT

AT_ONCE = 4


def both(client: httpx2.Client, code: str, args: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return run(client, code, *args), run(client, code, *args, engine="sandbox")


def same(one: Any, other: Any) -> bool:
    """1, 1.0 and True are three values here, and so are the orders of a dict."""
    return json.dumps(one) == json.dumps(other)


def test_what_fits_monty_has_the_same_value_in_both_lanes(client: httpx2.Client) -> None:
    assert len(FITS) >= 200
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda one: both(client, *one), FITS))
    for (code, args), (auto, sandbox) in zip(FITS, answers, strict=True):
        assert auto["engine"] == "monty", (code, args, auto["routed"])
        assert auto["status"] == sandbox["status"] == "ok", (code, args, auto, sandbox)
        assert sandbox["engine"] == "sandbox"
        assert same(auto["value"], sandbox["value"]), (code, args, auto["value"], sandbox["value"])


def test_what_would_differ_is_answered_by_a_sandbox(client: httpx2.Client) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda one: run(client, one[0], *one[1]), UNFIT))
    for (code, args, _), answer in zip(UNFIT, answers, strict=True):
        assert answer["engine"] == "sandbox", (code, args, answer["value"])
        assert answer["routed"], (code, args)
        assert answer["execution"].startswith("exe_")
