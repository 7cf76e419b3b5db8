"""A supervisor that is stopped for a while: who asks waits or is told to come again, and then all goes on."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx2

from tests.faults.deaths import session, value
from tests.faults.server import FaultServer, post


def supervisor_stopped(server: FaultServer, client: httpx2.Client, stop_s: float) -> None:
    """Whoever asks meanwhile waits or is told to come again; afterwards everything is as it was."""
    path = session(client)
    value(client, path, "kept = 41")
    answers: list[httpx2.Response] = []

    def ask(url: str, body: dict[str, Any]) -> None:
        with server.client() as another:
            answers.append(post(another, url, body))

    requests = [
        (f"{path}/execute", {"code": "kept + 1"}),
        ("/api/execute", {"code": "6 * 7"}),
        ("/api/sessions", {}),
    ]
    threads = [threading.Thread(target=ask, args=one) for one in requests]
    with server.stopped(server.supervisor()):
        started_s = time.monotonic()
        for thread in threads:
            thread.start()
        while time.monotonic() - started_s < stop_s:
            assert client.get("/healthz").status_code == 200
            assert client.get(path).status_code == 200
            time.sleep(0.05)
    for thread in threads:
        thread.join(60)
    assert sorted(one.status_code for one in answers) == [200, 200, 201], [one.text for one in answers]
    assert value(client, path, "kept") == "41"
    made = next(one.json()["id"] for one in answers if one.status_code == 201)
    for one in (path, f"/api/sessions/{made}"):
        assert client.delete(one).status_code == 204
