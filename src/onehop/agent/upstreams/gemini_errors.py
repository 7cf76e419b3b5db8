"""What Google's documents of errors mean: {"error": {"code", "message", "status", "details"}}, or a list of one.

Sources: https://ai.google.dev/gemini-api/docs/troubleshooting and https://google.aip.dev/193.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from onehop.agent.upstreams.failures import MAX_MESSAGE
from onehop.errors import (
    ContextOverflowError,
    ModelNotFoundError,
    ProblemError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)

_OVERFLOW = re.compile(
    r"exceeds the maximum (number of )?(input )?tokens|input token count|maximum context", re.IGNORECASE
)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")
_KEY_REASONS = ("API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "CONSUMER_SUSPENDED")
CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def meaning(status: int, body: bytes) -> ProblemError | None:
    """The error for an answer of that status; None when its document says nothing more."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return of_document(status, document)


def of_document(status: int, document: Any) -> ProblemError | None:
    """As `meaning`, for what was JSON; amid a stream the status is 200 and the document has its own."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return None
    name, message, code = error.get("status"), error.get("message"), error.get("code")
    if status == 200:
        status = code if type(code) is int else CODES.get(str(name), 500)
    given = error.get("details")
    details = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    if not isinstance(message, str) or not message:
        return None
    shown = message[:MAX_MESSAGE]
    if any(one.get("reason") in _KEY_REASONS for one in details) or (
        status == 400 and "api key not valid" in message.lower()
    ):
        return UpstreamAuthenticationError("the model's server refused the operator's key")
    if status in (401, 403):
        return None
    if status == 404:
        return ModelNotFoundError(shown) if "model" in message.lower() else None
    if status == 429:
        return UpstreamBusyError(shown, retry_after_s=_delay_s(details))
    if status == 503:
        return UpstreamBusyError(shown)
    if status in (408, 504):
        return UpstreamTimeoutError(shown)
    if status in (400, 413) and _OVERFLOW.search(message):
        return ContextOverflowError(shown)
    if 400 <= status < 500:
        return UpstreamRefusedError(shown)
    return UpstreamError(shown)


def _delay_s(details: list[dict[str, Any]]) -> float | None:
    """Seconds of google.rpc.RetryInfo."""
    for one in details:
        found = _SECONDS.fullmatch(str(one.get("retryDelay", "")))
        if found:
            return min(float(found[1]), 86400.0)
    return None
