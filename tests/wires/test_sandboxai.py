"""SandboxAI's API by its unmodified client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from sandboxai import Sandbox
from sandboxai.api.v1 import CreateSandboxRequest, RunIPythonCellRequest, RunShellCommandRequest, SandboxSpec
from sandboxai.client.v1 import HttpClient, SandboxNotFoundError

from tests.api.gateway import Gateway

BOXES = "/sandboxai/v1/spaces/default/sandboxes"


@pytest.fixture
def url(gateway: Gateway) -> str:
    return gateway.url + "/sandboxai/v1"


@pytest.fixture
def box(url: str) -> Iterator[Sandbox]:
    with Sandbox(base_url=url, env={"REGION": "north"}) as box:
        yield box


@pytest.mark.compat("SandboxAI", "sandboxes: create, get, delete, names, spaces")
def test_the_life_of_a_sandbox(url: str) -> None:
    client = HttpClient(url)
    assert client.check_health()
    asked = CreateSandboxRequest(name="mine", spec=SandboxSpec(env={"A": "b"}))
    made = client.create_sandbox("default", asked)
    assert (made.name, made.spec.env) == ("mine", {"A": "b"})
    assert client.get_sandbox("default", "mine").model_dump() == made.model_dump()
    with pytest.raises(RuntimeError, match="409"):
        client.create_sandbox("default", asked)
    # A space has names of its own.
    other = client.create_sandbox("other", asked)
    assert other.uid != made.uid
    client.delete_sandbox("other", "mine")
    client.delete_sandbox("default", "mine")
    with pytest.raises(SandboxNotFoundError):
        client.get_sandbox("default", "mine")


@pytest.mark.compat("SandboxAI", "IPython cells, as its own tests expect them")
def test_cells(box: Sandbox) -> None:
    def run(code: str, *, split: bool = False) -> Any:
        request = RunIPythonCellRequest(code=code, split_output=split)
        return box.client.run_ipython_cell("default", box.name, request)

    assert run("print(1)").output == "1\n"
    assert (run("print(1)", split=True).stdout, run("print(1)", split=True).output) == ("1\n", None)
    assert run("import sys").output == ""
    # Both streams, in their order.
    assert run("for n in range(3): print(n, file=[sys.stdout, sys.stderr][n % 2])").output == "0\n1\n2\n"
    assert run("print(1, file=sys.stderr)", split=True).stderr == "1\n"
    assert "name 'missing' is not defined" in run("missing").output
    assert run("kept = 123").output == ""
    assert run("kept").output == "Out[1]: 123\n"
    assert run("'a\\nb'; print('x'); __import__('numpy').eye(2)").output == (
        "x\nOut[1]: \narray([[1., 0.],\n       [0., 1.]])\n"
    )
    assert run("! echo -n $REGION").output == "north"


@pytest.mark.compat("SandboxAI", "shell commands")
def test_commands(box: Sandbox) -> None:
    assert box.run_shell_command("echo hello").output == "hello\n"
    assert box.run_shell_command("echo out; echo error >&2").output == "out\nerror\n"
    assert box.run_shell_command("echo -n $REGION").output == "north"
    split = box.client.run_shell_command(
        "default", box.name, RunShellCommandRequest(command="echo no >&2", split_output=True)
    )
    assert (split.stdout, split.stderr) == ("", "no\n")


@pytest.mark.compat("SandboxAI", "images", cannot="no containers are run; an image may name an environment")
def test_an_image_that_is_not_there(client: httpx2.Client) -> None:
    answer = client.post(BOXES, json={"spec": {"image": "alpine:3"}})
    assert answer.status_code == 422
    assert "alpine:3" in answer.json()["message"]
    made = client.post(BOXES, json={"spec": {"image": "default"}})
    assert (made.status_code, made.json()["spec"]["image"]) == (201, "default")
    assert client.delete(f"{BOXES}/{made.json()['name']}").status_code == 204


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (BOXES, b"{", 400),
        (BOXES, b'{"name": "a b", "spec": {}}', 422),
        (BOXES, b'{"spec": {"env": {"A=": "b"}}}', 422),
        (BOXES + "/nobody/tools:run_ipython_cell", b'{"code": "1"}', 404),
        (BOXES + "/nobody/tools:run_shell_command", b'{"command": "ls"}', 404),
    ],
)
def test_what_is_refused(client: httpx2.Client, path: str, body: bytes, status: int) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["message"]
