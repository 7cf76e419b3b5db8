"""The OpenAPI document, made from the operations and the structs that decode the requests themselves."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from onehop import __version__, errors
from onehop.api import examples
from onehop.api.resources import PUBLIC, Body, Operation
from onehop.api.service import limits
from onehop.config import Settings
from onehop.sessions.answers import EndEvent, ErrorInfo, GapEvent, ResultEvent, TextEvent

EVENT_TYPES: dict[str, type] = {
    "stdout": TextEvent,
    "stderr": TextEvent,
    "result": ResultEvent,
    "error": ErrorInfo,
    "gap": GapEvent,
    "end": EndEvent,
}
ALWAYS: tuple[type[errors.ProblemError], ...] = (
    errors.ForbiddenOriginError,
    errors.InternalError,
    errors.UnavailableError,
)
"""What every route may answer."""
KEYED: tuple[type[errors.ProblemError], ...] = (errors.UnauthorizedError, errors.ForbiddenError)
"""And every route that wants a key, once the server has any."""
SECURITY: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key made with `onehop keys create`; as long as the server has none, none is needed.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}

REQUESTS = ("ExecuteRequest", "ExecuteOnceRequest", "SessionRequest")

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "A problem document (RFC 9457). Some types have further members.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "Stable name of the problem, a URN."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong with this request, for people."},
        "request_id": {"type": "string", "description": "Under this name the server's log has more."},
        "field": {"type": "string", "description": "The field of the request that is not valid."},
        "reason": {"type": "string", "description": "Why a session has ended."},
        "execution": {"type": "string", "description": "The execution that runs in the session."},
    },
    "required": ["type", "title", "status", "detail", "request_id"],
}

PARAMETERS = {
    "session_id": "Id of a session (`ses_…`).",
    "function_name": "A function's name: 1 to 64 letters, digits and _, no digit first.",
    "execution_id": "Id of an execution (`exe_…`).",
    "key_id": "Id of a key (`key_…`), not the key itself.",
    "name": "Name of a context; every session has `main`.",
    "command_id": "Id of a command, which is that of its execution (`exe_…`).",
    "path": "Path of a file in the workspace; it may contain slashes.",
}


def document(operations: list[Operation], settings: Settings) -> dict[str, Any]:
    """The whole document for the native API."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r":\w+\}", "}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "onehop",
            "version": __version__,
            "summary": "Runs AI-written Python in warm, jailed sessions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name} for name in ("Executions", "Sessions", "Files", "Tools", "Keys", "Server")],
        "paths": paths,
        "components": {"schemas": _schemas(operations, settings), "securitySchemes": SECURITY},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"\{(\w+)", operation.path)
    ]
    parameters += operation.parameters
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    notes = [operation.description] if operation.description else []
    if operation.scope != PUBLIC:
        notes.append(f"Needs a key with the scope `{operation.scope}`, once there are keys.")
        found["security"] = [{name: []} for name in SECURITY] + [{}]
    if notes:
        found["description"] = " ".join(notes)
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        body = operation.body
        found["requestBody"] = {
            "description": body.description,
            "required": body.required,
            "content": {kind: _content(body) for kind in (body.media_type, *body.other_types)},
        }
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, bodies in operation.answers.items():
        response: dict[str, Any] = {"description": " ".join(body.description for body in bodies) or "Done."}
        if bodies:
            response["content"] = {body.media_type: _content(body) for body in bodies}
        if operation.headers:
            response["headers"] = {
                name: {"description": meaning, "schema": {"type": "string"}}
                for name, meaning in operation.headers.items()
            }
        responses[str(status)] = response
    by_status: dict[int, list[type[errors.ProblemError]]] = {}
    keyed = KEYED if operation.scope != PUBLIC else ()
    for problem in (*operation.problems, *ALWAYS, *keyed):
        by_status.setdefault(problem.status, []).append(problem)
    for status, problems in sorted(by_status.items()):
        example = {
            **examples.PROBLEM,
            "type": f"urn:onehop:problem:{problems[0].type}",
            "title": problems[0].title,
            "status": status,
            "detail": "What was wrong.",
        }
        example.pop("field", None)
        responses[str(status)] = {
            "description": "; ".join(
                f"{problem.title} (`urn:onehop:problem:{problem.type}`)" for problem in problems
            ),
            "content": {
                "application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": example,
                }
            },
        }
    return responses


def _content(body: Body) -> dict[str, Any]:
    if body.schema is not None:
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{body.schema.__name__}"}}
    elif body.media_type == "text/event-stream":
        events = {kind: {"$ref": f"#/components/schemas/{of.__name__}"} for kind, of in EVENT_TYPES.items()}
        content = {"schema": {"type": "string"}, "x-events": events}
    else:
        content = {"schema": {"type": "string", "format": "binary"}}
    if body.example is not None:
        content["example"] = body.example
    return content


def _schemas(operations: list[Operation], settings: Settings) -> dict[str, Any]:
    types: dict[str, type] = {of.__name__: of for of in EVENT_TYPES.values()}
    for operation in operations:
        bodies = [body for several in operation.answers.values() for body in several]
        for body in [*bodies, *([operation.body] if operation.body else [])]:
            if body.schema is not None:
                types[body.schema.__name__] = body.schema
    _, schemas = msgspec.json.schema_components(
        list(types.values()), ref_template="#/components/schemas/{name}"
    )
    found: dict[str, Any] = dict(schemas)
    for schema in found.values():
        _describe(schema)
    for name in REQUESTS:
        for field, limit in limits(settings).items():
            if field in found[name]["properties"]:
                found[name]["properties"][field] |= {"default": limit.default, "maximum": limit.maximum}
    found["Problem"] = PROBLEM_SCHEMA
    return dict(sorted(found.items()))


def _describe(schema: dict[str, Any]) -> None:
    """Moves what the docstring says about each field to that field."""
    text, _, arguments = inspect.cleandoc(schema.get("description", "")).partition("\n\nArgs:\n")
    if text:
        schema["description"] = text
    entries = re.split(r"\n(?=\S)", inspect.cleandoc("\n" + arguments)) if arguments else []
    for entry in entries:
        names, colon, meaning = entry.partition(": ")
        if not colon:
            continue
        for name in names.split(", "):
            if name in schema.get("properties", {}):
                _property(schema, name)["description"] = " ".join(meaning.split())


def _property(schema: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = schema["properties"][name]
    return found
