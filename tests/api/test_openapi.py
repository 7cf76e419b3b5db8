"""The documentation is complete, its examples fit their schemas, and the page needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from onehop import errors, sessions
from onehop.api import docs
from onehop.sessions import answers, keys, usage


@pytest.fixture
def document(client: httpx2.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


ROUTES = {
    "POST /api/batch",
    "POST /api/execute",
    "POST /api/lambda",
    "GET /api/functions",
    "GET /api/functions/{function_name}",
    "PUT /api/functions/{function_name}",
    "POST /api/functions/{function_name}",
    "DELETE /api/functions/{function_name}",
    "POST /api/sessions",
    "GET /api/sessions",
    "GET /api/sessions/{session_id}",
    "DELETE /api/sessions/{session_id}",
    "PATCH /api/sessions/{session_id}",
    "POST /api/sessions/{session_id}/contexts",
    "GET /api/sessions/{session_id}/contexts",
    "GET /api/sessions/{session_id}/contexts/{name}",
    "DELETE /api/sessions/{session_id}/contexts/{name}",
    "POST /api/sessions/{session_id}/contexts/{name}/restart",
    "POST /api/sessions/{session_id}/commands",
    "GET /api/sessions/{session_id}/commands",
    "GET /api/sessions/{session_id}/commands/{command_id}",
    "DELETE /api/sessions/{session_id}/commands/{command_id}",
    "POST /api/sessions/{session_id}/commands/{command_id}/stdin",
    "POST /api/sessions/{session_id}/commands/{command_id}/signal",
    "POST /api/sessions/{session_id}/execute",
    "POST /api/executions/{execution_id}/tool_results",
    "GET /api/executions/{execution_id}/tool_calls",
    "POST /api/sessions/{session_id}/interrupt",
    "GET /api/sessions/{session_id}/files",
    "GET /api/sessions/{session_id}/files/{path}",
    "PUT /api/sessions/{session_id}/files/{path}",
    "DELETE /api/sessions/{session_id}/files/{path}",
    "HEAD /api/sessions/{session_id}/files/{path}",
    "POST /api/sessions/{session_id}/files/{path}",
    "GET /api/sessions/{session_id}/archive",
    "PUT /api/sessions/{session_id}/archive",
    "GET /api/executions/{execution_id}",
    "GET /api/executions/{execution_id}/events",
    "GET /api/keys",
    "POST /api/keys",
    "DELETE /api/keys/{key_id}",
    "GET /api/tools",
    "GET /api/usage",
    "GET /healthz",
    "GET /api/environments",
    "GET /metrics",
    "GET /api/info",
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_is_described(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == ROUTES
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for name, operation in operations(document):
        described = {
            parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"
        }
        assert described == set(re.findall(r"\{(\w+)\}", name))
        assert {"403", "500", "503"} <= set(operation["responses"]), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in schemas
    used = {reference.rpartition("/")[2] for reference in found}
    assert set(schemas) == used, "schemas that nothing refers to"


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    types = {
        name: getattr(module, name) for module in (answers, sessions, keys, usage) for name in dir(module)
    }
    seen = 0
    for _, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (content for body in bodies for content in body.get("content", {}).values()):
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            if name in types and "example" in content:
                msgspec.convert(content["example"], types[name], strict=True)
                seen += 1
    assert seen > 10


def test_requests_name_defaults_and_ceilings(document: dict[str, Any]) -> None:
    timeout = document["components"]["schemas"]["ExecuteRequest"]["properties"]["timeout_s"]
    assert (timeout["default"], timeout["maximum"]) == (60.0, 3600.0)
    assert "stopped" in timeout["description"]
    for name in ("ExecuteRequest", "ExecuteOnceRequest", "SessionRequest"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False


def test_every_problem_is_described_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    exempt = {errors.NotFoundError, errors.MethodNotAllowedError}  # no route of its own answers these
    for problem in set(errors.PROBLEMS) - exempt:
        assert f"urn:onehop:problem:{problem.type}`" in text, problem


def test_the_page_brings_all_it_needs(client: httpx2.Client) -> None:
    root = client.get("/")
    assert (root.status_code, root.headers["location"]) == (307, "/docs")
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {link.rpartition("/")[2] for link in links} == set(docs.ASSETS)
    for link in links:
        assert link.startswith("/docs/assets/")
        asset = client.get(link)
        assert asset.status_code == 200
        assert asset.headers["content-type"].encode() == docs.ASSETS[link.rpartition("/")[2]][1]
        again = client.get(link, headers={"if-none-match": asset.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
    assert "<script>" not in page.text
    assert "style=" not in page.text


def test_vendored_files_carry_their_licence() -> None:
    folder = docs.STATIC / "swagger-ui"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert (folder / "NOTICE").exists()
