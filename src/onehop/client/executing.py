"""Running code: what all ways to run it share. The answer at once, with callbacks, or event by event."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onehop.client.follow import ACCEPT, Follower, start_and_wait
from onehop.client.requests import new_key, post
from onehop.client.results import Event, Output, Result
from onehop.client.steps import Call, Emit, Flow, Op, Request
from onehop.client.tools import OwnTools, once, results_request
from onehop.errors import OnehopError, UnreachableError

Content = str | bytes | Path
OnText = Callable[[str], object]
OnResult = Callable[[Output], object]


def file_fields(files: Mapping[str, Content] | None) -> dict[str, Any] | None:
    """`files` as the API has them: text as it is, everything else as base64."""
    if not files:
        return None
    return {path: _content(content) for path, content in files.items()}


def _content(content: Content) -> str | dict[str, str]:
    if isinstance(content, str):
        return content
    raw = content.read_bytes() if isinstance(content, Path) else bytes(content)
    return {"base64": base64.b64encode(raw).decode("ascii")}


def start_request(path: str, body: Mapping[str, Any], *, events: bool) -> Request:
    """The POST that starts an execution, with a key of its own, so that repeating it runs nothing twice."""
    return post(path, body, key={**new_key(), **(ACCEPT if events else {})})


def run(
    path: str,
    body: Mapping[str, Any],
    on_stdout: OnText | None,
    on_stderr: OnText | None,
    on_result: OnResult | None,
    give_up: Callable[[str], Op[object]],
    tools: OwnTools | None = None,
) -> Op[Result]:
    """The result; the callbacks get what they are for as it comes.

    Args:
        give_up: what to do when the caller stops waiting (Ctrl-C, a cancelled task, a callback that
            raises); gets the execution's id, which may be empty.
        tools: those of the client are run here.
    """
    follower: Follower | None = None
    try:
        if on_stdout is None and on_stderr is None and on_result is None:
            result = yield from start_and_wait(start_request(path, body, events=False))
            return result if tools is None else (yield from tools.answer(result))
        follower = Follower(start_request(path, body, events=True))
        return (yield from report(follower, on_stdout, on_stderr, on_result, tools))
    except GeneratorExit:
        raise
    except OnehopError:
        raise
    except BaseException:
        try:
            yield from give_up(follower.execution if follower else "")
        except OnehopError:
            pass  # it ended meanwhile, or nobody can be reached; the caller's own exception counts
        raise


def report(
    follower: Follower,
    on_stdout: OnText | None,
    on_stderr: OnText | None,
    on_result: OnResult | None,
    tools: OwnTools | None = None,
) -> Op[Result]:
    """Follows to the end and calls back on the way."""
    while events := (yield from follower.more()):
        for event in events:
            if event.result is not None:
                return event.result
            if event.kind == "stdout" and on_stdout is not None:
                yield Call(on_stdout, event.text)
            elif event.kind == "stderr" and on_stderr is not None:
                yield Call(on_stderr, event.text)
            elif event.output is not None and on_result is not None:
                yield Call(on_result, event.output)
            elif event.tool_calls:
                outcomes = (yield from tools.outcomes(event.tool_calls)) if tools is not None else []
                if not outcomes:
                    return (yield from once(follower.execution))
                follower.resume(results_request(follower.execution, outcomes))
    raise UnreachableError("the execution's last event is missing")


def emit(follower: Follower) -> Flow[Event]:
    """All events; whoever stops listening stops nothing else."""
    while events := (yield from follower.more()):
        for event in events:
            yield Emit(event)
