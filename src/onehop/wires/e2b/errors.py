"""Errors as E2B's clients read them: of the API, of the proxy in front of a sandbox, and of remote calls."""

from __future__ import annotations

from onehop import errors
from onehop.api.asgi import Header, encode_json
from onehop.api.mounts import Refusal
from onehop.wires.process import retry_after

_JSON: Header = (b"content-type", b"application/json")

CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    409: "already_exists",
    413: "resource_exhausted",
    429: "resource_exhausted",
    501: "unimplemented",
    503: "unavailable",
    504: "deadline_exceeded",
}
"""Connect's code for a status (https://connectrpc.com/docs/protocol#error-codes); `internal` for others."""


class UnsupportedError(errors.ProblemError):
    status, type, title = 501, "unsupported", "E2B has this, and here it does not exist"


def refuse(error: errors.ProblemError, request_id: str) -> Refusal:
    """Of the API that makes and finds sandboxes."""
    status = 404 if isinstance(error, errors.SessionEndedError) else _status(error)
    return _refusal(status, error)


def refuse_inside(error: errors.ProblemError, request_id: str) -> Refusal:
    """Of what is inside a sandbox: for one that is gone the proxy in front of it answers."""
    if isinstance(error, errors.SessionNotFoundError | errors.SessionEndedError):
        return _refusal(502, error, "The sandbox was not found")
    if isinstance(error, errors.QuotaExceededError):
        return _refusal(507, error)
    return _refusal(_status(error), error)


def refuse_call(error: errors.ProblemError, request_id: str) -> Refusal:
    """Of a remote call; the proxy does not speak its language."""
    if isinstance(error, errors.SessionNotFoundError | errors.SessionEndedError):
        return refuse_inside(error, request_id)
    code = call_error(error)
    return Refusal(_status(error), encode_json(code), (_JSON, *retry_after(error)))


def call_error(error: errors.ProblemError) -> dict[str, str]:
    """Connect's error for it."""
    return {"code": CODES.get(_status(error), "internal"), "message": error.detail}


def _status(error: errors.ProblemError) -> int:
    """E2B has no 422, and no 410 for a thing inside a sandbox."""
    return {422: 400, 405: 404, 410: 404, 415: 400}.get(error.status, error.status)


def _refusal(status: int, error: errors.ProblemError, message: str = "") -> Refusal:
    message = f"{message}: {error.detail}" if message else error.detail
    return Refusal(status, encode_json({"code": status, "message": message}), (_JSON, *retry_after(error)))
