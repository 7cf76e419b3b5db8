"""How long sessions live: changed on the way, pinned, extended, ended by time."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import httpx2
import pytest

from tests.api.test_bad_input import assert_problem


def create(client: httpx2.Client, **fields: Any) -> dict[str, Any]:
    response = client.post("/api/sessions", json=fields)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def change(client: httpx2.Client, session: str, **fields: Any) -> dict[str, Any]:
    response = client.patch(f"/api/sessions/{session}", json=fields)
    assert response.status_code == 200, response.text
    changed: dict[str, Any] = response.json()
    return changed


def left_s(session: dict[str, Any]) -> float:
    return datetime.fromisoformat(session["expires_at"]).timestamp() - time.time()


def until_gone(client: httpx2.Client, session: str, *, by_s: float) -> httpx2.Response:
    deadline = time.monotonic() + by_s
    while (response := client.get(f"/api/sessions/{session}")).status_code == 200:
        assert time.monotonic() < deadline, "the session does not end"
        time.sleep(0.05)
    return response


def test_idle_sessions_end(client: httpx2.Client) -> None:
    session = create(client, idle_timeout_s=0.3)["id"]
    gone = until_gone(client, session, by_s=10)
    assert_problem(gone, 410, "session-ended")
    assert gone.json()["reason"] == "expired"


def test_pinned_sessions_do_not(client: httpx2.Client) -> None:
    pinned = create(client, idle_timeout_s=0.3, pinned=True, max_age_s=60)
    other = create(client, idle_timeout_s=0.3)["id"]
    assert pinned["pinned"] is True
    assert 50 < left_s(pinned) <= 60
    until_gone(client, other, by_s=10)  # the reaper has looked since
    assert client.get(f"/api/sessions/{pinned['id']}").status_code == 200
    change(client, pinned["id"], pinned=False)
    until_gone(client, pinned["id"], by_s=10)


def test_ends_in(client: httpx2.Client) -> None:
    session = create(client, max_age_s=1000)
    assert 990 < left_s(change(client, session["id"], idle_timeout_s=5000)) <= 1000
    assert 90 < left_s(change(client, session["id"], ends_in_s=100)) <= 100
    longer = change(client, session["id"], ends_in_s=2000)
    assert 1990 < left_s(longer) <= 2000
    assert longer["max_age_s"] >= 2000
    # Nothing said keeps everything.
    assert 1990 < left_s(change(client, session["id"])) <= 2000
    change(client, session["id"], ends_in_s=0.2)
    until_gone(client, session["id"], by_s=10)


def test_a_change_counts_as_use(client: httpx2.Client) -> None:
    for _ in range(5):
        session = create(client, idle_timeout_s=1.5)["id"]
        began_s = changed_s = time.monotonic()
        while (now_s := time.monotonic()) < began_s + 3.5:  # more than twice its idle timeout
            answer = client.patch(f"/api/sessions/{session}", json={})
            if time.monotonic() - changed_s > 1.2:
                break  # we stood still ourselves: it has been idle, and this says nothing
            assert answer.status_code == 200, answer.text
            changed_s = now_s
            time.sleep(0.1)
        else:
            client.delete(f"/api/sessions/{session}")
            return
    raise AssertionError("this machine stands still for more than a second again and again")


def test_environment_variables_of_a_session(client: httpx2.Client) -> None:
    session = create(client, env={"REGION": "north", "TOKEN": "s3cret"})
    assert session["env"] == ["REGION", "TOKEN"]
    path = f"/api/sessions/{session['id']}"
    code = "import os; os.environ['REGION'], os.environ['TOKEN']"

    def run(**more: Any) -> str:
        answer = client.post(f"{path}/execute", json={"code": code, **more}).json()
        return str(answer["results"][0]["text/plain"])

    assert run() == "('north', 's3cret')"
    assert run(env={"REGION": "south"}) == "('south', 's3cret')"
    assert run() == "('north', 's3cret')"
    command = client.post(f"{path}/commands", json={"command": "echo $REGION $TOKEN"}).json()
    assert command["stdout"] == "north s3cret\n"
    assert client.post(f"{path}/contexts", json={"name": "second"}).status_code == 201
    assert run(context="second") == "('north', 's3cret')"
    assert "s3cret" not in client.get(path).text
    wrong = client.post("/api/sessions", json={"env": {"A=B": "x"}})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "env")


def test_metadata(client: httpx2.Client) -> None:
    session = create(client, metadata={"user": "ü", "run": "7"})
    assert session["metadata"] == {"user": "ü", "run": "7"}
    assert change(client, session["id"], metadata={"run": "8"})["metadata"] == {"run": "8"}
    assert change(client, session["id"])["metadata"] == {"run": "8"}
    listed = {one["id"]: one for one in client.get("/api/sessions").json()["sessions"]}
    assert listed[session["id"]]["metadata"] == {"run": "8"}
    client.delete(f"/api/sessions/{session['id']}")


@pytest.mark.parametrize(
    "bad",
    [
        {"ends_in_s": 0},
        {"ends_in_s": -1},
        {"ends_in_s": 1e12},
        {"idle_timeout_s": 1e12},
        {"max_age_s": 0},
        {"pinned": "yes"},
        {"metadata": {"a": 1}},
        {"memory_mb": 100},
        {"owner": "me"},
    ],
)
def test_bad_changes(client: httpx2.Client, session_id: str, bad: dict[str, Any]) -> None:
    before = client.get(f"/api/sessions/{session_id}").json()
    assert_problem(client.patch(f"/api/sessions/{session_id}", json=bad), 422, "invalid-request")
    after = client.get(f"/api/sessions/{session_id}").json()
    assert {**after, "expires_at": ""} == {**before, "expires_at": ""}


def test_too_much_metadata(client: httpx2.Client, session_id: str) -> None:
    response = client.patch(f"/api/sessions/{session_id}", json={"metadata": {"a": "b" * 20_000}})
    assert_problem(response, 413, "too-large")


def test_unknown_session(client: httpx2.Client) -> None:
    assert_problem(client.patch("/api/sessions/ses_none", json={}), 404, "session-not-found")


def test_what_runs_is_named(client: httpx2.Client, session_id: str) -> None:
    path = f"/api/sessions/{session_id}"
    body = {"code": "import time; print('x', flush=True); time.sleep(60)"}
    headers = {"Accept": "text/event-stream"}
    with client.stream("POST", f"{path}/execute", json=body, headers=headers) as response:
        next(response.iter_text())
        session = client.get(path).json()
        assert session["status"] == "busy"
        assert session["executions"] == [response.headers["onehop-execution-id"]]
        client.post(f"{path}/interrupt", json={})
