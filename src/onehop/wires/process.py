"""An execution's outcome in the terms of a process, for the protocols that know nothing else."""

from __future__ import annotations

import msgspec

from onehop.sessions.answers import Answer

INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


class Outcome(msgspec.Struct, kw_only=True):
    """`stdout` ends with the texts of what was displayed, `stderr` with why it did not end by itself."""

    stdout: str
    stderr: str
    return_code: int


def outcome(answer: Answer) -> Outcome:
    """Of code or a command."""
    stdout, stderr = answer.stdout, answer.stderr
    shown = [text for one in answer.results if (text := one.get("text/plain"))]
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
