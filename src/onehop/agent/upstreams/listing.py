"""The models that upstreams themselves list, asked for when somebody wants to know, and kept for a while."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from onehop.agent.model import Dialect
from onehop.agent.upstreams import failures
from onehop.agent.upstreams.codec import Codec
from onehop.agent.upstreams.transport import Transport
from onehop.errors import ProblemError, UpstreamError, UpstreamTimeoutError

FRESH_S = 300.0
FAILED_S = 15.0
"""An upstream that gave no list is not asked again before."""
TIMEOUT_S = 10.0
LIST_BYTES = 16 * 1024 * 1024
MAX_LISTED = 10_000


class Listed(msgspec.Struct, frozen=True):
    """A model in an upstream's list; `created` is in seconds since 1970, 0 when it does not say."""

    name: str
    created: int = 0


class _OpenAIModel(msgspec.Struct):
    id: str
    created: Any = 0


class _OpenAIList(msgspec.Struct):
    """https://platform.openai.com/docs/api-reference/models/list; Anthropic's has `data` with `id` as well."""

    data: list[_OpenAIModel]


class _GoogleModel(msgspec.Struct):
    name: str


class _GoogleList(msgspec.Struct):
    """https://ai.google.dev/api/models#method:-models.list"""

    models: list[_GoogleModel]


class ModelList:
    """One upstream's list, cached.

    Attributes:
        error: why `get` gives none.
    """

    def __init__(self, upstream: str, transport: Transport, codec: Codec, headers: dict[str, str]) -> None:
        self._upstream = upstream
        self._transport = transport
        self._codec = codec
        self._headers = headers
        self._lock = asyncio.Lock()
        self._found: list[Listed] = []
        self._names: set[str] = set()
        self.error: ProblemError | None = None
        self._good_until_s = 0.0

    def has(self, name: str) -> bool:
        """It was in the list that came last, however old that is: nobody waits for another one then."""
        return name in self._names

    async def get(self) -> list[Listed] | None:
        """The models; None when the upstream does not say."""
        async with self._lock:
            if time.monotonic() >= self._good_until_s:
                try:
                    self._found, self.error = await self.ask(), None
                    self._names = {one.name for one in self._found}
                    self._good_until_s = time.monotonic() + FRESH_S
                except ProblemError as error:
                    self.error = error
                    self._good_until_s = time.monotonic() + FAILED_S
            return None if self.error is not None else self._found

    async def ask(self) -> list[Listed]:
        """Asks now. Raises UpstreamError (and its kin) saying what is wrong."""
        name = self._upstream
        answer = await self._transport.send("GET", self._path(), self._headers, None, TIMEOUT_S)
        try:
            body = await answer.body(asyncio.get_running_loop().time() + TIMEOUT_S, LIST_BYTES)
        except TimeoutError:
            raise UpstreamTimeoutError(
                f"the upstream {name!r} did not end its list of models in time"
            ) from None
        finally:
            answer.close()
        if answer.status != 200:
            raise self._codec.error(answer.status, body) or failures.by_status(name, answer.status)
        return _read(self._codec.dialect, body, name)

    def _path(self) -> str:
        """Beside where turns are asked for."""
        path = self._codec.path("x")
        if self._codec.dialect == "gemini":
            return path.partition("/models/")[0] + "/models?pageSize=1000"
        if self._codec.dialect == "messages":
            return path.partition("/messages")[0] + "/models?limit=1000"
        return "/models"


def _read(dialect: Dialect, body: bytes, upstream: str) -> list[Listed]:
    try:
        if dialect == "gemini":
            names = (
                one.name.removeprefix("models/") for one in msgspec.json.decode(body, type=_GoogleList).models
            )
            found = [Listed(name) for name in names]
        else:
            data = msgspec.json.decode(body, type=_OpenAIList).data
            found = [Listed(one.id, one.created if type(one.created) is int else 0) for one in data]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise UpstreamError(f"the upstream {upstream!r} gave a list of models that cannot be read") from None
    return found[:MAX_LISTED]
