"""What the documents of errors mean that servers of OpenAI's kind send.

OpenAI: {"error": {"message", "type", "code", "param"}}; vLLM the same or {"object": "error", "message"}; llama.cpp
{"error": {"code": 400, "type": "exceed_context_size_error"}}; Ollama {"error": "text"}; FastAPI {"detail": …}.
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
)

_OVERFLOW = re.compile(
    r"context[ _](length|window|size)|maximum (context|prompt)|prompt is too long|too many (input )?tokens"
    r"|input (is )?too long|exceeds? the (available|model'?s?) (context|maximum)",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"model\b.{0,300}?(not found|does not exist|not exist|unknown)|(no such|unknown) model|not a valid model",
    re.IGNORECASE,
)
_SPENT = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")


def meaning(status: int, body: bytes) -> ProblemError | None:
    """The error for an answer of that status; None when its document says nothing."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return of_document(status, document)


def of_document(status: int, document: Any) -> ProblemError | None:
    """As `meaning`, for what was JSON; also for an error amid a stream, whose status is then 200."""
    message, code, kind = _parts(document)
    if not message and not code:
        return None
    if status == 200:  # the document's own number, where it has one
        status = int(code) if code.isdigit() and 400 <= int(code) < 600 else 502
    shown = message[:MAX_MESSAGE] or code
    if code in _SPENT:
        return UpstreamAuthenticationError("the account at the model's server has no credit left")
    if status in (401, 402, 403) or code == "invalid_api_key":
        return None if status in (401, 402, 403) else UpstreamAuthenticationError("the key was refused")
    if code == "context_length_exceeded" or "exceed_context" in kind or "exceed_context" in code:
        return ContextOverflowError(shown)
    if status in (400, 413, 422, 500, 502) and _OVERFLOW.search(message):
        return ContextOverflowError(shown)
    if code == "model_not_found" or (status in (400, 404) and _UNKNOWN.search(message)):
        return ModelNotFoundError(shown)
    if status == 429 or code in ("rate_limit_exceeded", "server_overloaded", "overloaded_error"):
        return UpstreamBusyError(shown)
    if status in (503, 529):
        return UpstreamBusyError(shown)
    if status in (400, 409, 413, 415, 422, 451):
        return UpstreamRefusedError(shown)
    if status in (404, 405, 408, 504):
        return None
    return UpstreamError(shown)


def _parts(document: Any) -> tuple[str, str, str]:
    """Message, code and type."""
    if not isinstance(document, dict):
        return "", "", ""
    error = document.get("error")
    if isinstance(error, str):
        return error, "", ""
    if not isinstance(error, dict):
        error = document
        if "message" not in error and isinstance(error.get("detail"), str):
            return error["detail"], "", ""
    message, code, kind = error.get("message"), error.get("code"), error.get("type")
    return (
        message if isinstance(message, str) else "",
        str(code) if isinstance(code, str | int) and not isinstance(code, bool) else "",
        kind if isinstance(kind, str) else "",
    )
