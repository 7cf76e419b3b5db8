"""Registered tools in the loop's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2

from onehop.agent.prompts import MAX_STUBS_CHARACTERS
from onehop.supervisor.spawn import SupervisorHandle
from tests.agent.looping import python
from tests.api.gateway import Gateway
from tests.models.script import Text
from tests.models.server import ModelServer

MODULE = '''
import onehop

@onehop.tool
def double(n: int) -> int:
    """Twice as much."""
    return 2 * n

@onehop.tool(requires_approval=True)
def delete(name: str) -> str:
    """Deletes it."""
    open(MARK, "w").close()
    return name

for number in range(200):
    def one(text: str) -> str:
        """One of many that need a good many words to be described to a model that may want to call it."""
        return text
    one.__name__ = f"many_{number}"
    globals()[one.__name__] = onehop.tool(one)
'''


def ask(gateway: Gateway, *tools: str) -> dict[str, Any]:
    body = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "Go on."}],
        "onehop": {"tools": list(tools)},
    }
    answer = httpx2.post(gateway.url + "/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    usage: dict[str, Any] = answer.json()["usage"]["onehop"]
    return usage


def test_a_call_that_needs_an_approval_is_refused(loop_supervisor: SupervisorHandle, tmp_path: Path) -> None:
    module, mark = tmp_path / "mine.py", tmp_path / "deleted"
    module.write_text(MODULE.replace("MARK", repr(str(mark))))
    code = "print(tools.mine.double(n=4))\ntools.mine.delete(name='x')"
    with ModelServer([[python(code)], [Text("Well.")]]) as server:
        settings = {"upstreams": server.setting("chat"), "tools": str(module)}
        with Gateway(loop_supervisor.path, tmp_path / "home", **settings) as gateway:
            usage = ask(gateway, "mine.double", "mine.delete")
            told = [one["content"] for one in server.requests[1].body["messages"] if one["role"] == "tool"]
            assert "8\n" in told[0]
            assert "ToolDeniedError" in told[0]
            assert not mark.exists()
            assert (usage["end"], usage["tool_calls"]) == ("answer", 2)
            # What the model was told of them.
            (function,) = (one["function"] for one in server.requests[0].body["tools"])
            assert "def double(n: int) -> int" in function["description"]
            assert "many_1" not in function["description"]
            # Many are not told one by one, and the same ones are told in the same bytes.
            server.requests.clear()
            server.script = [[Text("Many.")]]
            ask(gateway, "mine.*")
            ask(gateway, "mine.*")
            one, two = (json.dumps(request.body["tools"]) for request in server.requests)
            assert one == two
            assert "tools.search" in one
            assert len(one) < MAX_STUBS_CHARACTERS
