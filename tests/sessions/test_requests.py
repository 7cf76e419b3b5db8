"""What a client may ask for: decoding is strict, bounds hold, and no body brings anything but a problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onehop.config import Settings, load
from onehop.errors import InvalidJsonError, InvalidPathError, InvalidRequestError, ProblemError, TooLargeError
from onehop.sessions import bounds, requests
from onehop.sessions.requests import ExecuteOnceRequest, ExecuteRequest, SessionRequest

ONCE = msgspec.json.Decoder(ExecuteOnceRequest)
IN_SESSION = msgspec.json.Decoder(ExecuteRequest)
SESSION = msgspec.json.Decoder(SessionRequest)


@pytest.fixture
def small(tmp_path: Path) -> Settings:
    return load({"home": tmp_path, "code_bytes": 100, "stdin_bytes": 100, "env_bytes": 100}, {})


@pytest.mark.parametrize(
    ("body", "error", "field"),
    [
        (b"", InvalidJsonError, None),
        (b"{", InvalidJsonError, None),
        (b"\xff", InvalidJsonError, None),
        (b'{"code": "\xff"}', InvalidJsonError, None),
        (b'{"code": "\\ud800"}', InvalidJsonError, None),
        (b'{"code": "1"} x', InvalidJsonError, None),
        (b'{"code": "1", "timeout_s": NaN}', InvalidJsonError, None),
        (b"[" * 100_000, InvalidRequestError, ""),
        (b"null", InvalidRequestError, ""),
        (b"[]", InvalidRequestError, ""),
        (b"{}", InvalidRequestError, "code"),
        (b'{"code": null}', InvalidRequestError, "code"),
        (b'{"code": 1}', InvalidRequestError, "code"),
        (b'{"cod": "1"}', InvalidRequestError, "cod"),
        (b'{"code": "1", "tools": {}}', InvalidRequestError, "tools"),
        (b'{"code": "1", "tools": [{"name": "no name"}]}', InvalidRequestError, "tools[0].name"),
        (b'{"code": "1", "timeout_s": 0}', InvalidRequestError, "timeout_s"),
        (b'{"code": "1", "timeout_s": "5"}', InvalidRequestError, "timeout_s"),
        (b'{"code": "1", "timeout_s": true}', InvalidRequestError, "timeout_s"),
        (b'{"code": "1", "timeout_s": 1e999}', InvalidRequestError, "timeout_s"),
        (b'{"code": "1", "memory_mb": -1}', InvalidRequestError, "memory_mb"),
        (b'{"code": "1", "memory_mb": 1.5}', InvalidRequestError, "memory_mb"),
        (b'{"code": "1", "env": {"A": 1}}', InvalidRequestError, "env[...]"),
        (b'{"code": "1", "files": []}', InvalidRequestError, "files"),
        (b'{"code": "1", "files": {"a": {"base64": "!"}}}', InvalidRequestError, "files[...].base64"),
        (b'{"code": "1", "files": {"a": {"base64": "", "x": 1}}}', InvalidRequestError, "files[...].x"),
        (b'{"code": "1", "context": "no name"}', InvalidRequestError, "context"),
    ],
)
def test_decoding_is_strict(body: bytes, error: type[ProblemError], field: str | None) -> None:
    with pytest.raises(error) as caught:
        requests.decode(ONCE, body)
    assert type(caught.value) is error
    assert caught.value.extra.get("field") == field


def test_a_field_of_the_session_is_explained() -> None:
    with pytest.raises(InvalidRequestError, match="belongs to the session"):
        requests.decode(IN_SESSION, b'{"code": "1", "memory_mb": 64}')


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"code": ""}, InvalidRequestError),
        ({"code": " \n\t"}, InvalidRequestError),
        ({"code": "a\0b"}, InvalidRequestError),
        ({"code": "a" * 101}, TooLargeError),
        ({"code": "é" * 51}, TooLargeError),
        ({"code": "1", "stdin": "a" * 101}, TooLargeError),
        ({"code": "1", "timeout_s": 3601}, InvalidRequestError),
        ({"code": "1", "cpu_s": 1e300}, InvalidRequestError),
        ({"code": "1", "output_bytes": 1 << 40}, InvalidRequestError),
        ({"code": "1", "env": {"": "x"}}, InvalidRequestError),
        ({"code": "1", "env": {"A=B": "x"}}, InvalidRequestError),
        ({"code": "1", "env": {"A": "\0"}}, InvalidRequestError),
        ({"code": "1", "env": {"A": "x" * 100}}, TooLargeError),
    ],
)
def test_bounds_of_an_execution(small: Settings, fields: dict[str, Any], error: type[ProblemError]) -> None:
    request = requests.decode(IN_SESSION, json.dumps(fields).encode())
    with pytest.raises(error) as caught:
        bounds.execution_spec(request, small, "exe_1", grace_s=0)
    assert type(caught.value) is error


@pytest.mark.parametrize("field", ["memory_mb", "processes", "workspace_mb"])
@pytest.mark.parametrize("value", [1 << 40, 10**400])
def test_ceilings_of_a_sandbox(small: Settings, field: str, value: int) -> None:
    request = requests.decode(SESSION, json.dumps({field: value}).encode())
    with pytest.raises(InvalidRequestError, match="the most is"):
        bounds.sandbox_spec(request, small, owner="", one_shot=False)


def test_a_lifetime_cannot_outlive_the_ceiling(small: Settings) -> None:
    for field in ("idle_timeout_s", "max_age_s"):
        request = requests.decode(SESSION, json.dumps({field: 1e9}).encode())
        with pytest.raises(InvalidRequestError, match=field):
            bounds.lifetime(request, small)


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a\0b", "x" * 256, "a/" * 600 + "a"],
)
def test_paths_that_name_no_file(path: str) -> None:
    request = ExecuteRequest(code="1", files={path: "x"})
    with pytest.raises(InvalidPathError):
        bounds.contents(request, 1000)


def test_files_over_the_quota_are_refused_before_anything_is_written() -> None:
    request = requests.decode(IN_SESSION, b'{"code": "1", "files": {"a": "xxx", "b": {"base64": "AAAA"}}}')
    assert bounds.contents(request, 6) == {"a": b"xxx", "b": b"\0\0\0"}
    with pytest.raises(TooLargeError):
        bounds.contents(request, 5)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
fields = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*ExecuteOnceRequest.__struct_fields__, "other"), json_values),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(body=st.binary(max_size=200) | fields.map(lambda found: json.dumps(found).encode()))
def test_no_body_raises_anything_but_a_problem(body: bytes) -> None:
    defaults = Settings()
    try:
        request = requests.decode(ONCE, body)
        bounds.execution_spec(request, defaults, "exe_1", grace_s=0)
        bounds.sandbox_spec(request, defaults, owner="", one_shot=True)
        bounds.contents(request, 1000)
    except ProblemError as error:
        assert error.status in (400, 413, 422)  # noqa: PT017 - most bodies are refused, some are fine
        json.dumps(error.document(), allow_nan=False)
