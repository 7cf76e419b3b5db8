"""Reads an OpenAPI document, JSON or YAML, into plain data of bounded size.

The document may come from anywhere: aliases that expand without end, cycles and deep nesting are refused
here, so that everything behind this can walk through it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from onehop.errors import ConfigurationError

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 150
MAX_MEMBERS = 2_000_000
"""Members of all its maps and lists, aliases counted as often as they are used."""


# YAML 1.2's core schema, as OpenAPI wants it: no dates, and `no` is a word.
_Loader: Any = type("_Loader", (yaml.CSafeLoader,), {})
_Loader.yaml_implicit_resolvers = {}
for _tag, _expression, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_expression})$"), _first)


def _integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text, 16) if text.startswith("0x") else int(text)  # "007" is seven, not octal


def _float(loader: Any, node: Any) -> float:
    return float(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse(data: bytes, where: str) -> dict[str, Any]:
    """The document in `data`.

    Args:
        where: it came from, for what is said about it.

    Raises:
        ConfigurationError: it is no OpenAPI 3 document, or too large.
    """
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{where}: {len(data)} bytes; a document has at most {MAX_BYTES}")
    document = _plain(_decode(data, where), where)
    if not isinstance(document, dict):
        raise ConfigurationError(f"{where}: no OpenAPI document, but a {type(document).__name__}")
    version = document.get("openapi")
    if not isinstance(version, str | float) or not str(version).startswith("3."):
        said = f"says openapi: {version!r}" if version is not None else "does not say `openapi: 3…`"
        if "swagger" in document:
            said = "is Swagger 2; convert it to OpenAPI 3 first"
        raise ConfigurationError(f"{where}: {said}; versions 3.0 and later of 3 are read")
    return document


def _decode(data: bytes, where: str) -> Any:
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        try:
            return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            json_error = error
            if data.count(b"[") + data.count(b"{") > MAX_MEMBERS:
                raise ConfigurationError(f"{where}: it cannot be read: {error}") from None
    else:
        json_error = None
    _shallow(data, where)
    try:
        return yaml.load(data, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(json_error or error).split())[:500]
        raise ConfigurationError(f"{where}: it cannot be read: {text}") from None


def _shallow(data: bytes, where: str) -> None:
    """The parser's events first: composing what is nested without end would overflow the C stack."""
    depth = 0
    try:
        for event in yaml.parse(data, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise ConfigurationError(f"{where}: nested more than {MAX_DEPTH} deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        return  # what is wrong is said by the second reading


def _plain(value: Any, where: str) -> Any:
    """The same with text as keys, everything counted."""
    left = MAX_MEMBERS

    def walk(value: Any, depth: int) -> Any:
        nonlocal left
        if not isinstance(value, dict | list):
            if value is None or isinstance(value, str | int | float):
                return value
            raise ConfigurationError(f"{where}: a {type(value).__name__} has no place in it")
        left -= len(value)
        if left < 0:
            raise ConfigurationError(f"{where}: more than {MAX_MEMBERS} members, aliases expanded")
        if depth > MAX_DEPTH:
            raise ConfigurationError(f"{where}: nested more than {MAX_DEPTH} deep, or in itself")
        if isinstance(value, list):
            return [walk(one, depth + 1) for one in value]
        return {_key(key): walk(one, depth + 1) for key, one in value.items()}

    return walk(value, 0)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key)
