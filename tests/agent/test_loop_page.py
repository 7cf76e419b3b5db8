"""docs/loop.md is true: its tables are the code's, its example runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import httpx2
import msgspec

from onehop.agent import guards, prompts, results, work
from onehop.agent.containers import MAX_CONVERSATION_CHARACTERS
from onehop.agent.events import EndReason
from onehop.config import Settings
from onehop.supervisor.spawn import SupervisorHandle
from onehop.wires import extras
from tests.agent.looping import python
from tests.api.gateway import Gateway
from tests.models.script import Text
from tests.models.server import ModelServer

PAGE = (Path(__file__).parents[2] / "docs" / "loop.md").read_text(encoding="utf-8")


def rows(first: str) -> list[list[str]]:
    """Of the table whose heading begins like this."""
    lines = PAGE.partition(f"| {first} |")[2].splitlines()[2:]
    found: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_tables() -> None:
    reasons = [name for cell, *_ in rows("`end`") for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(reasons) == sorted(get_args(EndReason))
    settings = Settings()
    for name, default, _ in rows("setting"):
        assert getattr(settings, name.strip("`")) == float(default), name
    assert {cell.strip("`") for cell, *_ in rows("tool")} == set(prompts.NAMES.values())
    members = {cell.strip("`"): header.strip("`") for cell, header, _ in rows("member")}
    assert set(members) == {field.name for field in msgspec.structs.fields(extras.Extras)}
    headers = {name.lower().encode() for name in members.values() if name}
    assert headers == {extras.CONVERSATION, extras.EXPIRED, extras.TOOLS}
    (limits,) = (text for cell, _, text in rows("member") if cell == "`limits`")
    assert set(re.findall(r"`(\w+)`", limits)) == {
        field.name for field in msgspec.structs.fields(extras.LimitFields)
    }


def test_the_numbers() -> None:
    for number, text in (
        (results.MAX_CHARACTERS, "more than {} characters"),
        (prompts.MAX_STUBS_CHARACTERS, "up to {} characters"),
        (MAX_CONVERSATION_CHARACTERS, "at most {} characters"),
        (round(work.BUSY_S), "waits up to {} s"),
        (guards.SAME_ERRORS + 1, "the same error for the {}th time"),
        (guards.SAME_RESULTS + 1, "the same result for the {}rd time"),
    ):
        assert text.format(number) in " ".join(PAGE.split()), text


def test_the_example(loop_supervisor: SupervisorHandle, tmp_path: Path) -> None:
    (line,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    words = shlex.split(line)
    body = json.loads(words[words.index("-d") + 1])
    count = python("sum(all(n % d for d in range(2, n)) for n in range(2, 1000))")
    with ModelServer([[count], [Text("168.")]]) as server:
        models = json.dumps({body["model"]: {"upstreams": ["scripted:x"]}})
        with Gateway(
            loop_supervisor.path, tmp_path, upstreams=server.setting("chat"), models=models
        ) as gateway:
            answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
        told = [one["content"] for one in server.requests[1].body["messages"] if one["role"] == "tool"]
    assert told == ["168"]
    assert answer.json()["usage"]["onehop"]["end"] == answer.headers["onehop-end"] == "answer"
    assert answer.headers["onehop-container"] == answer.json()["usage"]["onehop"]["container"]
