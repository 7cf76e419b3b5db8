"""`onehop bench`: figures of a real server, and nothing left on it."""

from __future__ import annotations

import json
from pathlib import Path

from onehop.cli.bench import percentile
from tests.cli.processes import Server, onehop


def test_it_measures_and_leaves_nothing(shared_server: Server, tmp_path: Path) -> None:
    arguments = ("bench", "--seconds", "0.2", "--concurrency", "2", "--json", "--url", shared_server.url)
    document = json.loads(onehop(*arguments, cwd=tmp_path).stdout)
    assert document["url"] == shared_server.url
    names = [row["name"] for row in document["rows"]]
    assert len(names) == 6
    assert names[0] == "`1 + 1` in a session"
    assert names[-1] == "`1 + 1` in 2 sessions at once"
    for row in document["rows"]:
        assert row["count"] > 0
        assert (row["errors"], row["error"]) == (0, "")
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert row["per_s"] > 0
    assert shared_server.call("GET", "/api/sessions") == {"sessions": []}


def test_a_table_for_people(shared_server: Server, tmp_path: Path) -> None:
    text = onehop("bench", "--seconds", "0.05", "--url", shared_server.url, cwd=tmp_path).stdout
    assert "times in ms with client and connection" in text
    assert "p99" in text.splitlines()[2]
    assert len(text.splitlines()) == 3 + 6


def test_wrong_arguments(tmp_path: Path) -> None:
    assert "--seconds: expected a time" in onehop("bench", "--seconds", "x", cwd=tmp_path, code=2).stderr
    assert "from 1 to 64" in onehop("bench", "--concurrency", "0", cwd=tmp_path, code=2).stderr


def test_percentiles() -> None:
    times_ms = [float(one) for one in range(1, 101)]
    assert [percentile(times_ms, one) for one in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 99) == 7.0
    assert percentile([], 50) is None
