"""Figures for Prometheus and the log: true, bounded, and nothing that a user writes can forge a line."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onehop import __version__
from onehop.api.logs import JsonFormatter, TextFormatter, request_id
from onehop.api.metrics import Requests
from onehop.environments import Environment
from tests.api import tenants
from tests.api.conftest import start_supervisor
from tests.api.gateway import Gateway

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+|\+Inf)')


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """A strict reading of the text format: every sample below the TYPE of its family, none twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    kinds: dict[str, str] = {}
    current = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, current, kind = line.split(" ")
            assert current not in kinds, "a family in two pieces"
            kinds[current] = kind
            continue
        match = LINE.fullmatch(line)
        assert match is not None, line
        base = match[1]
        if kinds[current] == "histogram":
            base = re.sub("_(bucket|sum|count)$", "", base)
        assert base == current, line
        labels = frozenset(re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        assert (match[1], labels) not in found, line
        found[match[1], labels] = float(match[3])
    return found


def value(figures: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return figures.get((name, frozenset(labels.items())), 0.0)


def scrape(client: httpx2.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(response.text)


def test_what_happened_is_counted(client: httpx2.Client, session_id: str) -> None:
    path = "/api/sessions/{session_id}/execute"
    before = scrape(client)
    for code in ("1", "1 / 0", "2"):
        assert client.post(f"/api/sessions/{session_id}/execute", json={"code": code}).status_code == 200
    assert client.post(f"/api/sessions/{session_id}/execute", json={}).status_code == 422
    after = scrape(client)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("onehop_requests_total", method="POST", route=path, status="200") == 3
    assert grown("onehop_requests_total", method="POST", route=path, status="422") == 1
    assert grown("onehop_requests_total", method="GET", route="/metrics", status="200") == 1
    assert grown("onehop_executions_total", status="ok") == 2
    assert grown("onehop_executions_total", status="error") == 1
    duration = "onehop_request_duration_seconds"
    assert grown(f"{duration}_count", method="POST", route=path) == 4
    assert grown(f"{duration}_bucket", method="POST", route=path, le="+Inf") == 4
    assert 0 < grown(f"{duration}_sum", method="POST", route=path) < 60
    assert value(after, "onehop_sessions") >= 1
    assert value(after, "onehop_supervisor_up") == 1
    assert value(after, "onehop_info", version=__version__) == 1
    assert value(after, "onehop_pool_target", environment="default") >= 1
    assert value(after, "onehop_sandboxes_assigned") >= 1
    assert value(after, "process_resident_memory_bytes") > 1e7
    assert 0 <= value(after, "onehop_store_lag_seconds") < 60


def test_buckets_grow(client: httpx2.Client) -> None:
    figures = scrape(client)
    series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for (name, labels), count in figures.items():
        if name == "onehop_request_duration_seconds_bucket":
            bound = float(dict(labels)["le"])
            others = frozenset(label for label in labels if label[0] != "le")
            series.setdefault(others, []).append((bound, count))
    assert series
    for buckets in series.values():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts)


def test_clients_add_no_series(client: httpx2.Client) -> None:
    scrape(client)
    for number in range(3):
        client.get(f"/nothing/{number}")
        client.request(f"BREW{number}", "/healthz")
        client.get(f"/api/sessions/ses_{number}")
    before = len(scrape(client))
    for number in range(3, 30):
        client.get(f"/nothing/{number}")
        client.request(f"BREW{number}", "/healthz")
        client.get(f"/api/sessions/ses_{number}")
    assert len(scrape(client)) == before


def test_series_by_hand() -> None:
    requests = Requests()
    for duration_s in (0.0005, 0.001, 0.0011, 100.0):
        requests.observe("GET", "/a", 200, duration_s)
    requests.observe("GET", "", 404, 0.5)
    requests.observe('X"\n', "/a", 405, 0.5)
    figures = parsed("".join(requests.families()))
    bucket = "onehop_request_duration_seconds_bucket"
    assert value(figures, bucket, method="GET", route="/a", le="0.001") == 2
    assert value(figures, bucket, method="GET", route="/a", le="0.0025") == 3
    assert value(figures, bucket, method="GET", route="/a", le="60") == 3
    assert value(figures, bucket, method="GET", route="/a", le="+Inf") == 4
    assert value(figures, "onehop_requests_total", method="GET", route="other", status="404") == 1
    assert value(figures, "onehop_requests_total", method="other", route="/a", status="405") == 1


@pytest.fixture(scope="module")
def logging_gateway(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("logs")
    with start_supervisor(environment) as supervisor:
        gateway = Gateway(supervisor.path, home, log_format="json", access_log="true")
        yield gateway
        assert gateway.stop() == 0


def lines(gateway: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.log.read_text().splitlines()]


def test_every_request_is_a_line_with_its_ids(logging_gateway: Gateway) -> None:
    with tenants.client(logging_gateway.url, None) as client:
        session = client.post("/api/sessions", json={}).json()["id"]
        answer = client.post(f"/api/sessions/{session}/execute", json={"code": "'s3cret'"})
        forged = 'x"\n{"level": "error", "message": "forged"}\r\x1b[2J\u202e'
        client.get("/api/sessions/" + "".join(f"%{byte:02x}" for byte in forged.encode()))
        client.get("/" + "a" * 20_000)
        assert client.delete(f"/api/sessions/{session}").status_code == 204
    found = {line["request"]: line for line in lines(logging_gateway) if line["logger"] == "onehop.access"}
    line = found[answer.headers["x-request-id"]]
    assert line["level"] == "debug"
    assert line["message"] == f"POST /api/sessions/{session}/execute"
    assert line["route"] == "/api/sessions/{session_id}/execute"
    assert (line["status"], line["session"], line["execution"]) == (200, session, answer.json()["id"])
    assert 0 < line["duration_ms"] < 60_000
    assert len(found) == 5
    text = logging_gateway.log.read_text()
    assert "s3cret" not in text
    assert max(map(len, text.splitlines())) < 5000
    assert not set(text) & set("\r\x1b\u202e")
    assert not [one for one in lines(logging_gateway) if one["message"] == "forged"]


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("onehop.test", logging.WARNING, __file__, 1, message, arguments, None)
    made.__dict__.update(fields)
    return made


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_record_is_one_line_of_bounded_length(formatter: logging.Formatter) -> None:
    ugly = "".join(map(chr, range(0x20))) + "\x7f\x85\u2028\u202e\ud800" + "x" * 100_000
    made = record("%s", ugly, session=ugly)
    text = formatter.format(made)
    assert len(text.splitlines()) == 1
    assert len(text) < 8000
    assert text.isprintable()
    token = request_id.set("req_1")
    try:
        assert "req_1" in formatter.format(record("with a request"))
    finally:
        request_id.reset(token)


def test_a_traceback_cannot_forge_a_line(tmp_path: Path) -> None:
    try:
        raise ValueError("first\nERROR onehop.api forged\x1b[2J")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    text = TextFormatter().format(made)
    assert all(line.startswith("    ") for line in text.splitlines()[1:])
    assert "\x1b" not in text
    document = json.loads(JsonFormatter().format(made))
    assert "ValueError: first" in document["traceback"]
    assert len(JsonFormatter().format(made).splitlines()) == 1
