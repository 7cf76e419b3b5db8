"""smolagents-onehop: an executor whose tools run where the agent runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from smolagents import CodeAgent, FinalAnswerTool, OpenAIModel, Tool, tool
from smolagents_onehop import OnehopExecutor

from onehop import Session
from tests.api.gateway import Gateway
from tests.integrations.conftest import ROOT
from tests.models.script import Text
from tests.wires.conftest import Models

LOOK = "```python\ncounts = {name: stock(name) for name in ('apples', 'pears', 'plums')}\nprint(counts)\n```"
END = "```python\nfinal_answer(sum(counts.values()))\n```"


def said(code: str) -> list[Any]:
    """As smolagents' prompt asks for it."""
    inner = code.removeprefix("```python\n").removesuffix("\n```")
    return [Text(f"Thought: go on.\n<code>\n{inner}\n</code>")]


@pytest.mark.compat("smolagents", "an agent's code in the sandbox, its tools beside the agent: the example")
def test_the_example(gateway: Gateway, models: Models) -> None:
    models.play([said(LOOK), said(END)])
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "integrations" / "smolagents-onehop" / "src")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "smolagents_executor.py"), "chat"],
        env={
            **os.environ, "PYTHONPATH": path, "ONEHOP_URL": gateway.url, "OPENAI_BASE_URL": gateway.url + "/v1",
            "OPENAI_API_KEY": "unused",
        },
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("answer: 19\n"), done.stdout + done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines() if line.startswith("(looked")] == [
        "apples", "pears", "plums",
    ]  # fmt: skip
    assert "{'apples': 7, 'pears': 0, 'plums': 12}" in json.dumps(models.sent[1]).replace('\\"', "'"), (
        "the log went back"
    )


@tool
def secret(word: str, times: int = 1) -> dict[str, Any]:
    """Says a word.

    Args:
        word: the word.
        times: how often.
    """
    return {"said": [word] * times, "by": os.getpid()}


class Nothing(Tool):
    name = "nothing"
    description = "Fails."
    inputs: dict[str, Any] = {}  # noqa: RUF012 - smolagents wants it on the class
    output_type = "any"

    def forward(self) -> Any:
        raise RuntimeError("there is nothing")


@pytest.mark.compat("smolagents", "executor: state, variables, errors, final answers, tools with options")
def test_the_executor(gateway: Gateway) -> None:
    with Session(url=gateway.url) as session:
        run = OnehopExecutor(session, timeout_s=20)
        run.send_variables({"given": [1, 2.5, None], "text": "x"})
        run.send_tools({"secret": secret, "nothing": Nothing(), "final_answer": FinalAnswerTool()})
        first = run("print(given)\nx = len(given)\nx + 1")
        assert (first.output, first.logs, first.is_final_answer) == ("4", "[1, 2.5, None]\n", False)
        assert run("x").output == "3"
        called = run("r = secret('a', times=2)\nprint(r['said'], secret(word='b')['said'])\nr['by']")
        assert called.logs == "['a', 'a'] ['b']\n"
        assert called.output == str(os.getpid()), "the tool ran here"
        with pytest.raises(RuntimeError, match="there is nothing"):
            run("nothing()")
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            run("1 / 0")
        with pytest.raises(RuntimeError, match="timeout"):
            OnehopExecutor(session, timeout_s=0.3)("while True: pass")
        final = run("print('so')\nfinal_answer({'a': [1, 'Grüße']})\nprint('never')")
        assert (final.output, final.logs, final.is_final_answer) == ({"a": [1, "Grüße"]}, "so\n", True)
        assert "secret" not in session.run("__import__('inspect').getsource").text, "its source is nowhere"
        run.cleanup()
        assert session.run("x").text == "3", "the session is the caller's"


def test_an_agent_that_fails_goes_on(gateway: Gateway, models: Models) -> None:
    models.play([said("```python\n1 / 0\n```"), said("```python\nfinal_answer('sorry')\n```")])
    executor = OnehopExecutor(url=gateway.url)
    model = OpenAIModel("chat", api_base=gateway.url + "/v1", api_key="unused")
    agent = CodeAgent(tools=[], model=model, executor=executor, max_steps=3, verbosity_level=0)
    assert agent.run("Divide.") == "sorry"
    assert "ZeroDivisionError" in json.dumps(models.sent[1]), "the model was told"
    agent.cleanup()
