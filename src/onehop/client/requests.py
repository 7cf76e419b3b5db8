"""From a request to its answer or its exception: what is tried again, for how long, and what is raised.

A request is repeated only if that cannot do a thing twice: it is safe or idempotent by its method, or it
carries a key that the server runs once.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from onehop.client.steps import KEY, Op, Pause, Reply, Request, perform
from onehop.errors import (
    PROBLEMS,
    InvalidRequestError,
    NotFoundError,
    ProblemError,
    SessionEndedError,
    UnreachableError,
)

PATIENCE_S = 20.0
"""So long is a request repeated: a gateway that was killed is back by then."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
PREFIX = "urn:onehop:problem:"
JSON = {"Content-Type": "application/json"}
OCTETS = {"Content-Type": "application/octet-stream"}
IN_PROGRESS = "idempotency-in-progress"

_BY_TYPE = {problem.type: problem for problem in PROBLEMS}
_BY_STATUS: dict[int, type[ProblemError]] = {}
for _problem in PROBLEMS:
    _BY_STATUS.setdefault(_problem.status, _problem)


def new_key() -> dict[str, str]:
    """The header that makes a POST repeatable."""
    return {KEY: f"sdk-{secrets.token_hex(16)}"}


def path_of(*parts: str) -> str:
    """`parts` below /api, quoted; slashes inside a part stay."""
    # A client would resolve '..' by itself; the server shall see it, and refuse it.
    quoted = (
        "/".join(quote(name) if name.strip(".") else name.replace(".", "%2E") for name in part.split("/"))
        for part in parts
    )
    return "/".join(("/api", *quoted))


def post(
    path: str, body: Mapping[str, Any] | None = None, *, key: Mapping[str, str] | None = None
) -> Request:
    """A POST of JSON; None in `body` means left out. `key` makes it repeatable."""
    given = {name: value for name, value in (body or {}).items() if value is not None}
    try:
        raw = json.dumps(given, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"the request holds a lone surrogate, which cannot be sent: {error}"
        ) from None
    except ValueError as error:
        raise InvalidRequestError(f"the request holds a number that JSON does not have: {error}") from None
    return Request("POST", path, headers={**JSON, **(key or {})}, body=raw)


def send(request: Request) -> Op[Reply]:
    """The successful answer.

    Raises:
        ProblemError: the subclass of the problem's type.
        UnreachableError: no answer within PATIENCE_S, or at the first try if it must not be repeated.
    """
    waiting = Waiting()
    lost = False
    while True:
        try:
            reply = yield from perform(request)
            check(reply)
            return reply
        except UnreachableError as error:
            if not (request.repeatable or error.unsent) or not waiting.allows(error):
                raise
            lost = lost or not error.unsent
        except (NotFoundError, SessionEndedError):
            if lost and request.method == "DELETE":
                return Reply(204, {}, b"")  # the attempt whose answer was lost has done it
            raise
        except ProblemError as error:
            again = error.status == 503 and request.repeatable
            again = again or (error.type == IN_PROGRESS and not execution_under_way(error))
            if not again or not waiting.allows(error):
                raise
        yield Pause(waiting.next_pause_s())


def execution_under_way(error: ProblemError) -> str:
    """The execution that an earlier attempt with the same key has started, or nothing."""
    name = str(error.extra.get("execution") or "")
    return name if error.type == IN_PROGRESS and name.startswith("exe_") else ""


def get(path: str, params: Mapping[str, str | float | None] | None = None) -> Op[Any]:
    """The JSON that a GET answers; parameters that are None are left out."""
    given = {name: str(value) for name, value in (params or {}).items() if value is not None}
    reply = yield from send(Request("GET", path, params=given))
    return document(reply)


class Waiting:
    """How long to go on, with growing pauses."""

    def __init__(self) -> None:
        self._deadline_s = time.monotonic() + PATIENCE_S
        self._pause_s = FIRST_PAUSE_S
        self._asked_s = 0.0

    def allows(self, error: ProblemError | UnreachableError) -> bool:
        """Whether to try again after `error`."""
        if isinstance(error, UnreachableError) and error.unsent and not error.known:
            return False  # nobody was ever there: a wrong address, or no server
        self._asked_s = (isinstance(error, ProblemError) and error.retry_after_s) or 0.0
        return time.monotonic() + max(self._pause_s, self._asked_s) < self._deadline_s

    def next_pause_s(self) -> float:
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, self._pause_s * 2)
        return max(pause_s, self._asked_s)


def check(reply: Reply) -> None:
    """Raises the exception of an answer that is none of success.

    Raises:
        ProblemError: the document's type decides the class; of a type that is not known here, its status.
        UnreachableError: it is no document of onehop, but somebody's between us and it.
    """
    if reply.status < 400:
        return
    try:
        error = problem(json.loads(reply.body), reply.status)
    except (ValueError, KeyError, AttributeError, TypeError):
        passing = reply.status in (502, 503, 504)  # a proxy whose server is being started again
        raise UnreachableError(
            f"something answered with HTTP status {reply.status} that is no server of onehop; "
            "look at the address in ONEHOP_URL, and at proxies on the way",
            unsent=not passing,
            known=passing,
        ) from None
    after = reply.headers.get("retry-after", "")
    if after.isdigit():
        error.retry_after_s = float(after)
    raise error


def problem(document: Mapping[str, Any], status: int) -> ProblemError:
    """The exception of a problem document. Raises KeyError, AttributeError, TypeError for what is none."""
    given = dict(document)
    kind = given.pop("type").removeprefix(PREFIX)
    title, detail = given.pop("title"), given.pop("detail", "")
    given.pop("status", None)
    found = _BY_TYPE.get(kind) or _BY_STATUS.get(status, ProblemError)
    error = found(detail, **given)
    # On the object, because a newer server may know types that this class does not.
    error.type, error.title, error.status = kind, title, status
    return error


def document(reply: Reply) -> Any:
    """The JSON of an answer. Raises UnreachableError when it is none."""
    try:
        return json.loads(reply.body)
    except ValueError:
        raise UnreachableError("the answer is no JSON: this is no server of onehop") from None
