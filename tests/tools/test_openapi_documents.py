"""OpenAPI documents of every shape: what becomes of names, references, styles and of documents that are hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onehop.errors import CallFailedError, ConfigurationError
from onehop.tools.names import distinct, identifier
from onehop.tools.openapi import document
from onehop.tools.openapi.operations import Operation, Reader
from onehop.tools.openapi.options import OpenApiOptions
from onehop.tools.openapi.requests import prepare
from onehop.tools.schemas import Arguments

BASE = "https://shop.example/v1"


def read(
    paths: dict[str, Any], *, version: str = "3.1.0", warned: list[str] | None = None, **more: Any
) -> dict[str, Operation]:
    data = json.dumps({"openapi": version, "paths": paths, **more}).encode()
    options = OpenApiOptions(document="x.json", base_url=BASE, raw_request=False)
    warn = (warned if warned is not None else []).append
    return Reader(document.parse(data, "x.json"), options, warn).operations()


def one(operation: dict[str, Any], *, path: str = "/x", method: str = "get", **more: Any) -> Operation:
    (found,) = read({path: {method: {"operationId": "op", **operation}}}, **more).values()
    return found


# --- documents ------------------------------------------------------------------------------------------


def test_yaml_is_read_as_openapi_means_it() -> None:
    text = """
openapi: 3.0.3
info: {title: T, version: 1.0}
paths:
  /x:
    get:
      summary: no
      responses:
        200: {description: "yes"}
      parameters:
        - &p {name: day, in: query, schema: {type: string, enum: [2020-01-01, on, off, 007, ~], default: 1e3}}
"""
    found = document.parse(text.encode(), "x.yaml")
    operation = found["paths"]["/x"]["get"]
    assert operation["summary"] == "no"
    assert list(operation["responses"]) == ["200"]
    schema = operation["parameters"][0]["schema"]
    assert schema["enum"] == ["2020-01-01", "on", "off", 7, None]
    assert schema["default"] == 1000.0


def bomb() -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "openapi: 3.1.0\n" + "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(), "members, aliases expanded"),
        ("openapi: 3.1.0\nx: &x [*x]", "in itself"),
        ("openapi: 3.1.0\nx: " + "[" * 100_000, "nested more than"),
        ('{"openapi": "3.1.0", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be read|nested more than"),
        ("openapi: 3.1.0\nx: !!python/object/apply:os.system [id]", "cannot be read"),
        ("openapi: 3.1.0\nx: !!binary aGk=", "a bytes has no place"),
        ("swagger: '2.0'", "convert it to OpenAPI 3"),
        ("openapi: 4.0.0", "says openapi: '4.0.0'"),
        ("just text", "no OpenAPI document, but a str"),
        ("[1]", "no OpenAPI document, but a list"),
        ("{", "cannot be read"),
        ("", "no OpenAPI document, but a NoneType"),
        ("\x00\x01", "cannot be read"),
    ],
)  # fmt: skip
def test_a_document_that_is_none(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        document.parse(text.encode(), "x")


def test_a_document_that_is_too_large() -> None:
    with pytest.raises(ConfigurationError, match="a document has at most"):
        document.parse(b" " * (document.MAX_BYTES + 1), "x")


def test_where_the_service_is() -> None:
    def base(servers: list[dict[str, Any]], path: str = "x.json", base_url: str | None = None) -> str:
        options = OpenApiOptions(document=path, base_url=base_url)
        return Reader({"openapi": "3.1.0", "servers": servers}, options, print).base_url

    assert base([{"url": "https://a.example/v1"}]) == "https://a.example/v1"
    assert base([{"url": "/v1"}], "https://a.example/docs/api.json") == "https://a.example/v1"
    assert base([], "https://a.example/docs/api.json") == "https://a.example/"
    assert base([{"url": "https://a.example"}], base_url="http://b.example/x") == "http://b.example/x"
    variables = {"region": {"default": "eu"}}
    assert base([{"url": "https://{region}.a.example", "variables": variables}]) == "https://eu.a.example"
    for servers in ([], [{"url": "/v1"}], [{"url": "ftp://a.example"}], [{"url": "https://{x}.example"}]):
        with pytest.raises(ConfigurationError):
            base(servers)


# --- names ----------------------------------------------------------------------------------------------


def test_names_of_tools() -> None:
    found = read(
        {
            "/pets/{petId}": {"get": {}, "post": {"operationId": "pets.add-one"}},
            "/a": {"get": {"operationId": "class"}, "put": {"operationId": "dup"}},
            "/b": {"get": {"operationId": "dup"}, "put": {"operationId": "dup_2"}},
            "/c": {"get": {"operationId": "42"}, "put": {"operationId": "__init__"}},
        }
    )
    names = ["get_pets_petId", "pets_add_one", "class_", "dup", "dup_3", "dup_2", "call_42", "init"]
    assert list(found) == names


@given(st.lists(st.text(max_size=12), max_size=12))
def test_identifiers(texts: list[str]) -> None:
    names = distinct(identifier(text) for text in texts)
    assert len(set(names)) == len(texts)
    assert names == distinct(identifier(text) for text in texts)
    for name in names:
        assert name.isidentifier() and not name.startswith("_")
        exec(f"{name} = 1", {})


def test_arguments_that_want_one_name() -> None:
    body = {"required": True, "content": {"application/json": {"schema": {
        "type": "object", "required": ["id", "X-Id"], "properties": {"id": {}, "X-Id": {}, "q": {}, "seen": {"readOnly": True}},
    }}}}  # fmt: skip
    found = one(
        {
            "parameters": [
                {"in": "header", "name": "X-Id", "schema": {"type": "string"}},
                {"in": "query", "name": "id", "schema": {"type": "string"}},
                {"in": "query", "name": "filter[name]", "schema": {"type": "string"}},
                {"in": "header", "name": "Authorization", "schema": {}},
            ],
            "requestBody": body,
        },
        path="/x/{id}",
        method="post",
    )
    properties = found.spec.parameters["properties"]
    assert list(properties) == ["id", "query_id", "filter_name", "X_Id", "body_id", "body_X_Id", "q"]
    assert found.spec.parameters["required"] == ["id", "body_id", "body_X_Id"]
    assert properties["filter_name"]["description"] == "(`filter[name]`)"
    made = prepare(
        found, {"id": "p", "query_id": "q", "X_Id": "h", "body_id": 1, "body_X_Id": 2, "filter_name": "n"}
    )
    assert made.url == f"{BASE}/x/p?id=q&filter[name]=n"
    assert made.headers["X-Id"] == "h"
    assert json.loads(made.content or b"") == {"id": 1, "X-Id": 2}


# --- schemas --------------------------------------------------------------------------------------------


def with_body(schema: Any, components: dict[str, Any] | None = None, **more: Any) -> Operation:
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return one({"requestBody": body}, method="post", components={"schemas": components or {}}, **more)


def check(operation: Operation, arguments: dict[str, Any]) -> bool:
    checker = Arguments(operation.spec.parameters)
    assert not checker.unusable
    try:
        checker.check(arguments)
    except CallFailedError as error:
        return error.kind != "bad_arguments"
    return True


def test_references_in_circles() -> None:
    tree = {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
    }}  # fmt: skip
    found = with_body({"$ref": "#/components/schemas/Tree"}, {"Tree": tree})
    assert check(found, {"name": "a", "children": [{"name": "b", "children": []}]})
    assert not check(found, {"name": "a", "children": [{"name": "b", "children": [{}]}]})
    circle = {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}}
    assert with_body({"$ref": "#/components/schemas/A"}, circle).body is not None


def test_choices_stay_choices() -> None:
    cat = {"type": "object", "required": ["meow"], "properties": {"meow": {"type": "boolean"}}}
    dog = {"type": "object", "required": ["bark"], "properties": {"bark": {"type": "integer"}}}
    found = with_body(
        {"oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}]},
        {"Cat": cat, "Dog": dog},
    )
    assert list(found.spec.parameters["properties"]) == ["body"]
    assert check(found, {"body": {"meow": True}})
    assert not check(found, {"body": {"meow": 1}})
    assert json.loads(prepare(found, {"body": {"bark": 1}}).content or b"") == {"bark": 1}
    both = with_body({"allOf": [cat, dog]})
    assert check(both, {"body": {"meow": True, "bark": 1}}) and not check(both, {"body": {"meow": True}})


def test_the_words_of_3_0() -> None:
    schema = {"type": "object", "properties": {
        "a": {"type": "string", "nullable": True, "enum": ["x"]},
        "b": {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
        "c": {"nullable": True, "allOf": [{"type": "string"}]},
    }}  # fmt: skip
    found = with_body(schema, version="3.0.3")
    assert check(found, {"a": None, "b": 4, "c": None}) and check(found, {"a": "x", "c": "y"})
    for bad in ({"a": "y"}, {"b": 3}, {"c": 1}):
        assert not check(found, bad), bad


def test_references_that_lead_elsewhere_or_nowhere() -> None:
    warned: list[str] = []
    for pointer in ("https://evil.example/x.json", "other.yaml#/a", "#/nowhere", "#/components/schemas/0/x"):
        found = with_body({"type": "object", "properties": {"a": {"$ref": pointer}}}, warned=warned)
        assert check(found, {"a": [1, {}]})
    assert len(warned) == 4


def test_schemas_that_are_too_large_allow_everything() -> None:
    schemas = {
        f"S{n}": {
            "type": "object",
            "properties": {f"p{m}": {"$ref": f"#/components/schemas/S{m}"} for m in range(200)},
        }
        for n in range(200)
    }
    found = with_body({"type": "object", "properties": {"a": {"$ref": "#/components/schemas/S0"}}}, schemas)
    assert len(json.dumps(found.spec.parameters)) < 80_000
    assert check(found, {"a": {}}) and not check(found, {"a": 1})


def test_what_cannot_be_offered_is_left_out_and_said() -> None:
    warned: list[str] = []
    upload = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {}}}}}
    found = read(
        {
            "/up": {"post": upload},
            "/other": {"get": {"servers": [{"url": "https://evil.example"}]}},
            "/a/../b": {"get": {}},
            "/ok": {"get": {}},
        },
        warned=warned,
    )
    assert list(found) == ["get_other", "get_ok"]
    assert any("it wants multipart/form-data" in one for one in warned) and any(
        "it is no path" in one for one in warned
    )


def test_an_operation_elsewhere_does_not_get_our_secrets() -> None:
    warned: list[str] = []
    paths = {"/other": {"get": {"servers": [{"url": "https://evil.example"}]}}, "/ok": {"get": {}}}
    options = OpenApiOptions(document="x.json", raw_request=False)
    found = Reader(
        {"openapi": "3.1.0", "servers": [{"url": BASE}], "paths": paths}, options, warned.append
    ).operations()
    assert list(found) == ["get_ok"]
    assert warned == ["GET /other is left out: it is another service's, make a source of its own of that"]


# --- styles (the table of OpenAPI 3.1, section 4.8.12.4) ---------------------------------------------------

ARRAY, OBJECT = ["blue", "black", "b&w"], {"R": 100, "G": "a,b"}


@pytest.mark.parametrize(
    ("style", "explode", "value", "url"),
    [
        ("simple", False, "a/b", "/x/a%2Fb"),
        ("simple", False, ARRAY, "/x/blue,black,b%26w"),
        ("simple", False, OBJECT, "/x/R,100,G,a%2Cb"),
        ("simple", True, OBJECT, "/x/R=100,G=a%2Cb"),
        ("label", False, "blue", "/x/.blue"),
        ("label", True, ARRAY, "/x/.blue.black.b%26w"),
        ("matrix", False, "blue", "/x/;p=blue"),
        ("matrix", False, ARRAY, "/x/;p=blue,black,b%26w"),
        ("matrix", True, ARRAY, "/x/;p=blue;p=black;p=b%26w"),
        ("matrix", True, OBJECT, "/x/;R=100;G=a%2Cb"),
    ],
)
def test_styles_in_paths(style: str, explode: bool, value: Any, url: str) -> None:
    parameter = {"in": "path", "name": "p", "required": True, "style": style, "explode": explode}
    found = one({"parameters": [parameter]}, path="/x/{p}")
    assert prepare(found, {"p": value}).url == BASE + url


@pytest.mark.parametrize(
    ("about", "value", "query"),
    [
        ({}, "a b&c=d#", "p=a%20b%26c%3Dd%23"),
        ({}, True, "p=true"),
        ({}, 2.0, "p=2"),
        ({}, ARRAY, "p=blue&p=black&p=b%26w"),
        ({"explode": False}, ARRAY, "p=blue,black,b%26w"),
        ({"style": "spaceDelimited", "explode": False}, ARRAY, "p=blue%20black%20b%26w"),
        ({"style": "pipeDelimited", "explode": False}, ARRAY, "p=blue%7Cblack%7Cb%26w"),
        ({}, OBJECT, "R=100&G=a%2Cb"),
        ({"style": "deepObject"}, OBJECT, "p[R]=100&p[G]=a%2Cb"),
        ({"content": {"application/json": {}}}, {"a": [1]}, "p=%7B%22a%22%3A%5B1%5D%7D"),
        ({}, None, ""),
    ],
)
def test_styles_in_queries(about: dict[str, Any], value: Any, query: str) -> None:
    found = one({"parameters": [{"in": "query", "name": "p", **about}]})
    assert prepare(found, {"p": value}).url == f"{BASE}/x" + (f"?{query}" if query else "")


@given(st.text(min_size=1, max_size=30))
def test_a_path_parameter_stays_one_part(text: str) -> None:
    found = one({}, path="/x/{p}/y")
    if text in (".", ".."):
        with pytest.raises(CallFailedError):
            prepare(found, {"p": text})
        return
    url = prepare(found, {"p": text}).url
    assert url.startswith(f"{BASE}/x/") and url.endswith("/y") and url.isascii()
    assert url.removeprefix("https://").count("/") == 4 and not set(url) & set("?#\\ \r\n")
