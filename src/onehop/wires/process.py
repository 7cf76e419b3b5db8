"""An execution's outcome in the terms of a process, for the protocols that know nothing else."""

from __future__ import annotations

import msgspec

from onehop.errors import ProblemError
from onehop.sessions.answers import Answer, ErrorInfo, ResultEvent, TextEvent
from onehop.sessions.run import Run

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""

PROMPT = "Out[1]: "
"""Of a shell that keeps no history, so that its cells are not counted."""


class Outcome(msgspec.Struct, kw_only=True):
    """`stdout` ends with the texts of what was displayed, `stderr` with why it did not end by itself."""

    stdout: str
    stderr: str
    return_code: int


def outcome(answer: Answer, *, results: bool = True) -> Outcome:
    """Of code or a command.

    Args:
        results: what was displayed is part of `stdout`; a script's last expression shows nothing.
    """
    stdout, stderr = answer.stdout, answer.stderr
    shown = [text for one in answer.results if results and (text := one.get("text/plain"))]
    if shown:
        stdout = "\n".join([*([stdout.rstrip("\n")] if stdout else []), *shown]) + "\n"
    if answer.error is not None:
        stderr += answer.error.traceback + "\n"
    if answer.status not in ("ok", "error"):
        stderr += f"{answer.status}: {answer.reason}\n" if answer.reason else f"{answer.status}\n"
    code = 0 if answer.status == "ok" else INTERRUPTED if answer.status == "interrupted" else 1
    if isinstance(answer.exit_code, int) and answer.exit_code:
        code = answer.exit_code
    if code and not stderr:
        stderr = f"it ended with exit status {code}\n"
    return Outcome(stdout=stdout, stderr=stderr, return_code=code)


class Transcript(msgspec.Struct):
    """What a cell wrote, as IPython's shell shows it on a terminal: `output` has both streams in their order."""

    output: str
    stdout: str
    stderr: str


def transcript(run: Run, answer: Answer) -> Transcript:
    """Of code or a command that has ended."""
    pieces: list[tuple[bool, str]] = []
    for kind, event in run.events:
        if isinstance(event, TextEvent):
            pieces.append((kind == "stderr", event.text))
        elif isinstance(event, ResultEvent) and (text := event.data.get("text/plain")):
            before = PROMPT + ("\n" if "\n" in text else "") if event.final else ""
            pieces.append((False, f"{before}{text}\n"))
        elif isinstance(event, ErrorInfo):
            pieces.append((False, event.traceback + "\n"))
    if answer.status not in ("ok", "error"):
        pieces.append((True, f"{answer.status}: {answer.reason}\n"))
    return Transcript(
        "".join(text for _, text in pieces),
        "".join(text for is_error, text in pieces if not is_error),
        "".join(text for is_error, text in pieces if is_error),
    )


def retry_after(error: ProblemError) -> list[tuple[bytes, bytes]]:
    """The header of an error that says when to try again."""
    if error.retry_after_s is None:
        return []
    return [(b"retry-after", b"%d" % max(1, round(error.retry_after_s)))]
