"""Every route by every kind of caller, made from the routes themselves: a new one is in here by itself.

Whoever adds a route must give it a scope, or nothing starts. What belongs to somebody is for strangers
as if it were not there.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.api.app import App, create_app
from onehop.api.resources import PUBLIC, Operation
from onehop.config import load
from onehop.environments import Environment
from onehop.sessions import Engine
from onehop.sessions.caller import ADMIN, EXECUTE, READ, SCOPES
from onehop.sessions.keys import make_key
from onehop.store import Store
from onehop.supervisor.client import SupervisorClient
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem

REFUSED = ("no key", "wrong", "expired", "revoked")
GRANTED = {
    "reader": {READ},
    "alice": {EXECUTE, READ},
    "stranger": {EXECUTE, READ},
    "admin": {ADMIN, READ},
}
OWNED = {
    "session_id": "session-not-found",
    "execution_id": "execution-not-found",
    "function_name": "function-not-found",
}
"""Parameters that name something of somebody, and what a stranger gets."""
BROKEN = {405, 500, 501, 503}


@dataclass
class World:
    """A gateway with tenants; all but `stranger` and `admin` are of one owner."""

    url: str
    keys: dict[str, str | None]
    operations: list[Operation]

    def client(self, caller: str) -> httpx2.Client:
        return tenants.client(self.url, self.keys[caller])


@pytest.fixture(scope="module")
def app_and_url(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[App, str, Path]]:
    home = tmp_path_factory.mktemp("matrix")
    (home / "state").mkdir(mode=0o700)
    tenants.tenant(home, "root", "admin")
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(supervisor.path, home)
        yield asyncio.run(_app(supervisor.path, tmp_path_factory.mktemp("app"))), gateway.url, home
        assert gateway.stop() == 0, gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


async def _app(supervisor: str, home: Path) -> App:
    """The application, for its routes; its engine is never entered."""
    client = await SupervisorClient.connect(supervisor)
    store = Store.open("", home)
    settings = load({"home": home}, {})
    app = create_app(Engine(settings, client, store), settings)
    store.close()
    await client.close()
    return app


@pytest.fixture(scope="module")
def world(app_and_url: tuple[App, str, Path]) -> World:
    app, url, home = app_and_url
    revoked_key, row = make_key(owner="alice")
    tenants.store_keys(home, row)
    assert tenants.revoke(home, row.id)
    keys: dict[str, str | None] = {
        "no key": None,
        "wrong": "oh_" + "A" * 43,
        "expired": tenants.expired(home, "alice"),
        "revoked": revoked_key,
        "reader": tenants.tenant(home, "alice", "read"),
        "alice": tenants.tenant(home, "alice", "execute"),
        "stranger": tenants.tenant(home, "bob", "execute"),
        "admin": tenants.tenant(home, "root", "admin"),
    }
    found = World(url, keys, app.operations)
    with found.client("admin") as client:  # the last of those that came while the gateway ran
        tenants.until(lambda: client.get("/api/info").status_code == 200)
    return found


@dataclass
class Things:
    """What alice has."""

    session: str
    execution: str
    key: str
    function: str

    def path(self, operation: Operation) -> str:
        values = {
            "session_id": self.session,
            "execution_id": self.execution,
            "key_id": self.key,
            "function_name": self.function,
            "path": "a.txt",
        }
        return re.sub(
            r"\{(\w+)(?::\w+)?\}", lambda match: values.get(match[1], "main"), operation.path
        )  # whatever else there is lies below one of those


def things(world: World) -> Things:
    with world.client("alice") as alice, world.client("admin") as admin:
        session = alice.post("/api/sessions", json={}).json()["id"]
        answer = alice.post(
            f"/api/sessions/{session}/execute", json={"code": "x = 5; open('a.txt', 'w').write('a')"}
        )
        assert answer.json()["status"] == "ok"
        key = admin.post("/api/keys", json={"owner": "throwaway"}).json()["id"]
        assert alice.put("/api/functions/hers", json={"code": "lambda x: x"}).status_code in (200, 201)
        return Things(session, answer.json()["id"], key, "hers")


def call(client: httpx2.Client, operation: Operation, path: str) -> httpx2.Response:
    body = operation.body
    if body is None:
        return client.request(operation.method, path)
    content = json.dumps(body.example).encode() if body.media_type == "application/json" else b"data"
    return client.request(operation.method, path, content=content, headers={"content-type": body.media_type})


def check(response: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem document; an answer to HEAD has none."""
    if response.request.method == "HEAD":
        assert response.status_code == status
        return {}
    return assert_problem(response, status, kind)


def parameters(operation: Operation) -> set[str]:
    return set(re.findall(r"\{(\w+)", operation.path))


def name(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


def test_every_route_is_classified(world: World, app_and_url: tuple[App, str, Path]) -> None:
    assert len(world.operations) >= 20
    assert {one.scope for one in world.operations} <= {PUBLIC, *SCOPES}
    assert [name(one) for one in world.operations if one.scope == PUBLIC] == ["GET /healthz"]
    assert {name(one) for one in world.operations if one.scope == ADMIN} == {
        "GET /api/keys",
        "POST /api/keys",
        "DELETE /api/keys/{key_id}",
    }
    for one in world.operations:
        if one.scope == READ:
            assert one.method in ("GET", "HEAD"), name(one)
        elif one.scope == EXECUTE:
            assert one.method not in ("GET", "HEAD"), name(one)
    native = {route.path for route in app_and_url[0]._native}
    pages = {"/", "/docs", "/docs/assets/{name}", "/openapi.json"}
    assert native == {one.path for one in world.operations} | pages, "a route that is not in this test"


def test_a_route_without_a_class_does_not_come_into_being() -> None:
    async def handler(_: Any) -> None: ...

    with pytest.raises(TypeError, match="scope"):
        Operation("GET", "/api/new", handler, "new", "Tag", "New")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'write' is no scope"):
        Operation("GET", "/api/new", handler, "new", "Tag", "New", scope="write")


@pytest.mark.parametrize("caller", REFUSED)
def test_without_a_valid_key_nothing_is_said(world: World, caller: str) -> None:
    mine = things(world)
    unknown = Operation("GET", "/api/nothing", None, "", "", "", scope=READ)  # type: ignore[arg-type]
    with world.client(caller) as client:
        for operation in [*world.operations, unknown]:
            response = call(client, operation, mine.path(operation))
            if operation.scope == PUBLIC:
                assert response.status_code == 200, name(operation)
                continue
            check(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == 'Bearer realm="onehop"', name(operation)
        for path in ("/", "/docs", "/docs/assets/docs.js", "/openapi.json"):
            assert client.get(path).status_code in (200, 307), path
    with world.client("alice") as alice:
        assert alice.get(f"/api/sessions/{mine.session}").json()["status"] == "idle", "nothing happened to it"


@pytest.mark.parametrize("caller", [caller for caller in GRANTED if caller != "alice"])
def test_a_scope_that_the_key_lacks(world: World, caller: str) -> None:
    mine = things(world)
    refused = 0
    with world.client(caller) as client:
        for operation in world.operations:
            if operation.scope != PUBLIC and operation.scope not in GRANTED[caller]:
                response = call(client, operation, mine.path(operation))
                check(response, 403, "forbidden")
                refused += 1
    assert refused
    with world.client("alice") as alice:
        assert alice.get(f"/api/sessions/{mine.session}").json()["status"] == "idle", "nothing happened to it"


@pytest.mark.parametrize("caller", ["stranger", "admin"])
def test_what_belongs_to_another_is_not_there(world: World, caller: str) -> None:
    mine = things(world)
    nobodys = Things("ses_" + "A" * 43, "exe_" + "A" * 43, mine.key, "nobodys")
    seen = 0
    with world.client(caller) as client:
        for operation in world.operations:
            owned = parameters(operation) & set(OWNED)
            if operation.scope not in GRANTED[caller] or operation.name == "putFunction":
                continue  # whoever stores a function of that name has one of their own
            response = call(client, operation, mine.path(operation))
            if not owned:
                assert response.status_code < 300, (name(operation), response.text)
                assert mine.session not in response.text, name(operation)
                assert mine.execution not in response.text, name(operation)
                continue
            seen += 1
            kind = OWNED[owned.pop()]
            found = check(response, 404, kind)
            same = check(call(client, operation, nobodys.path(operation)), 404, kind)
            assert found.get("detail") == same.get("detail"), name(operation)
    assert seen >= 4
    with world.client("alice") as alice:
        path = f"/api/sessions/{mine.session}"
        assert alice.get(path).json()["status"] == "idle", "nothing happened to it"
        assert alice.post(f"{path}/execute", json={"code": "x"}).json()["results"] == [{"text/plain": "5"}]
        files = alice.get(f"{path}/files").json()["files"]
        assert [file["path"] for file in files] == ["a.txt"]


@pytest.mark.parametrize("caller", ["alice", "reader"])
def test_what_is_ones_own(world: World, caller: str) -> None:
    """The control: the same requests by who may make them are not refused."""
    with world.client(caller) as client:
        for operation in world.operations:
            if operation.scope not in GRANTED[caller]:
                continue
            response = call(client, operation, things(world).path(operation))
            assert response.status_code not in {401, 403, *BROKEN}, (name(operation), response.text)
            if parameters(operation) <= {"session_id", "execution_id"}:
                assert response.status_code < 300 or response.status_code in (409, 422), (
                    name(operation),
                    response.text,
                )
                assert "not-found" not in response.text, name(operation)
