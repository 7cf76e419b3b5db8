"""The gateway's log: one line per record, as text or JSON. What users wrote must neither forge nor flood it.

Control characters are escaped, long texts are cut, and every record knows its request. Keys, code,
output and bodies never get here.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from typing import Any

from onehop.config import Settings
from onehop.supervisor.lines import cut, escaped, timestamp

TRACEBACK_CHARACTERS = 32_768

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being answered; tasks that it starts have it, too."""

access = logging.getLogger("onehop.access")
"""One record per request, with its figures as fields."""

FIELDS = ("method", "path", "route", "status", "duration_ms", "session", "execution", "key", "owner")
"""What a record may carry besides its message (`extra=`)."""


def configure(settings: Settings) -> None:
    """Sends everything to stderr in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    if settings.log_level == "info":
        # Each start would say a dozen times that it went well, and each request.
        for library in ("alembic", "uvicorn", "httpx2", "httpcore2"):
            logging.getLogger(library).setLevel(logging.WARNING)
    if settings.access_log:
        access.setLevel(logging.DEBUG)


class TextFormatter(logging.Formatter):
    """`INFO onehop.api message request=req_… session=ses_…`; a traceback follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={escaped(str(value), 512)}" for name, value in _fields(record).items())
        line = f"{record.levelname} {record.name} {escaped(_message(record))}"
        if fields:
            line = f"{line} {fields}"
        for text in _traceback(self, record).splitlines():
            line += f"\n    {escaped(text)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": cut(_message(record)),
            **{
                name: cut(value, 512) if isinstance(value, str) else value
                for name, value in _fields(record).items()
            },
        }
        traceback = _traceback(self, record)
        if traceback:
            document["traceback"] = traceback
        return json.dumps(document, ensure_ascii=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit: a defect, but not one to lose the record for
        return f"{record.msg} {record.args!r}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    request = request_id.get()
    if request:
        found["request"] = request
    for name in FIELDS:
        value = getattr(record, name, None)
        if value not in (None, ""):
            found[name] = value
    return found


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info:
        return ""
    return cut(formatter.formatException(record.exc_info), TRACEBACK_CHARACTERS)
