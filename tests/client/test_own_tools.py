"""Functions of the client that code in a sandbox calls, through both faces of the SDK."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import Any, Literal

import pytest

from onehop.client.tools import describe
from onehop.errors import CallNotPendingError, InvalidRequestError
from tests.client.faces import Face


def add(a: int, b: int = 1) -> int:
    """The sum."""
    return a + b


def broken(city: str) -> str:
    raise LookupError(f"no city {city}")


def no_json() -> object:
    return object()


@dataclasses.dataclass
class Weather:
    city: str
    celsius: float


def forecast(city: str, days: Literal[1, 7] = 1) -> Weather:
    return Weather(city, 4.5)


async def test_functions_are_called_where_the_client_is(session: Any) -> None:
    code = "total = 0\nfor n in range(5): total = tools.add(total, b=n)\n[total, tools.forecast('Oslo')]"
    result = await session.run(code, tools=[add, forecast])
    assert result.text == "[10, {'city': 'Oslo', 'celsius': 4.5}]"
    assert [(call.name, call.status) for call in result.tool_calls] == [("add", "ok")] * 5 + [
        ("forecast", "ok")
    ]


async def test_parallel_calls_run_side_by_side(session: Any) -> None:
    together = threading.Barrier(3, timeout=30)

    def meet(n: int) -> int:
        together.wait()
        return n

    code = "import asyncio\nawait asyncio.gather(*(tools.meet(n=n) for n in range(3)))"
    assert (await session.run(code, tools=[meet])).text == "[0, 1, 2]"


async def test_output_comes_while_it_waits(session: Any) -> None:
    heard: list[str] = []

    def said() -> str:
        return "".join(heard)

    code = "print('one')\nfirst = tools.said()\nprint('two')\n[first, tools.said()]"
    result = await session.run(code, tools=[said], on_stdout=heard.append)
    assert result.text == repr(["one\n", "one\ntwo\n"])
    assert result.stdout == "one\ntwo\n"


async def test_what_a_function_raises_is_raised_in_the_code(session: Any) -> None:
    code = "def f(call):\n    try: call()\n    except Exception as error: return f'{type(error).__name__}: {error}'\n"
    code += "[f(lambda: tools.broken('X')), f(tools.no_json)]"
    result = await session.run(code, tools=[broken, no_json])
    assert result.text.count("ToolFailedError") == 2
    assert "LookupError: no city X" in result.text
    assert "no JSON" in result.text


async def test_coroutine_functions(face: Face, session: Any) -> None:
    async def slowly(n: int) -> int:
        await asyncio.sleep(0)
        return n * 2

    result = await session.run("tools.slowly(n=4)", tools=[slowly])
    if face.is_async:
        assert result.text == "8"
    else:
        assert result.error.name == "ToolFailedError"
        assert "AsyncSession" in result.error.value


async def test_what_nobody_here_can_answer_comes_back(client: Any) -> None:
    described = {"name": "elsewhere", "parameters": {"type": "object", "properties": {}}}
    result = await client.run("[tools.add(1), tools.elsewhere()]", tools=[add, described])
    assert (result.status, [call.name for call in result.tool_calls]) == ("tool_call_required", ["elsewhere"])
    answer = [{"id": result.tool_calls[0].id, "result": "from there"}]
    assert (await client.submit(result.id, answer)).text == "[2, 'from there']"
    with pytest.raises(CallNotPendingError):
        await client.submit(result.id, answer)


async def test_a_session_has_tools(face: Face, url: str) -> None:
    async with face.session(url, tools=[describe(add)]) as session:
        result = await session.run("tools.add(1)")
        assert result.status == "tool_call_required"
        await session.interrupt()


def test_schemas_of_signatures() -> None:
    assert describe(forecast) == {
        "name": "forecast",
        "description": "",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"enum": [1, 7], "default": 1}},
            "required": ["city"],
        },
    }

    def varied(a: list[int], b: dict[str, float], c: int | None = None, **more: Any) -> None: ...

    properties = describe(varied)["parameters"]["properties"]
    assert properties == {
        "a": {"type": "array", "items": {"type": "integer"}},
        "b": {"type": "object", "additionalProperties": {"type": "number"}},
        "c": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    }


@pytest.mark.parametrize("function", [lambda *several: 1, lambda a, /: 1, 5])
def test_functions_that_are_no_tools(function: Any) -> None:
    from onehop.client.tools import OwnTools

    with pytest.raises(InvalidRequestError, match="tools"):
        OwnTools([function], None)
