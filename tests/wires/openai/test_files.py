"""OpenAI's files and containers, by its own SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Text
from tests.wires.conftest import Models


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[Any]:
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def container(sdk: Any) -> Iterator[Any]:
    made = sdk.containers.create(
        name="mine", memory_limit="1g", expires_after={"anchor": "last_active_at", "minutes": 10}
    )
    yield made
    try:
        sdk.containers.delete(made.id)
    except openai.NotFoundError:
        pass


# --- uploads ------------------------------------------------------------------------------------------


def test_a_file_comes_back(sdk: Any) -> None:
    made = sdk.files.create(file=("data.csv", b"a,b\n1,2\n"), purpose="user_data")
    assert (made.filename, made.bytes, made.purpose, made.status) == ("data.csv", 8, "user_data", "processed")
    assert sdk.files.retrieve(made.id) == made
    assert made.id in [one.id for one in sdk.files.list(purpose="user_data")]
    content = sdk.files.content(made.id)
    assert content.read() == b"a,b\n1,2\n"
    headers = content.response.headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"
    assert sdk.files.delete(made.id).deleted
    for gone in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


def test_pages_of_files(sdk: Any) -> None:
    made = [sdk.files.create(file=(f"{n}.txt", b"x"), purpose="evals").id for n in range(5)]
    assert [one.id for one in sdk.files.list(purpose="evals", limit=2)] == made[::-1]
    assert [one.id for one in sdk.files.list(purpose="evals", order="asc", limit=2)] == made
    for name in made:
        sdk.files.delete(name)


def test_a_file_that_expires(sdk: Any) -> None:
    made = sdk.files.create(
        file=("a", b"x"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == pytest.approx(made.created_at + 3600, abs=2)


@pytest.mark.parametrize(
    ("files", "data", "said"),
    [
        ({"file": ("a", b"x")}, {}, "purpose"),
        ({"file": ("a", b"x")}, {"purpose": "fun"}, "purpose"),
        ({"other": ("a", b"x")}, {"purpose": "user_data"}, "file"),
        ({"file": ("..", b"x")}, {"purpose": "user_data"}, "filename"),
        ({"file": ("a", b"x")}, {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"}, "expires_after.seconds"),
    ],
)  # fmt: skip
def test_what_is_no_upload(client: httpx2.Client, files: Any, data: dict[str, str], said: str) -> None:
    before = len(client.get("/v1/files").json()["data"])
    answer = client.post("/v1/files", files=files, data=data)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, said), answer.text
    assert len(client.get("/v1/files").json()["data"]) == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nhalf', "multipart/form-data; boundary=x"),
        (b"garbage", "multipart/form-data; boundary=x"),
        (b'--x\r\ncontent-disposition: form-data\r\n\r\n1\r\n--x--\r\n', "multipart/form-data; boundary=x"),
    ],
)  # fmt: skip
def test_what_is_no_form(client: httpx2.Client, body: bytes, kind: str) -> None:
    answer = client.post("/v1/files", content=body, headers={"content-type": kind})
    assert (answer.status_code, bool(answer.json()["error"]["message"])) == (400, True), answer.text
    assert client.post("/v1/files", content=b"x", headers={"content-type": "text/plain"}).status_code == 415


# --- containers ---------------------------------------------------------------------------------------


def test_a_containers_life(sdk: Any, client: httpx2.Client, container: Any) -> None:
    assert (container.name, container.status, container.memory_limit) == ("mine", "running", "1g")
    assert (container.expires_after.minutes, container.id.startswith("cntr_")) == (10, True)
    assert sdk.containers.retrieve(container.id).id == container.id
    assert container.id in [one.id for one in sdk.containers.list()]
    session = container.id.replace("cntr_", "ses_")
    assert client.get(f"/api/sessions/{session}").json()["limits"]["memory_mb"] == 1024
    sdk.containers.delete(container.id)
    for gone in (sdk.containers.retrieve, sdk.containers.delete):
        with pytest.raises(openai.NotFoundError):
            gone(container.id)
    with pytest.raises(openai.NotFoundError):
        sdk.containers.retrieve("cntr_none")


def test_files_in_a_container(sdk: Any, models: Models, container: Any) -> None:
    put = sdk.containers.files.create(container.id, file=("in.txt", b"hello"))
    assert (put.path, put.bytes, put.source, put.container_id) == (
        "/workspace/in.txt",
        5,
        "user",
        container.id,
    )
    upload = sdk.files.create(file=("known.txt", b"again"), purpose="user_data")
    sdk.containers.files.create(container.id, file_id=upload.id)
    code = "print(open('in.txt').read(), open('known.txt').read()); _ = open('out.txt', 'w').write('made')"
    models.play([[Call("python", {"code": code})], [Text("See out.txt.")]])
    tool = {"type": "code_interpreter", "container": container.id}
    response = sdk.responses.create(
        model="chat", input="?", tools=[tool], include=["code_interpreter_call.outputs"]
    )
    assert response.output[0].outputs[0].logs == "hello again\n"
    (note,) = response.output[1].content[0].annotations
    assert (note.filename, note.container_id) == ("out.txt", container.id)
    made = sdk.containers.files.retrieve(note.file_id, container_id=container.id)
    assert (made.source, made.path) == ("assistant", "/workspace/out.txt")
    assert sdk.containers.files.content.retrieve(note.file_id, container_id=container.id).read() == b"made"
    assert sorted(one.path for one in sdk.containers.files.list(container.id)) == [
        "/workspace/in.txt", "/workspace/known.txt", "/workspace/out.txt",
    ]  # fmt: skip
    sdk.containers.files.delete(note.file_id, container_id=container.id)
    with pytest.raises(openai.NotFoundError):
        sdk.containers.files.retrieve(note.file_id, container_id=container.id)


def test_a_container_with_files(sdk: Any) -> None:
    upload = sdk.files.create(file=("known.txt", b"again"), purpose="user_data")
    made = sdk.containers.create(name="filled", file_ids=[upload.id])
    assert [one.path for one in sdk.containers.files.list(made.id)] == ["/workspace/known.txt"]
    sdk.containers.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        sdk.containers.create(name="empty", file_ids=["file_none"])


def test_an_id_of_a_file_is_no_permission(sdk: Any, container: Any) -> None:
    put = sdk.containers.files.create(container.id, file=("in.txt", b"hello"))
    other = sdk.containers.create(name="other")
    for name in (put.id, "cfile_none", "cfile_" + "x" * 200):
        with pytest.raises(openai.NotFoundError):
            sdk.containers.files.retrieve(name, container_id=other.id)
    sdk.containers.delete(other.id)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "a", "memory_limit": "3g"}, "memory_limit"),
        ({"name": "a", "network_policy": {"type": "allowlist"}}, "network_policy"),
        ({"name": "a", "skills": [{}]}, "skills"),
        ({"name": "a", "expires_after": {"anchor": "created_at", "minutes": 5}}, "expires_after.anchor"),
    ],
)
def test_what_is_no_container(client: httpx2.Client, body: dict[str, Any], param: str) -> None:
    answer = client.post("/v1/containers", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
