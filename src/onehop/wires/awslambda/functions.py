"""Functions, each with its package as one upload: a line of settings, then the package as it came."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from onehop import errors
from onehop.agent.uploads import Uploads
from onehop.sessions.caller import Caller
from onehop.wires.awslambda.errors import FunctionExistsError, ParameterError

PURPOSE = "onehop.lambda"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]+")
RUNTIMES = re.compile(r"python3\.\d{1,2}")
MAX_TIMEOUT_S = 900
MAX_HEAD_BYTES = 64 * 1024
ZIP = b"PK"


class Settings(msgspec.Struct, kw_only=True):
    """What a function is, without its code. `sha256` is in base64, as the service tells it."""

    name: str
    runtime: str = "python3.13"
    handler: str = "lambda_function.lambda_handler"
    role: str = ""
    description: str = ""
    timeout_s: int = 3
    memory_mb: int = 128
    environment: dict[str, str] = {}
    sha256: str = ""
    code_bytes: int = 0
    revision: str = ""
    modified_at: str = ""


class Function(msgspec.Struct):
    """One of them, and the upload that it is."""

    settings: Settings
    upload: str


_decode = msgspec.json.Decoder(Settings)


class Functions:
    """Methods raise ProblemError and its subclasses only."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    async def list(self, caller: Caller) -> list[Function]:
        """By name."""
        rows = await self._uploads.list(caller, purpose=PURPOSE)
        newest = {row.name: row.id for row in rows}  # a change that was broken off has left two
        return [await self._open(upload, caller) for _, upload in sorted(newest.items())]

    async def get(self, name: str, caller: Caller) -> Function:
        """Raises FunctionNotFoundError."""
        upload = await self._find(name, caller)
        if not upload:
            raise errors.FunctionNotFoundError(f"Function not found: {name[:170]}")
        return await self._open(upload, caller)

    async def create(self, settings: Settings, package: bytes, caller: Caller) -> Function:
        """Raises FunctionExistsError, ParameterError."""
        if await self._find(settings.name, caller):
            raise FunctionExistsError(f"Function already exist: {settings.name}")
        return await self._store(settings, package, caller)

    async def change(
        self, function: Function, settings: Settings, package: bytes, caller: Caller
    ) -> Function:
        """Its successor, under the same name."""
        made = await self._store(settings, package, caller)
        with contextlib.suppress(errors.UploadNotFoundError):
            await self._uploads.delete(caller, function.upload)
        return made

    async def delete(self, name: str, caller: Caller) -> None:
        """Raises FunctionNotFoundError."""
        function = await self.get(name, caller)
        await self._uploads.delete(caller, function.upload)

    async def package(self, function: Function, caller: Caller) -> bytes:
        """As it came."""
        try:
            async with self._uploads.read(caller, function.upload) as (_, chunks):
                whole = b"".join([chunk async for chunk in chunks])
        except errors.UploadNotFoundError:
            raise errors.FunctionNotFoundError("the function was changed or deleted meanwhile") from None
        return whole.partition(b"\n")[2]

    async def _find(self, name: str, caller: Caller) -> str:
        rows = await self._uploads.list(caller, purpose=PURPOSE)
        found = [row.id for row in rows if row.name == name]
        return found[-1] if found else ""

    async def _open(self, upload: str, caller: Caller) -> Function:
        try:
            async with self._uploads.read(caller, upload) as (_, chunks):
                head = bytearray()
                async for chunk in chunks:
                    head += chunk
                    if b"\n" in head or len(head) > MAX_HEAD_BYTES:
                        break
        except errors.UploadNotFoundError:
            raise errors.FunctionNotFoundError("the function was changed or deleted meanwhile") from None
        return Function(_decode.decode(bytes(head.partition(b"\n")[0])), upload)

    async def _store(self, settings: Settings, package: bytes, caller: Caller) -> Function:
        checked(settings)
        if package.startswith(ZIP):
            _check_zip(package)
        settings.sha256 = base64.b64encode(hashlib.sha256(package).digest()).decode()
        settings.code_bytes = len(package)
        settings.modified_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        head = msgspec.json.encode(settings) + b"\n"
        if len(head) > MAX_HEAD_BYTES:
            raise ParameterError("the settings are longer than 64 KiB")

        async def content() -> AsyncIterator[bytes]:
            yield head
            yield package

        row = await self._uploads.create(caller, settings.name, content(), purpose=PURPOSE)
        settings.revision = row.id
        return Function(settings, row.id)


def checked(settings: Settings) -> None:
    """Raises ParameterError."""
    if not NAME.fullmatch(settings.name):
        raise ParameterError("FunctionName: 1 to 64 letters, digits, - and _")
    if not RUNTIMES.fullmatch(settings.runtime):
        raise ParameterError(f"Runtime: {settings.runtime[:40]!r} is not here; functions are in python3.x")
    module, dot, handler = settings.handler.rpartition(".")
    if (
        not dot
        or not handler.isidentifier()
        or not all(map(str.isidentifier, module.replace("/", ".").split(".")))
    ):
        raise ParameterError("Handler: expected module.function")
    wrong = next((name for name in settings.environment if not VARIABLE.fullmatch(name)), None)
    if wrong is not None:
        raise ParameterError(f"Environment: {wrong[:40]!r} cannot be the name of a variable")
    if not 1 <= settings.timeout_s <= MAX_TIMEOUT_S:
        raise ParameterError(f"Timeout: expected 1 to {MAX_TIMEOUT_S} seconds")
    if not 128 <= settings.memory_mb <= 10240:
        raise ParameterError("MemorySize: expected 128 to 10240 MB")


def _check_zip(package: bytes) -> None:
    try:
        broken = zipfile.ZipFile(io.BytesIO(package)).testzip()
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise ParameterError(f"Could not unzip uploaded file: {error}") from None
    if broken is not None:
        raise ParameterError(f"Could not unzip uploaded file: {broken[:200]} is damaged")
