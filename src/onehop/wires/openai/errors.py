"""Problems in the shape of OpenAI: https://platform.openai.com/docs/guides/error-codes."""

from __future__ import annotations

import math
from typing import Any

from onehop import errors
from onehop.api.asgi import CHALLENGE, JSON, Header, encode_json
from onehop.api.mounts import Refusal

CODES: dict[type[errors.ProblemError], str] = {
    errors.UnauthorizedError: "invalid_api_key",
    errors.ModelNotFoundError: "model_not_found",
    errors.ContextOverflowError: "context_length_exceeded",
    errors.UnsupportedParameterError: "unsupported_parameter",
    errors.SessionEndedError: "container_expired",
    errors.SessionNotFoundError: "container_not_found",
    errors.TooManyError: "rate_limit_exceeded",
    errors.UpstreamBusyError: "rate_limit_exceeded",
}
"""Those that clients know; others are the problem's own type."""
STATUSES: dict[type[errors.ProblemError], int] = {
    errors.SessionEndedError: 404,
    errors.InvalidRequestError: 400,
}
"""Where OpenAI answers with another status than we do."""


def refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    """For a Mount."""
    headers: list[Header] = [JSON]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
    if error.status == 401:
        headers.append(CHALLENGE)
    elif error.status == 405:
        headers.append((b"allow", ", ".join(error.extra["allow"]).encode()))
    return Refusal(status(error), encode_json({"error": document(error)}), tuple(headers))


def document(error: errors.ProblemError) -> dict[str, Any]:
    """The `error` object, in a body and in a stream."""
    return {
        "message": error.detail,
        "type": _type(error),
        "param": error.extra.get("field"),
        "code": next((code for kind, code in CODES.items() if type(error) is kind), None)
        or error.type.replace("-", "_"),
    }


def status(error: errors.ProblemError) -> int:
    """As OpenAI answers it."""
    for kind, status in STATUSES.items():
        if isinstance(error, kind):
            return status
    return error.status


def _type(error: errors.ProblemError) -> str:
    code = status(error)
    if code == 401:
        return "authentication_error"
    if code == 403:
        return "permission_error"
    if code == 429:
        return "rate_limit_error"
    return "invalid_request_error" if code < 500 else "server_error"
