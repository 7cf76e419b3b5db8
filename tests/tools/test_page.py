"""docs/tools.md is true about tools of the operator: its examples run as they stand, its numbers are the code's."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import httpx2

from onehop import config
from onehop.environments import Environment
from onehop.tools import checking, configure, launcher, threads, workers
from onehop.tools.plain import FOLDER
from tests.cli.processes import onehop
from tests.tools.servers import gateway_with, run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "mytools.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_first_example(environment: Environment, tmp_path: Path) -> None:
    module = tmp_path / "mytools.py"
    module.write_text(blocks("py")[0])
    serve, *request = blocks("sh")[0].split("\n", 1)
    assert serve == "onehop serve --tools mytools.py &"
    words = shlex.split(request[0].replace("\\\n", " "), comments=True)
    body = json.loads(words[words.index("-d") + 1])
    with gateway_with(environment, tmp_path, "", tools=str(module)) as gateway:
        answer = httpx2.post(f"{gateway.url}/api/execute", json=body, timeout=60).json()
    said = request[0].rpartition("#")[2].strip()
    assert answer["results"] == [{"text/plain": said}], answer


def test_the_commands(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "examples")
    lines = blocks("sh")[1].splitlines()
    assert [line.split()[2] for line in lines] == ["check", "call", "stubs"]
    for line in lines:
        command, *words = shlex.split(line)
        assert command == "onehop"
        done = onehop(*words, "--home", str(tmp_path / "home"), cwd=tmp_path)
        assert done.stdout
        assert done.stderr == ""


def test_the_tables_and_the_functions(tmp_path: Path) -> None:
    for text in blocks("toml"):
        (tmp_path / "config.toml").write_text(text)
        named = tomllib.loads(text)["tools"]
        found = configure.sources(config.load({"home": str(tmp_path)}, {}))
        assert [one.name for one in found] == sorted(named)
    for line in blocks("py")[1].splitlines():
        if line:
            assert line.removesuffix(" ...") in EXAMPLE.read_text(), line


def test_the_numbers() -> None:
    assert f"most {workers.LOG_LINES} lines a second" in re.sub(r"\s+", " ", PAGE)
    assert workers.LOG_PERIOD_S == 1
    assert f"up to {threads.MAX_THREADS} at once" in PAGE
    assert f"until {workers.STUCK_CALLS} of them" in PAGE
    assert f"below `{FOLDER}/`" in PAGE
    assert "within two\n  seconds" in PAGE
    assert launcher.LOOK_S == 1
    assert "about 40 ms" in PAGE
    assert checking.MAX_WORK == 4_000_000


def test_the_example_module_in_code(environment: Environment, tmp_path: Path) -> None:
    code = """
        from tools import mytools
        {city: max(day["celsius"] for day in mytools.forecast(city=city)) for city in mytools.cities()}
    """
    with gateway_with(environment, tmp_path, "", tools=str(EXAMPLE)) as gateway:
        with httpx2.Client(base_url=gateway.url, timeout=60) as client:
            answer = run(client, code, tools=["mytools.*"])
            assert answer["status"] == "ok", answer
            assert {"Oslo", "Lima", "Cairo"} == set(eval(answer["results"][0]["text/plain"]))
            asked = run(client, "tools.mytools.note('x')", tools=["mytools.note"])
            assert asked["tool_calls"][0]["needs"] == "approval"
