"""Anthropic's files, by its own SDK, and in code execution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from tests.api.gateway import Gateway
from tests.models.script import Call, Text
from tests.wires.conftest import Models
from tests.wires.openai.test_responses import PLOT

CODE = {"type": "code_execution_20250825", "name": "code_execution"}


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=gateway.url + "/anthropic", api_key="any", max_retries=0) as client:
        yield client


def upload(sdk: Any, name: str, content: bytes) -> Any:
    return sdk.beta.files.upload(file=(name, content, "text/plain"))


def test_a_file_comes_back(sdk: Any) -> None:
    made = upload(sdk, "data.csv", b"a,b\n1,2\n")
    assert (made.filename, made.mime_type, made.size_bytes, made.type) == (
        "data.csv",
        "text/plain",
        8,
        "file",
    )
    assert sdk.beta.files.retrieve_metadata(made.id) == made
    assert sdk.beta.files.download(made.id).read() == b"a,b\n1,2\n"
    assert sdk.beta.files.delete(made.id).type == "file_deleted"
    for gone in (sdk.beta.files.retrieve_metadata, sdk.beta.files.download, sdk.beta.files.delete):
        with pytest.raises(anthropic.NotFoundError):
            gone(made.id)


def test_pages_of_files(sdk: Any) -> None:
    made = [upload(sdk, f"{number}.txt", b"x").id for number in range(5)]
    listed = [one.id for one in sdk.beta.files.list(limit=2)]
    assert listed[:5] == made[::-1]
    for name in made:
        sdk.beta.files.delete(name)


def test_a_file_goes_in_and_what_code_makes_comes_out(sdk: Any, models: Models) -> None:
    put = upload(sdk, "in.txt", b"hello")
    code = "print(open('in.txt').read()); _ = open('out.txt', 'w').write('made')"
    models.play([[Call("python", {"code": code})], [Text("ok")]])
    content = [{"type": "container_upload", "file_id": put.id}, {"type": "text", "text": "Go."}]
    message = sdk.beta.messages.create(
        model="chat", max_tokens=100, messages=[{"role": "user", "content": content}], tools=[CODE]
    )
    result = message.content[1].content
    assert result.stdout == "hello\n"
    assert "in.txt is in the working folder" in str(models.sent[0])
    (made,) = result.content
    assert sdk.beta.files.retrieve_metadata(made.file_id).filename == "out.txt"
    assert sdk.beta.files.download(made.file_id).read() == b"made"


def test_pictures_that_code_shows_are_files(sdk: Any, models: Models) -> None:
    models.play(
        [[Call("python", {"code": PLOT.replace("plt.savefig('line.png'); ", "")})], [Text("A line.")]]
    )
    user = [{"role": "user", "content": "Plot."}]
    message = sdk.beta.messages.create(model="chat", max_tokens=100, messages=user, tools=[CODE])
    (shown,) = message.content[1].content.content
    assert sdk.beta.files.download(shown.file_id).read().startswith(b"\x89PNG")


def test_what_is_no_upload(client: httpx2.Client) -> None:
    answer = client.post("/anthropic/v1/files", files={"other": ("a", b"x")})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    body = {
        "model": "chat",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "file_none"}]}],
        "tools": [CODE],
    }
    assert client.post("/anthropic/v1/messages", json=body).status_code == 404
    assert client.post("/anthropic/v1/messages", json={**body, "tools": []}).status_code == 400
