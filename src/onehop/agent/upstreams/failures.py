"""What a refusal of an upstream means: by its status where the vendor's document does not say more."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from onehop.errors import (
    ModelNotFoundError,
    ProblemError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)

MAX_WAIT_S = 86400.0
MAX_MESSAGE = 1000


def by_status(upstream: str, status: int) -> ProblemError:
    """The error for an answer whose body says nothing that we understand."""
    name = f"the upstream {upstream!r}"
    if status in (401, 403):
        return UpstreamAuthenticationError(f"{name} refused the operator's key (HTTP {status})")
    if status == 402:
        return UpstreamAuthenticationError(f"{name} wants to be paid first (HTTP 402)")
    if status == 404:
        return UpstreamError(f"{name} has nothing where its kind says (HTTP 404); is its `url` right?")
    if status in (408, 504):
        return UpstreamTimeoutError(f"{name} was too slow (HTTP {status})")
    if status in (429, 503, 529):
        return UpstreamBusyError(f"{name} takes no more requests now (HTTP {status})")
    if 300 <= status < 400:
        return UpstreamError(f"{name} redirects (HTTP {status}), which is not followed; is its `url` right?")
    if 400 <= status < 500:
        return UpstreamRefusedError(f"{name} refused the request (HTTP {status})")
    return UpstreamError(f"{name} failed (HTTP {status})")


def retriable(error: ProblemError) -> bool:
    """Whether the same request to the same upstream has a chance soon."""
    return isinstance(error, UpstreamBusyError) or type(error) is UpstreamError


def elsewhere(error: ProblemError) -> bool:
    """Whether another upstream may do better; a request that is wrong is wrong everywhere."""
    if type(error) is UpstreamRefusedError:
        return False
    return isinstance(error, UpstreamError | ModelNotFoundError)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an upstream asks to wait: `retry-after-ms`, or RFC 9110's Retry-After in both of its forms."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "").strip()
        if not value:
            return None
        if value[0].isdigit():
            return _bounded(float(value))
        at = parsedate_to_datetime(value)
        return _bounded((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float | None:
    if seconds != seconds:
        return None
    return min(max(seconds, 0.0), MAX_WAIT_S)
