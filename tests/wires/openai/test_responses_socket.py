"""Responses over a websocket, by OpenAI's own SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from onehop.api.asgi import Call as HttpCall
from onehop.wires.openai import responses_socket
from tests.api.gateway import Gateway
from tests.models.script import Call, Gate, Pause, Status, Text
from tests.wires.conftest import Models

CODE: Any = {"type": "code_interpreter", "container": {"type": "auto"}}
WAIT_S = 20.0


@pytest.fixture
def sdk(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def connection(sdk: openai.OpenAI) -> Iterator[Any]:
    with sdk.responses.connect() as connection:
        yield connection


def ask(connection: Any, **more: Any) -> list[Any]:
    """The events of one request."""
    connection.response.create(model="chat", **more)
    events = []
    while True:
        events.append(connection.recv())
        if events[-1].type in ("response.completed", "response.incomplete", "response.failed", "error"):
            return events


def code(event: Any) -> str:
    """Of an error, and of a response that failed."""
    return str(event.error.code if event.type == "error" else event.response.error.code)


def flood(socket: ClientConnection) -> None:
    for _ in range(40):
        socket.send(json.dumps({"type": "response.create", "model": "chat", "input": "?"}))
    while True:
        socket.recv(WAIT_S)


@pytest.mark.compat("OpenAI", "Responses over a websocket")
def test_a_response_by_websocket(connection: Any, models: Models) -> None:
    models.play([[Call("python", {"code": "6 * 7"})], [Text("It is 42.")]])
    events = ask(connection, input="?", tools=[CODE])
    assert [one.type for one in events[:2]] == ["response.created", "response.in_progress"]
    assert [one.sequence_number for one in events] == list(range(len(events)))
    response = events[-1].response
    assert response.output_text == "It is 42."
    assert [item.type for item in response.output] == ["code_interpreter_call", "message"]


def test_the_events_are_those_of_a_stream(sdk: openai.OpenAI, connection: Any, models: Models) -> None:
    models.play([[Text("Hello "), Text("there.")]] * 2)
    streamed = list(sdk.responses.create(model="chat", input="?", stream=True))
    assert [one.type for one in ask(connection, input="?")] == [one.type for one in streamed]


def test_a_connection_goes_on_from_what_is_not_stored(sdk: Any, connection: Any, models: Models) -> None:
    models.play(
        [
            [Call("python", {"code": "x = 41"})],
            [Text("Set.")],
            [Call("python", {"code": "x + 1"})],
            [Text("42.")],
        ]
    )
    first = ask(connection, input="Set x.", tools=[CODE], store=False)[-1].response
    second = ask(connection, input="And?", tools=[CODE], store=False, previous_response_id=first.id)[
        -1
    ].response
    assert (second.previous_response_id, second.output_text) == (first.id, "42.")
    assert second.output[0].container_id == first.output[0].container_id
    assert "Set x." in json.dumps(models.sent[2])
    # The newest only, and of this connection only.
    assert (
        code(ask(connection, input="?", previous_response_id=first.id)[-1]) == "previous_response_not_found"
    )
    with sdk.responses.connect() as other:
        gone = ask(other, input="?", previous_response_id=second.id)[-1]
    assert code(gone) == "previous_response_not_found"


def test_what_is_stored_goes_on_anywhere(sdk: Any, connection: Any, models: Models) -> None:
    models.play([[Text("One.")], [Text("Two.")], [Text("Three.")]])
    first = ask(connection, input="First.")[-1].response
    second = sdk.responses.create(model="chat", input="Second.", previous_response_id=first.id)
    third = ask(connection, input="Third.", previous_response_id=second.id)[-1].response
    assert third.output_text == "Three."
    told = json.dumps(models.sent[2])
    assert all(one in told for one in ("First.", "One.", "Second.", "Two.", "Third."))


def test_what_fails_is_not_gone_on_from(connection: Any, models: Models) -> None:
    models.play([[Text("Yes.")], [Status(500)], [Text("Again.")]])
    first = ask(connection, input="?", store=False)[-1].response
    failed = ask(connection, input="?", store=False, previous_response_id=first.id)[-1]
    assert failed.type in ("error", "response.failed")
    again = ask(connection, input="?", store=False, previous_response_id=first.id)[-1]
    assert code(again) == "previous_response_not_found"
    assert ask(connection, input="?", store=False)[-1].response.output_text == "Again."


def test_a_result_needs_its_call(connection: Any, models: Models) -> None:
    models.play([[Text("Yes.")]])
    first = ask(connection, input="?", store=False)[-1].response
    result = {"type": "function_call_output", "call_id": "call_none", "output": "x"}
    (refused,) = ask(connection, input=[result], store=False, previous_response_id=first.id)
    assert (refused.type, refused.status, refused.error.param) == ("error", 400, "input")
    assert "call_none" in refused.error.message


def test_a_response_prepared(connection: Any, models: Models) -> None:
    models.play([[Text("Ready.")]])
    prepared = ask(connection, input="Read this.", instructions="Be short.", generate=False)[-1].response
    assert (prepared.status, prepared.output, models.sent) == ("completed", [], [])
    answer = ask(connection, input="Well?", previous_response_id=prepared.id)[-1].response
    assert answer.output_text == "Ready."
    assert "Read this." in json.dumps(models.sent[0])


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"type": "response.steer", "input": "?"}, "type"),
        ({"type": "response.create", "input": "?"}, "model"),
        ({"type": "response.create", "model": "chat"}, "input"),
        ({"type": "response.create", "model": "chat", "input": "?", "stream_id": "a"}, "stream_id"),
        ({"type": "response.create", "model": "chat", "input": "?", "background": True}, "background"),
        ({"type": "response.create", "model": "chat", "input": "?", "generate": 1}, "generate"),
        ({"type": "response.create", "model": "nobody", "input": "?"}, None),
    ],
)
def test_what_cannot_be_done_is_an_error_and_the_connection_stays(
    gateway: Gateway, models: Models, message: dict[str, Any], param: str | None
) -> None:
    models.play([[Text("Here.")]])
    with connect(f"ws{gateway.url.removeprefix('http')}/v1/responses") as socket:
        socket.send(json.dumps(message))
        error = json.loads(socket.recv(WAIT_S))
        assert (error["type"], error["error"]["param"]) == ("error", param), error
        assert error["status"] in (400, 404)
        socket.send(json.dumps({"type": "response.create", "model": "chat", "input": "?"}))
        while json.loads(socket.recv(WAIT_S))["type"] != "response.completed":
            pass


@pytest.mark.parametrize("raw", ["{", "[]", "7", b"\xff\xfe"])
def test_what_is_no_json_object_is_an_error(gateway: Gateway, raw: str | bytes) -> None:
    with connect(f"ws{gateway.url.removeprefix('http')}/v1/responses") as socket:
        socket.send(raw)
        assert json.loads(socket.recv(WAIT_S))["error"]["type"] == "invalid_request_error"


def test_requests_wait_for_their_turn(gateway: Gateway, models: Models) -> None:
    models.play([[Text("One.")], [Text("Two.")]])
    with connect(f"ws{gateway.url.removeprefix('http')}/v1/responses") as socket:
        for number in (1, 2):
            socket.send(json.dumps({"type": "response.create", "model": "chat", "input": str(number)}))
        events: list[dict[str, Any]] = []
        while [one["type"] for one in events].count("response.completed") < 2:
            events.append(json.loads(socket.recv(WAIT_S)))
    texts = [
        one["response"]["output"][0]["content"][0]["text"]
        for one in events
        if one["type"] == "response.completed"
    ]
    assert texts == ["One.", "Two."]
    assert [one["sequence_number"] for one in events].count(0) == 2


def test_too_many_waiting_end_the_connection(gateway: Gateway, models: Models) -> None:
    models.play([[Pause(Gate()), Text("Never.")]])
    with connect(f"ws{gateway.url.removeprefix('http')}/v1/responses") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            flood(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    assert models.server.wait(1).gone.wait(WAIT_S)


def test_who_hangs_up_stops_the_model(gateway: Gateway, models: Models) -> None:
    models.play([[Text("Begin"), Pause(Gate()), Text("never.")]])
    with connect(f"ws{gateway.url.removeprefix('http')}/v1/responses") as socket:
        socket.send(json.dumps({"type": "response.create", "model": "chat", "input": "?"}))
        while json.loads(socket.recv(WAIT_S))["type"] != "response.output_text.delta":
            pass
    assert models.server.wait(1).gone.wait(WAIT_S)
    assert "Traceback" not in gateway.log.read_text()


async def test_a_connection_ends_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_socket, "MAX_AGE_S", 0.01)
    sent: list[Any] = []
    came = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        return next(came, None) or await asyncio.get_running_loop().create_future()

    async def send(event: Any) -> None:
        sent.append(event)

    call = HttpCall({"type": "websocket", "headers": []}, receive, send)
    responses: Any = None  # nothing is asked of it
    engine: Any = SimpleNamespace(settings=SimpleNamespace(body_bytes=1 << 20), keyring=None)
    await asyncio.wait_for(responses_socket.ResponsesSocket(responses, engine).serve(call), WAIT_S)
    accepted, told, closed = sent
    assert accepted["type"] == "websocket.accept"
    assert json.loads(told["text"])["error"]["code"] == "websocket_connection_limit_reached"
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
