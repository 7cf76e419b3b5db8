"""What a service answered, as the value of a call: JSON as data, text as text, all else as a file."""

from __future__ import annotations

import mimetypes
from email.message import Message
from typing import Any

import msgspec

from onehop.errors import CallFailedError
from onehop.tools.http import Answer
from onehop.tools.plain import Blob

ERROR_CHARACTERS = 2000
TEXTS = frozenset(
    {"application/xml", "application/javascript", "application/yaml", "application/x-yaml", "application/toml",
     "application/x-www-form-urlencoded", "application/x-ndjson", "application/jsonl", "image/svg+xml"}
)  # fmt: skip
NOT_TOLD = frozenset({"set-cookie", "set-cookie2", "www-authenticate", "authorization"})


def value(answer: Answer, method: str) -> Any:
    """Raises CallFailedError: failed for a status that is no 2xx, bad_result for JSON that is none."""
    if not 200 <= answer.status < 300:
        text = answer.body[: ERROR_CHARACTERS * 4].decode("utf-8", "replace")[:ERROR_CHARACTERS].strip()
        raise CallFailedError(
            "failed", f"HTTP {answer.status} {answer.reason}".rstrip() + (f": {text}" if text else "")
        )
    if method == "HEAD":
        return headers(answer)
    if not answer.body:
        return None
    media = Message()
    media["Content-Type"] = answer.headers.get("content-type", "application/octet-stream")
    kind = media.get_content_type()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CallFailedError(
                "bad_result", f"the service says that it sends JSON, but: {error}"
            ) from None
    if kind.startswith("text/") or kind.endswith("+xml") or kind in TEXTS:
        return _text(answer.body, media.get_content_charset("utf-8"))
    return Blob(answer.body, _name(answer, kind))


def whole(answer: Answer, method: str) -> dict[str, Any]:
    """The answer to a raw request: with what pagination needs."""
    body = value(answer, method)
    return {"status": answer.status, "headers": headers(answer), "body": None if method == "HEAD" else body}


def headers(answer: Answer) -> dict[str, str]:
    """In small letters, without those that are between the service and the server."""
    return {name.lower(): text for name, text in answer.headers.items() if name.lower() not in NOT_TOLD}


def _text(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _name(answer: Answer, kind: str) -> str:
    disposition = Message()
    disposition["Content-Disposition"] = answer.headers.get("content-disposition", "inline")
    name = disposition.get_filename() or ""
    if not name:
        last = answer.url.path.rpartition("/")[2]
        name = last if "." in last.strip(".") else ""
    return name or mimetypes.guess_extension(kind) or ""
