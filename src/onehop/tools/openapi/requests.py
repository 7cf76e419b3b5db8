"""Makes a request of an operation and its arguments. Arguments must never change which host or path is asked.

Styles of parameters: OpenAPI 3.1, section 4.8.12 (RFC 6570 for what they look like).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from onehop.errors import CallFailedError
from onehop.tools.openapi.operations import NOT_ARGUMENTS, RAW, Body, Operation, Parameter

ACCEPT = "application/json, */*;q=0.5"
RAW_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
RAW_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "method": {"type": "string", "enum": list(RAW_METHODS)},
        "path": {"type": "string", "description": "below the base URL, beginning with /"},
        "params": {"type": "object", "description": "query; a list repeats its name"},
        "json": {"description": "body"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["method", "path"],
    "additionalProperties": False,
}
NOT_IN_RAW = NOT_ARGUMENTS | {
    "connection", "expect", "forwarded", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A request that only has to be sent."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None = None


def prepare(operation: Operation, arguments: dict[str, Any]) -> Prepared:
    """Raises CallFailedError, of kind bad_arguments; `arguments` fit the operation's schema."""
    url = operation.url
    query: list[str] = []
    headers = {"Accept": ACCEPT}
    cookies: list[str] = []
    for one in operation.parameters:
        if one.argument not in arguments:
            continue
        value = arguments[one.argument]
        if one.place == "path":
            url = url.replace("{" + one.name + "}", _path(one, value))
        elif value is None:
            continue
        elif one.place == "query":
            query += _query(one, value)
        elif one.place == "header":
            headers[one.name] = _header(one.argument, _simple(one, value))
        else:
            cookies += [f"{quote(name, safe='')}={quote(text, safe='')}" for name, text in _form(one, value)]
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
    content = None
    if operation.body is not None:
        content = _body(operation, operation.body, arguments)
        if content is not None:
            headers["Content-Type"] = operation.body.media_type
    return Prepared(operation.method, url + ("?" + "&".join(query) if query else ""), headers, content)


def prepare_raw(base_url: str, arguments: dict[str, Any], hidden: set[str]) -> Prepared:
    """The request of the tool `request`.

    Args:
        hidden: names of headers, in small letters, that carry the secrets.

    Raises:
        CallFailedError: of kind bad_arguments.
    """
    path = arguments["path"]
    if not path.startswith("/") or path.startswith("//") or any(one in path for one in "?#\\"):
        raise _bad("path: expected a path below the base URL that begins with one /, parameters in `params`")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise _bad("path: has characters that must be percent-encoded")
    if any(_is_dots(part) for part in path.split("/")):
        raise _bad("path: `.` and `..` are not allowed")
    headers = {"Accept": ACCEPT}
    for name, text in arguments.get("headers", {}).items():
        if name.lower() in NOT_IN_RAW | hidden or not name.replace("-", "").replace("_", "").isalnum():
            raise _bad(f"headers: {name[:100]!r} is not yours to set")
        headers[name] = _header("headers", text)
    pairs = [
        (name, _text(one))
        for name, value in arguments.get("params", {}).items()
        for one in (value if isinstance(value, list) else [value])
        if one is not None
    ]
    content = None
    if "json" in arguments:
        content = msgspec.json.encode(arguments["json"])
        headers["Content-Type"] = "application/json"
    query = "?" + urlencode(pairs, quote_via=quote) if pairs else ""
    return Prepared(arguments["method"], base_url.rstrip("/") + path + query, headers, content)


def _bad(message: str) -> CallFailedError:
    return CallFailedError("bad_arguments", message)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)


def _is_dots(part: str) -> bool:
    """A part that URLs resolve, in every way to write it."""
    return part.lower().replace("%2e", ".") in (".", "..")


def _path(one: Parameter, value: Any) -> str:
    """One part of the path: whatever is in it, it stays one part."""
    mark = {"simple": "", "label": ".", "matrix": ";"}[one.style]
    between = "," if one.style == "simple" or not one.explode else mark
    if one.as_json:
        text = quote(msgspec.json.encode(value), safe="")
    elif isinstance(value, dict):
        joint = "=" if one.explode else ","
        pairs = [
            f"{quote(name, safe='')}{joint}{quote(_text(inner), safe='')}" for name, inner in value.items()
        ]
        text = between.join(pairs)
    elif isinstance(value, list):
        parts = [quote(_text(inner), safe="") for inner in value]
        if one.style == "matrix" and one.explode:
            parts = [f"{quote(one.name, safe='')}={part}" for part in parts]
        text = between.join(parts)
    else:
        text = quote(_text(value), safe="")
    if not text:
        raise _bad(f"{one.argument}: it is a part of the path, and must not be empty")
    if one.style == "matrix" and not (one.explode and isinstance(value, list | dict)):
        text = f"{quote(one.name, safe='')}={text}"
    text = mark + text
    if _is_dots(text):
        raise _bad(f"{one.argument}: it is a part of the path, and must not be {text!r}")
    return text


def _query(one: Parameter, value: Any) -> list[str]:
    name = quote(one.name, safe="[]")
    if one.as_json:
        return [f"{name}={quote(msgspec.json.encode(value), safe='')}"]
    if isinstance(value, dict):
        items = [(quote(inner, safe=""), quote(_text(text), safe="")) for inner, text in value.items()]
        if one.style == "deepObject":
            return [f"{name}[{inner}]={text}" for inner, text in items]
        if one.explode:
            return [f"{inner}={text}" for inner, text in items]
        return [f"{name}=" + ",".join(f"{inner},{text}" for inner, text in items)]
    if isinstance(value, list):
        texts = [quote(_text(inner), safe="") for inner in value]
        if one.explode:
            return [f"{name}={text}" for text in texts]
        return [
            f"{name}=" + {"spaceDelimited": "%20", "pipeDelimited": "%7C"}.get(one.style, ",").join(texts)
        ]
    return [f"{name}={quote(_text(value), safe='')}"]


def _form(one: Parameter, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict) and not one.as_json:
        if one.explode:
            return [(name, _text(inner)) for name, inner in value.items()]
        return [(one.name, ",".join(f"{name},{_text(inner)}" for name, inner in value.items()))]
    if isinstance(value, list) and not one.as_json:
        if one.explode:
            return [(one.name, _text(inner)) for inner in value]
        return [(one.name, ",".join(map(_text, value)))]
    return [(one.name, _text(value))]


def _simple(one: Parameter, value: Any) -> str:
    if one.as_json:
        return msgspec.json.encode(value).decode()
    if isinstance(value, dict):
        joint = "=" if one.explode else ","
        return ",".join(f"{name}{joint}{_text(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return _text(value)


def _header(argument: str, text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise _bad(f"{argument}: it is sent in a header, which takes printable ASCII only")
    return text


def _body(operation: Operation, body: Body, arguments: dict[str, Any]) -> bytes | None:
    if body.whole:
        if body.whole not in arguments:
            return None
        value = arguments[body.whole]
    else:
        value = {
            name: arguments[argument] for argument, name in body.members.items() if argument in arguments
        }
        if body.takes_more:
            known = {one.argument for one in operation.parameters} | body.members.keys()
            value |= {name: one for name, one in arguments.items() if name not in known}
        if not value and not any(
            name in operation.spec.parameters.get("required", ()) for name in body.members
        ):
            return b"{}" if "json" in body.media_type else None
    kind = body.media_type.partition(";")[0].strip().lower()
    if kind.startswith("text/"):
        return _text(value).encode()
    if kind == "application/x-www-form-urlencoded":
        if not isinstance(value, dict):
            raise _bad(f"{body.whole}: expected an object, its members are the form's fields")
        pairs = [
            (name, _text(one))
            for name, inner in value.items()
            for one in (inner if isinstance(inner, list) else [inner])
            if one is not None
        ]
        return urlencode(pairs).encode()
    return msgspec.json.encode(value)


__all__ = ["RAW", "RAW_PARAMETERS", "Prepared", "prepare", "prepare_raw"]
