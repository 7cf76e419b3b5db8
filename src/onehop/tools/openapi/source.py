"""The source of kind openapi: reads the document once, then turns calls into requests.

Runs in its worker, which alone has the service's secrets.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from onehop.errors import CallFailedError, ConfigurationError
from onehop.tools.credentials import Credentials, origin_of
from onehop.tools.http import Exchange
from onehop.tools.model import SourceSpec, ToolSpec
from onehop.tools.openapi import document, options, requests, responses
from onehop.tools.openapi.operations import RAW, Operation, Reader
from onehop.tools.schemas import Arguments
from onehop.tools.source import Publish, Source

DOCUMENT_TIMEOUT_S = 30.0


class OpenApiSource(Source):
    """Options: see OpenApiOptions."""

    def __init__(self, spec: SourceSpec, secrets: dict[str, str]) -> None:
        super().__init__(spec, secrets)
        self._options = options.read(spec.options)
        self._credentials = Credentials(self._options.auth, secrets)
        self._exchange = Exchange(
            self._credentials, max_bytes=self._options.max_response_bytes, timeout_s=spec.timeout_s
        )
        self._operations: dict[str, Operation] = {}
        self._arguments: dict[str, Arguments] = {}
        self._base_url = ""

    async def start(self, publish: Publish) -> None:
        where = self._options.document
        if self._options.base_url is not None:
            self._credentials.bind(self._options.base_url)  # a document in the same place may need them
        found = document.parse(await self._load(where), where)
        reader = Reader(found, self._options, self._warn)
        self._base_url = reader.base_url
        self._credentials.bind(self._base_url)
        self._operations = reader.operations()
        tools = [one.spec for one in self._operations.values()]
        if self._options.offers_raw_request:
            about = "Any other request to the same service. The value has `status`, `headers` and `body`."
            tools.append(ToolSpec(name=RAW, description=about, parameters=requests.RAW_PARAMETERS))
        publish(tools)

    async def _load(self, where: str) -> bytes:
        if not options.is_url(where):
            return _read(where)
        exchange = Exchange(self._credentials, max_bytes=document.MAX_BYTES, timeout_s=DOCUMENT_TIMEOUT_S)
        try:
            answer = await exchange.send("GET", where, headers={"Accept": "application/json, */*;q=0.5"})
        except CallFailedError as error:
            raise ConfigurationError(f"document: {where}: {error.message}") from None
        finally:
            await exchange.close()
        if answer.status != 200:
            raise ConfigurationError(f"document: {where}: HTTP {answer.status} {answer.reason}")
        return answer.body

    def _warn(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")  # the worker's output goes to the server's log

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        operation = self._operations.get(tool)
        is_raw = operation is None and tool == RAW and self._options.offers_raw_request
        if operation is None and not is_raw:
            raise CallFailedError("not_found", f"the source {self.spec.name!r} has no tool {tool!r}")
        self._checked(tool, operation).check(arguments)
        if operation is None:
            hidden = {header.lower() for header in self._credentials.headers}
            prepared = requests.prepare_raw(self._base_url, arguments, hidden)
        else:
            prepared = requests.prepare(operation, arguments)
        if origin_of(prepared.url) != self._credentials.origin:
            raise CallFailedError("bad_arguments", "the arguments lead to another host")
        answer = await self._exchange.send(
            prepared.method, prepared.url, headers=prepared.headers, content=prepared.content
        )
        made = responses.whole if is_raw else responses.value
        return made(answer, prepared.method)

    def _checked(self, tool: str, operation: Operation | None) -> Arguments:
        """Compiled at the first call: there may be thousands."""
        found = self._arguments.get(tool)
        if found is None:
            schema = requests.RAW_PARAMETERS if operation is None else operation.spec.parameters
            found = self._arguments[tool] = Arguments(schema)
            if found.unusable:
                self._warn(
                    f"{tool}: its arguments are not checked here, its schema is unusable: {found.unusable}"
                )
        return found

    async def close(self) -> None:
        await self._exchange.close()


def _read(where: str) -> bytes:
    try:
        with open(Path(where), "rb") as file:
            return file.read(document.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"document: {where}: {error.strerror}") from None
