"""Several executions and commands in one request, each with an outcome of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onehop.client import executing
from onehop.client.core import Holder, SessionCore
from onehop.client.lambdas import Evaluation
from onehop.client.records import CommandInfo, record
from onehop.client.requests import PREFIX, document, new_key, post, problem, send
from onehop.client.results import Result
from onehop.client.steps import Op
from onehop.errors import ProblemError

Item = str | Mapping[str, Any]
Outcome = Result | CommandInfo | Evaluation | ProblemError


def batch(self: Holder, items: Sequence[Item], *, parallel: int | None = None) -> Op[list[Outcome]]:
    """Runs several things side by side; the outcomes are in the order of the items.

    An item that cannot be carried out has a ProblemError for its outcome, which is not raised.

    Args:
        items: code to run once, or what the API takes: `{"execute": {"code": …}}`, with `"session"` (a session
            or its id) in that session, `{"session": …, "command": {"command": …}}`, or
            `{"tool": name, "arguments": {…}}`. Items of the same session and context run one after the other.
            Files are given as in `run`. `{"lambda": {"code": …, "args": […]}}` has an Evaluation for its outcome.
        parallel: most that run at once.

    Raises:
        InvalidRequestError: an item cannot be run as asked; `field` in `extra` says which. None was run.
        UnreachableError: the connection broke for good.
    """
    asked = []
    for item in items:
        asked.append((yield from _item(item)))
    reply = yield from send(post("/api/batch", {"items": asked, "parallel": parallel}, key=new_key()))
    return [_outcome(one) for one in document(reply)["answers"]]


def _item(item: Item) -> Op[dict[str, Any]]:
    if isinstance(item, str):
        return {"execute": {"code": item}}
    asked = dict(item)
    session, code = asked.get("session"), asked.get("execute")
    if isinstance(session, SessionCore):
        yield from session._path()
        asked["session"] = session.id
    if isinstance(code, Mapping) and "files" in code:
        asked["execute"] = {**code, "files": executing.file_fields(code["files"]) or {}}
    return asked


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    if str(answer.get("type", "")).startswith(PREFIX):
        return problem(answer, int(answer["status"]))
    if "engine" in answer:
        return Evaluation.of(answer)
    return record(CommandInfo, answer) if "background" in answer else Result.of(answer)
