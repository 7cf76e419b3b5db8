"""POST /api/lambda: values, errors, where it ran, limits, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem
from tests.lambdas.conftest import run


def test_the_whole_answer(client: httpx2.Client) -> None:
    answer = run(client, "lambda x: sum(x) if isinstance(x, list) else 0", [1, 2, 3], engine="monty")
    usage = answer.pop("usage")
    assert answer == {
        "status": "ok",
        "value": 6,
        "engine": "monty",
        "routed": "",
        "error": None,
        "reason": "",
        "stdout": "",
        "execution": None,
    }
    assert usage["wall_ms"] > 0
    assert usage["cpu_ms"] > 0
    assert usage["peak_memory_bytes"] == -1


def test_keyword_arguments_and_definitions(client: httpx2.Client) -> None:
    code = "def area(w, h=1, *, unit='m'):\n    return f'{w * h} {unit}'"
    for engine in ("monty", "sandbox"):
        assert run(client, code, 3, engine=engine, kwargs={"h": 2, "unit": "cm"})["value"] == "6 cm"


def test_a_sandbox_runs_what_monty_cannot(client: httpx2.Client) -> None:
    answer = run(client, "import re\nlambda s: re.findall(r'\\d+', s)", "a1b22")
    assert answer["value"] == ["1", "22"]
    assert answer["engine"] == "sandbox"
    assert answer["routed"] == "not in Monty: import re"
    stored = client.get(f"/api/executions/{answer['execution']}").json()
    assert stored["status"] == "ok"


def test_packages_and_prints(client: httpx2.Client) -> None:
    answer = run(client, "import numpy as np\nprint('hi')\nlambda x: np.mean(x).item()", [1, 2])
    assert (answer["value"], answer["stdout"]) == (1.5, "hi\n")


def test_what_the_code_raises_is_what_cpython_says(client: httpx2.Client) -> None:
    code = "def f(x):\n    return x['missing']\n"
    answer = run(client, code, {})
    assert (answer["status"], answer["value"], answer["engine"]) == ("error", None, "sandbox")
    assert answer["routed"] == "it raised KeyError in Monty"
    error = answer["error"]
    assert (error["name"], error["value"]) == ("KeyError", "'missing'")
    assert error["traceback"].splitlines()[1].startswith('  File "<lambda>", line 2, in f')
    assert "return x['missing']" in error["traceback"]
    assert "onehop" not in error["traceback"]


def test_a_syntax_error(client: httpx2.Client) -> None:
    answer = run(client, "lambda x: x +")
    assert (answer["status"], answer["error"]["name"]) == ("error", "SyntaxError")
    assert "onehop" not in answer["error"]["traceback"]


def test_monty_alone_says_what_it_cannot(client: httpx2.Client) -> None:
    assert run(client, "1 / 0", engine="monty")["error"]["name"] == "ZeroDivisionError"
    response = client.post("/api/lambda", json={"code": "import os\nos.getpid()", "engine": "monty"})
    problem = assert_problem(response, 422, "invalid-request")
    assert problem["field"] == "code"
    assert "import os" in problem["detail"]


@pytest.mark.parametrize("engine", ["auto", "monty", "sandbox"])
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("float('nan')", "is nan"),
        ("[1, float('-inf')]", "the value at [1] is -inf"),
    ],
)
def test_a_number_that_json_does_not_have(client: httpx2.Client, code: str, said: str, engine: str) -> None:
    answer = run(client, code, engine=engine)
    assert (answer["status"], answer["value"]) == ("error", None)
    assert answer["error"]["name"] == "NotJsonError"
    assert said in answer["error"]["value"]
    assert "return None or text" in answer["error"]["value"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("{3, 1}", "the value is a set, which is no JSON; return sorted(…)"),
        ("{'a': [b'x']}", "the value at ['a'][0] is a bytes, which is no JSON; return .decode()"),
        ("{1: 2}", "has a key that is no text but an int; return it with str(key) as keys"),
        ("lambda: (lambda: 1)", "a function, which is no JSON; return what it gives when it is called"),
        ("range(3)", "return list(…) of it"),
        ("import datetime\ndatetime.date(2024, 1, 1)", "return .isoformat() of it"),
        ("import numpy\nnumpy.arange(3)", "return .tolist() of it"),
        ("object()", "return None, a bool, a number, text, or lists and dicts of those"),
        ("x = []\nx.append(x)\nx", "nested more than 100 deep"),
        ("'x' * 2_000_000", "return less of it"),
        ("10 ** 5000", "return less"),
        ("chr(0xd800)", "lone surrogates"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("async def f():\n    return 1", "a coroutine"),
    ],
)
def test_a_value_that_is_no_json_says_what_to_return(client: httpx2.Client, code: str, said: str) -> None:
    answer = run(client, code)
    assert (answer["status"], answer["value"]) == ("error", None)
    assert answer["error"]["name"] == ("SystemExit" if said == "SystemExit" else "NotJsonError")
    assert said in answer["error"]["value"] + answer["error"]["name"]


@pytest.mark.parametrize("engine", ["monty", "sandbox"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        1e300,
        2**63,
        10**30,
        "",
        "žluť 🦊\n\"'\\",
        [],
        {},
        [[[]]],
        {"": {"a": [1, None]}},
        "\x00\x1f",
    ],
)
def test_values_go_in_and_come_out_as_they_are(client: httpx2.Client, value: Any, engine: str) -> None:
    answer = run(client, "lambda x: x", value, engine=engine)
    assert answer["value"] == value
    assert type(answer["value"]) is type(value)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "code"),
        ({"code": ""}, "code"),
        ({"code": "  \n"}, "code"),
        ({"code": "1\0"}, "code"),
        ({"code": 5}, "code"),
        ({"code": "1", "args": 5}, "args"),
        ({"code": "1", "kwargs": []}, "kwargs"),
        ({"code": "1", "engine": "quantum"}, "engine"),
        ({"code": "1", "timeout_s": 0}, "timeout_s"),
        ({"code": "1", "timeout_s": 1e9}, "timeout_s"),
        ({"code": "1", "memory_mb": 10**9}, "memory_mb"),
        ({"code": "1", "mood": 1}, "mood"),
    ],
)
def test_bad_requests(client: httpx2.Client, body: dict[str, Any], field: str) -> None:
    problem = assert_problem(client.post("/api/lambda", json=body), 422, "invalid-request")
    assert problem["field"] == field


def test_bad_bodies(client: httpx2.Client) -> None:
    headers = {"content-type": "application/json"}
    for body in (b"", b"{", b'{"code": "x", "args": [NaN]}', b'{"code": "x", "args": [01]}', b"\xff"):
        assert_problem(client.post("/api/lambda", content=body, headers=headers), 400, "invalid-json")
    assert_problem(client.post("/api/lambda", content=b"{}"), 415, "unsupported-media-type")
    big = b'{"code": "1", "args": ["' + b"x" * 5_000_000 + b'"]}'
    assert_problem(client.post("/api/lambda", content=big, headers=headers), 413, "too-large")


def test_arguments_that_only_a_sandbox_can_refuse(client: httpx2.Client) -> None:
    deep = "[" * 5000 + "]" * 5000
    body = f'{{"code": "lambda x: 1", "args": [{deep}]}}'.encode()
    response = client.post("/api/lambda", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)
    assert run(client, "1 + 1")["value"] == 2


def test_a_timeout_is_that_of_the_request(client: httpx2.Client) -> None:
    answer = run(client, "while True:\n    pass", timeout_s=0.6)
    assert (answer["status"], answer["engine"], answer["value"]) == ("timeout", "sandbox", None)
    assert "0.25 s in Monty" in answer["routed"]
    answer = run(client, "while True:\n    pass", timeout_s=0.1, engine="monty")
    assert (answer["status"], answer["engine"]) == ("timeout", "monty")
    assert "0.1 s" in answer["reason"]


def test_usage_and_limits_count_lambdas_like_executions(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    key = tenants.tenant(tmp_path, "alice", "execute", "read", executions_per_minute=4)
    with start_supervisor(environment) as supervisor, Gateway(supervisor.path, tmp_path) as gateway:
        with tenants.client(gateway.url, key) as client:
            assert run(client, "1 + 1", engine="monty")["value"] == 2
            assert run(client, "import os\nos.getpid() > 0")["value"] is True
            assert run(client, "1 / 0")["status"] == "error"  # in Monty first: it counts once
            assert run(client, "2 + 2", engine="monty")["value"] == 4
            response = client.post("/api/lambda", json={"code": "1"})
            problem = assert_problem(response, 429, "too-many")
            assert problem["limit"] == "executions_per_minute"

            def counted() -> bool:
                days = client.get("/api/usage").json()["usage"]
                return bool(sum(day["executions"] for day in days) == 4 and days[0]["cpu_s"] > 0)

            tenants.until(counted)
        assert gateway.stop() == 0


def test_without_workers_everything_runs_in_sandboxes(environment: Environment, tmp_path: Path) -> None:
    with start_supervisor(environment) as supervisor:
        with Gateway(supervisor.path, tmp_path, lambda_workers=0) as gateway:
            with httpx2.Client(base_url=gateway.url, timeout=60) as client:
                answer = run(client, "1 + 1")
                assert (answer["value"], answer["engine"]) == (2, "sandbox")
                response = client.post("/api/lambda", json={"code": "1", "engine": "monty"})
                assert_problem(response, 422, "invalid-request")
