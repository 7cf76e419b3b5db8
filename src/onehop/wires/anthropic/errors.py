"""Problems in Anthropic's shape: https://docs.claude.com/en/api/errors."""

from __future__ import annotations

import math
from typing import Any

from onehop import errors
from onehop.api.asgi import CHALLENGE, JSON, Header, encode_json
from onehop.api.mounts import Refusal

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""By status; everything else is an `api_error`."""


def refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    """For a Mount."""
    headers: list[Header] = [JSON, (b"request-id", request_id.encode())]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if error.status == 401:
        headers.append(CHALLENGE)
    elif error.status == 405:
        headers.append((b"allow", ", ".join(error.extra["allow"]).encode()))
    body = encode_json({**document(error), "request_id": request_id})
    return Refusal(status(error), body, tuple(headers))


def document(error: errors.ProblemError) -> dict[str, Any]:
    """As a body, and as an event amid a stream."""
    kind = TYPES.get(status(error))
    if kind is None:
        kind = "invalid_request_error" if status(error) < 500 else "api_error"
    return {"type": "error", "error": {"type": kind, "message": error.detail}}


def status(error: errors.ProblemError) -> int:
    """Where Anthropic answers with another status than we do: an expired container is a wrong request."""
    if isinstance(error, errors.InvalidRequestError | errors.SessionEndedError):
        return 400
    return error.status
