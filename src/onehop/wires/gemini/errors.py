"""Problems in Google's shape: https://google.aip.dev/193, with the codes of google.rpc.Code."""

from __future__ import annotations

import math
from typing import Any

from onehop import errors
from onehop.api.asgi import CHALLENGE, JSON, Header, encode_json
from onehop.api.mounts import Refusal

NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}
"""By the status of HTTP."""


def refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    """For a Mount."""
    headers: list[Header] = [JSON]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if error.status == 401:
        headers.append(CHALLENGE)
    elif error.status == 405:
        headers.append((b"allow", ", ".join(error.extra["allow"]).encode()))
    status, _ = _code(error)
    return Refusal(status, encode_json(document(error)), tuple(headers))


def document(error: errors.ProblemError) -> dict[str, Any]:
    """The whole document, of an answer or amid a stream."""
    status, name = _code(error)
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": error.type.replace("-", "_").upper(),
            "domain": "onehop",
        }
    ]
    if field := error.extra.get("field"):
        violation = {"field": field, "description": error.detail}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    if error.retry_after_s is not None:
        delay = {"retryDelay": f"{error.retry_after_s:g}s"}
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", **delay})
    return {"error": {"code": status, "message": error.detail, "status": name, "details": details}}


def _code(error: errors.ProblemError) -> tuple[int, str]:
    """The status of HTTP and Google's name for it, where they are not those of our own."""
    if isinstance(error, errors.SessionEndedError):
        return 400, "FAILED_PRECONDITION"
    if isinstance(error, errors.InvalidRequestError | errors.UnsupportedMediaTypeError):
        return 400, "INVALID_ARGUMENT"
    return error.status, NAMES.get(error.status, "UNKNOWN")
