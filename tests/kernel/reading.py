"""What the tests of the kernel read out of an outcome."""

from __future__ import annotations

from onehop import protocol
from tests.driver import Outcome


def parts(outcome: Outcome) -> list[tuple[str, str]]:
    """The events as (kind, text), neighbours of one stream joined, without the end; a result by its text/plain."""
    found: list[tuple[str, str]] = []
    for event in outcome.events:
        if event.kind in ("stdout", "stderr"):
            text = event.payload.decode("utf-8", "replace")
            if found and found[-1][0] == event.kind:
                text = found.pop()[1] + text
            found.append((event.kind, text))
        elif event.kind == "result":
            found.append(("result", protocol.decode_result(event.payload).text.get("text/plain", "")))
    return found


def plain(outcome: Outcome) -> list[str]:
    """text/plain of each result."""
    return [result.get("text/plain", "") for result in outcome.results]


def kinds(outcome: Outcome) -> list[set[str]]:
    """MIME types of each result."""
    return [set(result) for result in outcome.results]


def value(outcome: Outcome) -> str:
    """text/plain of the last expression of a cell that must have ended well."""
    assert outcome.status == "ok", outcome.document()
    return outcome.results[-1]["text/plain"]


def traceback(outcome: Outcome) -> str:
    assert outcome.error is not None, outcome.document()
    return outcome.error["traceback"]
