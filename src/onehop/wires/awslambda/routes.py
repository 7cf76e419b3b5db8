"""The routes of AWS Lambda's API, as far as functions need them."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from onehop import errors
from onehop.agent.service import Agent
from onehop.api.asgi import JSON, Call, Header, encode_json
from onehop.api.resources import Body, Operation
from onehop.sessions.caller import EXECUTE, READ
from onehop.sessions.requests import decode
from onehop.wires.awslambda import sigv4
from onehop.wires.awslambda.errors import ParameterError
from onehop.wires.awslambda.functions import Function, Functions, Settings
from onehop.wires.awslambda.invoking import VERSION, Invoker, arn

PREFIX = "/lambda"
TAG = "AWS Lambda"
API = PREFIX + "/2015-03-31/functions"
MAX_ITEMS = 50
MAX_EVENT_BYTES = 6 * 1024 * 1024


class Variables(msgspec.Struct):
    Variables: dict[str, str] = {}


class Code(msgspec.Struct):
    """`ZipFile` in base64; S3 and images are not here."""

    ZipFile: bytes | None = None
    S3Bucket: str | None = None
    ImageUri: str | None = None


class Configuration(msgspec.Struct):
    """What may be changed of a function."""

    Runtime: str | None = None
    Role: str | None = None
    Handler: str | None = None
    Description: str | None = None
    Timeout: int | None = None
    MemorySize: int | None = None
    Environment: Variables | None = None
    RevisionId: str | None = None
    Layers: list[str] | None = None
    VpcConfig: dict[str, Any] | None = None
    FileSystemConfigs: list[Any] | None = None


class CreateFunction(Configuration):
    """A function to be made."""

    FunctionName: str = ""
    Code: Code = msgspec.field(default_factory=Code)
    PackageType: str = "Zip"
    Publish: bool = False


class UpdateCode(Code):
    """A package in place of the old one."""

    DryRun: bool = False
    Publish: bool = False
    RevisionId: str | None = None


_decode_create = msgspec.json.Decoder(CreateFunction)
_decode_configuration = msgspec.json.Decoder(Configuration)
_decode_code = msgspec.json.Decoder(UpdateCode)


class Lambda:
    def __init__(self, agent: Agent) -> None:
        self._engine = agent.engine
        self._functions = Functions(agent.uploads)
        self._invoker = Invoker(agent.engine, self._functions)

    def operations(self) -> list[Operation]:
        one = API + "/{name}"
        return [
            Operation(
                "POST", API, self.create, "lambdaCreate", TAG, "Make a function", scope=EXECUTE,
                body=Body("The function.", CreateFunction),
            ),
            Operation("GET", API, self.list, "lambdaList", TAG, "The functions", scope=READ),
            Operation("GET", one, self.get, "lambdaGet", TAG, "A function", scope=READ),
            Operation("DELETE", one, self.delete, "lambdaDelete", TAG, "Delete a function", scope=EXECUTE),
            Operation("GET", one + "/configuration", self.configuration, "lambdaConfig", TAG, "Settings", scope=READ),
            Operation(
                "PUT", one + "/configuration", self.configure, "lambdaConfigure", TAG, "Change the settings",
                scope=EXECUTE, body=Body("What is to be different.", Configuration),
            ),
            Operation(
                "PUT", one + "/code", self.replace, "lambdaUpdateCode", TAG, "Change the code", scope=EXECUTE,
                body=Body("The package.", UpdateCode),
            ),
            Operation(
                "POST", one + "/invocations", self.invoke, "lambdaInvoke", TAG, "Invoke a function", scope=EXECUTE
            ),
        ]  # fmt: skip

    async def create(self, call: Call) -> None:
        asked = decode(_decode_create, await self._body(call, self._engine.settings.body_bytes))
        if asked.PackageType != "Zip":
            raise ParameterError("PackageType: only Zip is here; images are not run")
        settings = _configured(Settings(name=_short(asked.FunctionName)), asked)
        made = await self._functions.create(settings, _package(asked.Code), call.caller)
        await call.answer(encode_json(_document(made)), status=201)

    async def list(self, call: Call) -> None:
        await self._body(call)
        found = await self._functions.list(call.caller)
        after, most = call.query("Marker"), min(call.query_int("MaxItems") or MAX_ITEMS, MAX_ITEMS)
        found = [one for one in found if one.settings.name > after]
        page: dict[str, Any] = {"Functions": [_document(one) for one in found[:most]]}
        if len(found) > most:
            page["NextMarker"] = found[most - 1].settings.name
        await call.answer(encode_json(page))

    async def get(self, call: Call) -> None:
        await self._body(call)
        document = _document(await self._function(call))
        await call.answer(
            encode_json({"Configuration": document, "Code": {"RepositoryType": "onehop"}, "Tags": {}})
        )

    async def configuration(self, call: Call) -> None:
        await self._body(call)
        await call.answer(encode_json(_document(await self._function(call))))

    async def delete(self, call: Call) -> None:
        await self._body(call)
        name = _short(call.path["name"])
        await self._functions.delete(name, call.caller)
        await self._invoker.forget(name, call.caller)
        await call.empty()

    async def configure(self, call: Call) -> None:
        asked = decode(_decode_configuration, await self._body(call))
        function = await self._function(call)
        _check_revision(function, asked.RevisionId)
        package = await self._functions.package(function, call.caller)
        await self._change(call, function, _configured(function.settings, asked), package)

    async def replace(self, call: Call) -> None:
        asked = decode(_decode_code, await self._body(call, self._engine.settings.body_bytes))
        function = await self._function(call)
        _check_revision(function, asked.RevisionId)
        package = _package(asked)
        if asked.DryRun:
            await call.answer(encode_json(_document(function)))
            return
        await self._change(call, function, function.settings, package)

    async def _change(self, call: Call, function: Function, settings: Settings, package: bytes) -> None:
        changed = await self._functions.change(function, settings, package, call.caller)
        await self._invoker.forget(settings.name, call.caller)
        await call.answer(encode_json(_document(changed)))

    async def invoke(self, call: Call) -> None:
        body = await self._body(call, MAX_EVENT_BYTES)
        kind = call.header(b"x-amz-invocation-type").decode("latin-1") or "RequestResponse"
        if kind not in ("RequestResponse", "Event", "DryRun"):
            raise ParameterError("InvocationType: expected RequestResponse, Event or DryRun")
        if call.query("Qualifier") not in ("", VERSION):
            raise errors.FunctionNotFoundError("there are no versions and aliases here but $LATEST")
        event = _event(body)
        context = _client_context(call.header(b"x-amz-client-context"))
        function = await self._function(call)
        headers: list[Header] = [(b"x-amz-executed-version", VERSION.encode())]
        if kind == "DryRun":
            await call.empty(204, headers=headers)
            return
        invocation = await self._invoker.start(function, event, context, call.caller)
        call.scope["execution"] = invocation.run.id
        headers.append((b"x-amzn-requestid", invocation.id.encode()))
        if kind == "Event":
            await call.empty(202, headers=headers)
            return
        told = await self._invoker.end(invocation, call.caller)
        if told.error:
            headers.append((b"x-amz-function-error", b"Unhandled"))
        if call.header(b"x-amz-log-type") == b"Tail":
            headers.append((b"x-amz-log-result", base64.b64encode(told.log)))
        await call.answer(told.payload, headers=[JSON, *headers])

    async def _function(self, call: Call) -> Function:
        return await self._functions.get(_short(call.path["name"]), call.caller)

    async def _body(self, call: Call, limit_bytes: int = 64 * 1024) -> bytes | bytearray:
        """The body of a request whose signature holds."""
        body = await call.body(limit_bytes)
        if call.caller.key:
            sigv4.check(call.scope, body)
        return body


def _short(name: str) -> str:
    """Of a name, a part of an ARN, or a whole one."""
    if name.startswith("arn:") or name.count(":") == 2:
        parts = name.split(":")
        return parts[6] if len(parts) >= 7 else parts[-1]
    return name


def _configured(settings: Settings, asked: Configuration) -> Settings:
    for name in ("Layers", "VpcConfig", "FileSystemConfigs"):
        if getattr(asked, name):
            raise ParameterError(f"{name}: there are none here")
    given = {
        "runtime": asked.Runtime,
        "role": asked.Role,
        "handler": asked.Handler,
        "description": asked.Description,
        "timeout_s": asked.Timeout,
        "memory_mb": asked.MemorySize,
        "environment": asked.Environment.Variables if asked.Environment is not None else None,
    }
    return msgspec.structs.replace(
        settings, **{name: value for name, value in given.items() if value is not None}
    )


def _package(code: Code) -> bytes:
    if code.S3Bucket or code.ImageUri:
        raise ParameterError(
            "Code: send the package itself, as ZipFile; there is no S3 and there are no images"
        )
    if not code.ZipFile:
        raise ParameterError("Code.ZipFile: the package is missing")
    return code.ZipFile


def _check_revision(function: Function, wanted: str | None) -> None:
    if wanted and wanted != function.upload:
        raise errors.ConflictError("RevisionId: the function has been changed since")


def _event(body: bytes | bytearray) -> str:
    """Raises InvalidJsonError."""
    text = bytes(body or b"{}").decode("utf-8", "replace")
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidJsonError(f"Could not parse request body into json: {error}") from None
    return text


def _client_context(value: bytes) -> object:
    if not value:
        return None
    try:
        found = json.loads(base64.b64decode(value, validate=True))
    except ValueError:
        raise ParameterError("ClientContext: expected JSON in base64") from None
    if not isinstance(found, dict):
        raise ParameterError("ClientContext: expected an object")
    return found


def _document(function: Function) -> dict[str, Any]:
    settings = function.settings
    return {
        "FunctionName": settings.name,
        "FunctionArn": arn(settings.name),
        "Runtime": settings.runtime,
        "Role": settings.role,
        "Handler": settings.handler,
        "CodeSize": settings.code_bytes,
        "Description": settings.description,
        "Timeout": settings.timeout_s,
        "MemorySize": settings.memory_mb,
        "LastModified": settings.modified_at,
        "CodeSha256": settings.sha256,
        "Version": VERSION,
        "Environment": {"Variables": settings.environment},
        "RevisionId": function.upload,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
    }
