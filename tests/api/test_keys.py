"""Keys: how one is sent, that the first one closes the server, and that none can be had from it again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop.environments import Environment
from onehop.sessions.keys import make_key
from onehop.supervisor.spawn import SupervisorHandle
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway
from tests.api.test_bad_input import assert_problem


@pytest.fixture(scope="module")
def own_supervisor(environment: Environment) -> Iterator[SupervisorHandle]:
    with start_supervisor(environment) as supervisor:
        yield supervisor


@pytest.fixture
def keyless(own_supervisor: SupervisorHandle, home: Path) -> Iterator[Gateway]:
    """A gateway without keys."""
    gateway = Gateway(own_supervisor.path, home, log_level="debug", access_log="true")
    yield gateway
    assert gateway.stop() in (0, -9), gateway.log.read_text()  # a test may have killed it
    assert "Traceback" not in gateway.log.read_text()


def authorized(url: str, **headers: str) -> httpx2.Response:
    with httpx2.Client(base_url=url, timeout=30) as client:
        return client.get(
            "/api/info", headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


def test_the_first_key_closes_and_the_last_one_opens(keyless: Gateway) -> None:
    url = keyless.url
    assert authorized(url).status_code == 200
    with tenants.client(url, None) as client:
        made = client.post("/api/keys", json={"name": "first", "scopes": ["admin"], "owner": "ops"})
        assert made.status_code == 201
        key = made.json()["key"]
        assert_problem(client.get("/api/keys"), 401, "unauthorized")
        assert client.get("/healthz").status_code == 200
    with tenants.client(url, key) as admin:
        listed = admin.get("/api/keys").json()["keys"]
        assert [one["name"] for one in listed] == ["first"]
        assert listed[0] == {name: value for name, value in made.json().items() if name != "key"} | {
            "last_used_at": listed[0]["last_used_at"]
        }
        assert listed[0]["last_used_at"] is not None
        second = admin.post("/api/keys", json={}).json()
        assert second["owner"] == second["id"], "a tenant of its own"
        assert second["scopes"] == ["execute"]
        assert second["key"].startswith(second["prefix"])
        assert authorized(url, authorization=f"Bearer {second['key']}").status_code == 200
        assert admin.delete(f"/api/keys/{second['id']}").status_code == 204
        assert authorized(url, authorization=f"Bearer {second['key']}").status_code == 401
        assert_problem(admin.delete(f"/api/keys/{second['id']}"), 404, "key-not-found")
        assert admin.delete(f"/api/keys/{made.json()['id']}").status_code == 204
    assert authorized(url).status_code == 200


def test_how_a_key_is_sent(keyless: Gateway) -> None:
    url = keyless.url
    with tenants.client(url, None) as client:
        key = client.post("/api/keys", json={}).json()["key"]
        e2b = client.post("/api/keys", json={"e2b": True}, headers={"x-api-key": key})
        assert_problem(e2b, 403, "forbidden", scope="admin")
        assert authorized(url, authorization=f"Bearer {key}").status_code == 200
        assert authorized(url, authorization=f"bearer  {key}").status_code == 200
        assert authorized(url, x_api_key=key).status_code == 200
        assert authorized(url, authorization=f"Bearer {key}", x_api_key=key).status_code == 200
        for headers in (
            {"authorization": f"Bearer {key}", "x-api-key": "oh_other"},
            {"authorization": f"Basic {key}"},
            {"authorization": key},
            {"authorization": "Bearer"},
            {"x-api-key": ""},
            {"x-api-key": key[:-1]},
            {"x-api-key": key + "A"},
            {"x-api-key": key.swapcase()},
            {"authorization": "Bearer " + "x" * 20_000},
            {"x-api-key": hashlib.sha256(key.encode()).hexdigest()},
        ):
            assert authorized(url, **headers).status_code == 401, headers
        assert client.get(f"/api/info?api_key={key}").status_code == 401


def test_keys_of_the_command_line_are_seen_within_a_second(keyless: Gateway, home: Path) -> None:
    url = keyless.url
    key = tenants.tenant(home, "alice", "execute")
    took_s = [tenants.until(lambda: authorized(url).status_code == 401)]
    assert authorized(url, authorization=f"Bearer {key}").status_code == 200
    another, row = make_key(owner="alice", e2b=True)
    assert len(another) == 4 + 40
    tenants.store_keys(home, row)
    took_s.append(tenants.until(lambda: authorized(url, x_api_key=another).status_code == 200))
    assert tenants.revoke(home, row.id)
    took_s.append(tenants.until(lambda: authorized(url, x_api_key=another).status_code == 401))
    assert authorized(url, authorization=f"Bearer {key}").status_code == 200
    assert min(took_s) < 3, "this machine may stand still once, and not at each"


def test_an_expired_key_is_of_no_use(keyless: Gateway) -> None:
    with tenants.client(keyless.url, None) as client:
        made = client.post("/api/keys", json={"expires_in_s": 1.0, "scopes": ["admin"]}).json()
        began_s = time.monotonic()
        with tenants.client(keyless.url, made["key"]) as admin:
            assert admin.get("/api/keys").json()["keys"][0]["state"] == "active"
            tenants.until(lambda: admin.get("/api/info").status_code == 401)
        assert time.monotonic() - began_s > 0.8
        # It was not revoked: a server does not open itself because time passes.
        assert_problem(client.get("/api/info"), 401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": "execute"}, "scopes"),
        ({"owner": "a/b"}, "owner"),
        ({"owner": "a\nb"}, "owner"),
        ({"owner": "x" * 65}, "owner"),
        ({"name": "x" * 256}, "name"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 1e300}, "expires_in_s"),
        ({"limits": {"max_sessions": 0}}, "limits.max_sessions"),
        ({"limits": {"max_memory_mb": 1}}, "limits.max_memory_mb"),
        ({"limits": {"speed": 1}}, "limits.speed"),
        ({"key": "oh_mine"}, "key"),
    ],
)
def test_a_key_that_cannot_be_made(client: httpx2.Client, body: dict[str, Any], field: str) -> None:
    assert_problem(client.post("/api/keys", json=body), 422, "invalid-request", field=field)
    assert client.get("/api/keys").json() == {"keys": []}


def test_a_key_is_nowhere_but_in_the_answer_that_made_it(
    own_supervisor: SupervisorHandle, keyless: Gateway, home: Path
) -> None:
    with tenants.client(keyless.url, None) as client:
        key = client.post("/api/keys", json={"scopes": ["admin", "execute"]}).json()["key"]
    secret = key.removeprefix("oh_")[5:]
    with tenants.client(keyless.url, key) as admin:
        shown = admin.post("/api/execute", json={"code": "import os; str(dict(os.environ))"}).text
        shown += admin.get("/api/keys").text + admin.get("/api/info").text + admin.get("/api/usage").text
        shown += admin.post("/api/sessions", json={"x": 1}).text
        # with the key as the client's own mistake, too
        admin.get(f"/api/nothing?key={key}")
        authorized(keyless.url, authorization=f"Basic {key}")
    log = keyless.log.read_text()
    assert "/api/nothing" in log, "the control: requests are logged"
    assert secret not in shown
    assert secret not in log
    assert hashlib.sha256(key.encode()).hexdigest() not in log
    stored = b"".join(path.read_bytes() for path in (home / "state").rglob("*") if path.is_file())
    assert hashlib.sha256(key.encode()).digest() in stored, "the control: its digest is stored"
    assert secret.encode() not in stored
    keyless.kill()
    with Gateway(own_supervisor.path, home) as again:
        assert authorized(again.url).status_code == 401
        assert authorized(again.url, x_api_key=key).status_code == 200
        assert again.stop() == 0
    with Gateway(own_supervisor.path, home) as third, tenants.client(third.url, key) as admin:
        assert admin.get("/api/keys").json()["keys"][0]["last_used_at"] is not None


def test_nothing_listens_for_others_without_a_key(own_supervisor: SupervisorHandle, home: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ONEHOP_")}
    variables |= {"ONEHOP_HOME": str(home), "ONEHOP_HOST": "0.0.0.0", "ONEHOP_PORT": "0"}
    command = [sys.executable, "-m", "onehop.wires", own_supervisor.path]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "'0.0.0.0' is not a loopback address" in done.stderr
    assert "onehop keys create" in done.stderr
    key = tenants.tenant(home, "alice")
    with Gateway(own_supervisor.path, home, host="0.0.0.0", allowed_hosts="onehop.example") as gateway:
        url = f"http://127.0.0.1:{gateway.port}"
        assert authorized(url, authorization=f"Bearer {key}").status_code == 200
        assert authorized(url, authorization=f"Bearer {key}", host="onehop.example").status_code == 200
        assert authorized(url, authorization=f"Bearer {key}", host="10.0.0.1").status_code == 403
        with tenants.client(url, key) as client:
            assert client.get("/healthz").status_code == 200
        key_id = _only_key(home)
        assert tenants.revoke(home, key_id)
        # With the last key gone it does not open for everybody, as it would on a loopback address.
        tenants.until(lambda: authorized(url, authorization=f"Bearer {key}").status_code == 401)
        assert authorized(url).status_code == 401


def _only_key(home: Path) -> str:
    from onehop.store import keys
    from onehop.store.database import open_database

    engine = open_database("", home / "state")
    with engine.connect() as connection:
        (row,) = keys.changed(connection, 0)
    engine.dispose()
    return row.id
