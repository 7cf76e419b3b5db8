"""From the operations of an OpenAPI document to tools: names, parameters in one object, what comes back.

The same document always gives the same tools. What cannot be offered is left out and said, never offered
in part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urljoin

import msgspec

from onehop.errors import ConfigurationError
from onehop.tools.credentials import origin_of
from onehop.tools.model import MAX_TOOLS, ToolSpec
from onehop.tools.names import distinct, identifier
from onehop.tools.openapi.components import Components
from onehop.tools.openapi.options import OpenApiOptions, is_url

METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
SAFE = frozenset({"get", "head", "options"})
IDEMPOTENT = SAFE | {"put", "delete"}
"""RFC 9110, section 9.2."""
PLACES = ("path", "query", "header", "cookie")
DEFAULT_STYLES = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}
STYLES = {
    "path": {"simple", "label", "matrix"},
    "query": {"form", "spaceDelimited", "pipeDelimited", "deepObject"},
    "header": {"simple"},
    "cookie": {"form"},
}
NOT_ARGUMENTS = frozenset({"accept", "content-type", "authorization", "host", "content-length", "cookie"})
"""Headers that are not the caller's to set."""
PARAMETERS_BYTES = 64 * 1024
RETURNS_BYTES = 16 * 1024
CATALOGUE_BYTES = 32 * 1024 * 1024
DESCRIPTION_CHARACTERS = 4000
RAW = "request"


@dataclass(frozen=True)
class Parameter:
    """One parameter outside the body. `argument` is what code calls it, `name` what the service does."""

    argument: str
    name: str
    place: str
    style: str
    explode: bool
    as_json: bool = False


@dataclass(frozen=True)
class Body:
    """What is sent. `members`: argument -> property, where the properties are arguments; else `whole` is one."""

    media_type: str
    members: dict[str, str] = field(default_factory=dict)
    whole: str = ""
    takes_more: bool = False


@dataclass(frozen=True)
class Operation:
    """One tool, and how its request is made. `url`: absolute, its path still with {names}."""

    spec: ToolSpec
    method: str
    url: str
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None


class Reader:
    """Args:
    document: as document.parse gave it.
    options: of the source.
    warn: told of what is left out.
    """

    def __init__(
        self, document: dict[str, Any], options: OpenApiOptions, warn: Callable[[str], None]
    ) -> None:
        self._document = document
        self._options = options
        self._warn = warn
        self._components = Components(document, warn)
        self.base_url = self._base_url(document)

    # --- where the service is -------------------------------------------------------------------------

    def _base_url(self, node: dict[str, Any]) -> str:
        """Of a document, path or operation. Raises ConfigurationError when it is nowhere said."""
        if self._options.base_url is not None:
            return _checked_base(self._options.base_url)
        servers = node.get("servers")
        server = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
        url = str(server.get("url", "/"))
        variables = server.get("variables")
        for name, variable in (variables if isinstance(variables, dict) else {}).items():
            if isinstance(variable, dict):
                url = url.replace("{" + name + "}", str(variable.get("default", "")))
        if is_url(self._options.document):
            url = urljoin(self._options.document, url)
        elif not is_url(url):
            raise ConfigurationError("the document does not say where the service is; give base_url")
        return _checked_base(url)

    def _base_of(self, path: dict[str, Any], operation: dict[str, Any]) -> str | None:
        """Where an operation is; None when that is another service, which must not get the secrets of ours."""
        for node in (operation, path):
            if node.get("servers"):
                url = self._base_url(node)
                return url if origin_of(url) == origin_of(self.base_url) else None
        return self.base_url

    # --- operations -----------------------------------------------------------------------------------

    def operations(self) -> dict[str, Operation]:
        """By the tool's name. Raises ConfigurationError when there is none, or they are too many."""
        found = list(self._chosen())
        if not found and not self._options.offers_raw_request:
            raise ConfigurationError("the document has no operations that could be offered")
        if len(found) > MAX_TOOLS - 1:
            raise ConfigurationError(f"{len(found)} operations; choose with `operations`")
        operations: dict[str, Operation] = {}
        room = CATALOGUE_BYTES
        for name, (method, template, path, operation) in found:
            made = self._operation(name, method, template, path, operation)
            if made is not None:
                room -= _size(made.spec)
                operations[name] = made
        if room < 0:
            raise ConfigurationError(
                f"the operations' descriptions have more than {CATALOGUE_BYTES} bytes; choose with `operations`"
            )
        return operations

    def _chosen(self) -> Iterator[tuple[str, tuple[str, str, dict[str, Any], dict[str, Any]]]]:
        everything = list(self._all())
        names = distinct(
            (
                identifier(str(operation.get("operationId") or f"{method} {template}"), "call")
                for method, template, _, operation in everything
            ),
            (RAW,) if self._options.offers_raw_request else (),
        )
        patterns = self._options.operations
        for name, one in zip(names, everything, strict=True):
            method, template, _, operation = one
            known_as = (name, str(operation.get("operationId", "")), f"{method.upper()} {template}")
            if not patterns or any(fnmatchcase(text, pattern) for text in known_as for pattern in patterns):
                yield name, one

    def _all(self) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
        paths = self._document.get("paths")
        for template, node in (paths if isinstance(paths, dict) else {}).items():
            parts = template.split("?")[0].split("/")
            if not template.startswith("/") or "?" in template or "#" in template or {".", ".."} & set(parts):
                self._warn(f"{template!r} is left out: it is no path")
                continue
            path = self._components.resolve(node)
            for method in METHODS:
                if isinstance(path.get(method), dict):
                    yield method, template, path, path[method]

    def _operation(
        self, name: str, method: str, template: str, path: dict[str, Any], operation: dict[str, Any]
    ) -> Operation | None:
        title = f"{method.upper()} {template}"
        base = self._base_of(path, operation)
        if base is None:
            self._warn(f"{title} is left out: it is another service's, make a source of its own of that")
            return None
        described = list(self._parameters(template, path, operation))
        body = self._components.resolve(operation.get("requestBody"))
        media_type, body_schema = _body_schema(body)
        if body and media_type is None:
            if body.get("required"):
                kinds = ", ".join(body.get("content") or {}) or "nothing"
                self._warn(f"{title} is left out: it wants {kinds}; only JSON, forms and text are sent")
                return None
            body = {}
        members = self._members(media_type, body_schema) if body else None
        wanted = [(one["in"], one["name"]) for one in described]
        if body:
            wanted += [("body", member) for member in members] if members is not None else [("body", "body")]
        arguments = _arguments(wanted)

        schemas: dict[str, Any] = {}
        required: list[str] = []
        parameters = []
        for one, argument in zip(described, arguments, strict=False):
            parameter, schema = _parameter(one, argument)
            parameters.append(parameter)
            schemas[argument] = _labelled(schema, one, "" if parameter.name == argument else parameter.name)
            if one["in"] == "path" or one.get("required") is True:
                required.append(argument)
        made = None
        rest = arguments[len(described) :]
        if body and members is not None:
            resolved = self._components.resolve(body_schema)
            made = Body(
                str(media_type),
                members=dict(zip(rest, members, strict=True)),
                takes_more=resolved.get("additionalProperties") not in (None, False),
            )
            wanted_members = resolved.get("required")
            for argument, member in made.members.items():
                renamed = member if member != argument else ""
                schemas[argument] = _labelled(members[member], {}, renamed)
                if isinstance(wanted_members, list) and member in wanted_members and body.get("required"):
                    required.append(argument)
        elif body:
            made = Body(str(media_type), whole=rest[0])
            schemas[rest[0]] = _labelled(body_schema, body, "")
            if body.get("required") is True:
                required.append(rest[0])
        return Operation(
            spec=ToolSpec(
                name=name,
                description=_description(operation, path, title),
                parameters=self._object(schemas, required, made is not None and made.takes_more),
                returns=self._returns(method, operation),
                read_only=method in SAFE,
                idempotent=method in IDEMPOTENT,
            ),
            method=method.upper(),
            url=base.rstrip("/") + template,
            parameters=tuple(parameters),
            body=made,
        )

    def _parameters(
        self, template: str, path: dict[str, Any], operation: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The operation's own replace those of its path with the same name and place."""
        found: dict[tuple[str, str], dict[str, Any]] = {
            ("path", name): {"name": name, "in": "path", "schema": {"type": "string"}}
            for name in re.findall(r"\{([^{}/]+)\}", template)
        }
        for node in (path, operation):
            listed = node.get("parameters")
            for one in listed if isinstance(listed, list) else ():
                parameter = self._components.resolve(one)
                name, place = parameter.get("name"), parameter.get("in")
                if place == "path" and (place, name) not in found:
                    continue  # there is no room for it in the path
                if isinstance(name, str) and name and place in PLACES:
                    found[place, name] = parameter
        auth = self._options.auth
        hidden = NOT_ARGUMENTS | {header.lower() for header in auth.header}
        for place in PLACES:
            for (where, name), parameter in found.items():
                if where != place or (place == "header" and name.lower() in hidden):
                    continue
                if place == "query" and name in auth.query:
                    continue
                yield parameter

    def _members(self, media_type: str | None, schema: Any) -> dict[str, Any] | None:
        """The properties that become arguments; None when the body is one argument."""
        resolved = self._components.resolve(schema)
        properties = resolved.get("properties")
        if media_type is None or media_type.startswith("text/") or not isinstance(properties, dict):
            return None
        if any(key in resolved for key in ("allOf", "anyOf", "oneOf", "not", "if", "nullable")):
            return None
        if resolved.get("type", "object") != "object":
            return None
        return {
            name: one
            for name, one in properties.items()
            if self._components.resolve(one).get("readOnly") is not True
        }

    def _object(self, schemas: dict[str, Any], required: list[str], takes_more: bool) -> dict[str, Any]:
        descriptions = {name: one.pop("x-said", "") for name, one in schemas.items()}
        converted, defs = self._components.together(
            {name: one["schema"] for name, one in schemas.items()}, PARAMETERS_BYTES
        )
        properties: dict[str, Any] = {}
        for name, one in converted.items():
            schema = {} if one is True else one if isinstance(one, dict) else {"not": {}}
            properties[name] = schema | {"description": said} if (said := descriptions[name]) else schema
        whole: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            whole["required"] = required
        if not takes_more:
            whole["additionalProperties"] = False
        if defs:
            whole["$defs"] = defs
        return whole

    def _returns(self, method: str, operation: dict[str, Any]) -> dict[str, Any] | None:
        responses = operation.get("responses")
        good = [
            self._components.resolve(one)
            for status, one in (responses if isinstance(responses, dict) else {}).items()
            if status.startswith("2")
        ]
        if len(good) != 1 or method == "head":
            return None  # which one it will be is not known before
        content = good[0].get("content")
        if not isinstance(content, dict) or len(content) != 1:
            return {"type": "null"} if not content else None
        ((media_type, media),) = content.items()
        if _is_json(media_type) and isinstance(media, dict) and isinstance(media.get("schema"), dict | bool):
            return self._components.standalone(media["schema"], RETURNS_BYTES)
        return {"type": "string"} if media_type.startswith("text/") else None


def _checked_base(url: str) -> str:
    origin_of(url)
    if "?" in url or "#" in url or "{" in url:
        raise ConfigurationError(f"{url!r} cannot be the base of paths")
    return url


def _body_schema(body: dict[str, Any]) -> tuple[str | None, Any]:
    """The media type to send, and its schema: JSON before forms before text."""
    content = body.get("content")
    kinds = content if isinstance(content, dict) else {}
    for fits in (_is_json, _is_form, _is_text):
        for media_type, media in kinds.items():
            if fits(media_type):
                schema = media.get("schema", {}) if isinstance(media, dict) else {}
                sent = "application/json" if "*" in media_type else media_type
                return sent, schema
    return None, {}


def _is_json(media_type: str) -> bool:
    kind = media_type.partition(";")[0].strip().lower()
    return kind in ("application/json", "*/*", "application/*") or kind.endswith("+json")


def _is_form(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"


def _is_text(media_type: str) -> bool:
    return media_type.lower().startswith("text/") and "*" not in media_type


def _arguments(wanted: list[tuple[str, str]]) -> list[str]:
    """Names of the arguments: where two want one, those after the first begin with their place."""
    names: list[str] = []
    for place, name in wanted:
        plain = identifier(name, place)
        names.append(f"{place}_{plain}" if plain in names else plain)
    return distinct(names)


def _parameter(one: dict[str, Any], argument: str) -> tuple[Parameter, Any]:
    place = one["in"]
    style = one.get("style")
    if style not in STYLES[place]:
        style = DEFAULT_STYLES[place]
    explode = one["explode"] if isinstance(one.get("explode"), bool) else style in ("form", "deepObject")
    content = one.get("content")
    as_json = isinstance(content, dict) and bool(content) and "schema" not in one
    schema = one.get("schema", {})
    if isinstance(content, dict) and as_json:
        media = next(iter(content.values()))
        schema = media.get("schema", {}) if isinstance(media, dict) else {}
    return Parameter(argument, one["name"], place, style, explode, as_json), schema


def _labelled(schema: Any, about: dict[str, Any], renamed: str) -> dict[str, Any]:
    """A schema with what has to be said about it beside it, until it has been converted."""
    said = about.get("description")
    text = said[:1000] if isinstance(said, str) else ""
    if renamed:
        own = schema.get("description") if isinstance(schema, dict) else None
        text = f"{text or (own if isinstance(own, str) else '')[:1000]} (`{renamed}`)".strip()
    return {"schema": schema, "x-said": text}


def _description(operation: dict[str, Any], path: dict[str, Any], title: str) -> str:
    parts = []
    for key in ("summary", "description"):
        text = operation.get(key) or path.get(key)
        if isinstance(text, str) and text.strip() and text.strip() not in parts:
            parts.append(text.strip())
    if operation.get("deprecated") is True:
        parts.append("Deprecated.")
    return "\n\n".join([*parts, title])[:DESCRIPTION_CHARACTERS]


def _size(spec: ToolSpec) -> int:
    return len(msgspec.msgpack.encode(spec))
