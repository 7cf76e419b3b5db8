"""From a model's name to the upstreams that have it, and one turn of it with retries and fall-backs.

Nothing is tried again once a delta has been given out: a client must never see an answer's beginning twice. Keys
stand in no error and in no line of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from difflib import get_close_matches
from types import TracebackType

import msgspec

from onehop.agent.model import Delta, Dialect, Message, ModelRequest, TextPart
from onehop.agent.upstreams import config, failures
from onehop.agent.upstreams.codec import Capabilities
from onehop.agent.upstreams.config import ModelSpec, UpstreamSpec
from onehop.agent.upstreams.streaming import Turn
from onehop.agent.upstreams.upstream import Upstream
from onehop.config import Settings
from onehop.errors import ModelNotFoundError, ProblemError, UnsupportedParameterError, UpstreamBusyError

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
PATIENCE_S = 30.0
"""Longest Retry-After that is waited for; a longer one is the client's to wait."""
IMPATIENCE_S = 2.0
"""The same, while there is another upstream to fall back on."""
MAX_COMPARED = 200

log = logging.getLogger("onehop.models")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream that serves a model, and its name there."""

    upstream: str
    model: str
    dialect: Dialect
    capabilities: Capabilities


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a client's name of a model stands for.

    Args:
        dialect, capabilities: of the first target.
        targets: the later ones to fall back on.
        input_price, output_price: of a million tokens, in the setting `currency`.
        system: said to the model before everything else; `turn` does so.
    """

    name: str
    dialect: Dialect
    capabilities: Capabilities
    targets: tuple[Target, ...]
    input_price: float | None = None
    output_price: float | None = None
    system: str = ""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model as it is listed.

    Args:
        upstream: the name of the first upstream that serves it.
        created: seconds since 1970, 0 when nobody says.
    """

    name: str
    upstream: str
    dialect: Dialect
    created: int = 0


class Models:
    """All configured models; an async context manager that owns the connections to their upstreams.

    Args:
        keys: of the upstreams, by their names; None: they are read from files and the environment.
    """

    def __init__(self, settings: Settings, keys: Mapping[str, str] | None = None) -> None:
        specs = config.upstreams(settings)
        self._named: dict[str, ModelSpec] = {one.name: one for one in config.models(settings, specs)}
        if keys is None:
            keys = config.read_keys(specs)
        self.upstreams = {one.name: Upstream(one, keys.get(one.name, "")) for one in specs}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Models:
        for one in self.upstreams.values():
            await self._stack.enter_async_context(one.transport)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def names(self) -> list[ModelInfo]:
        """The models that clients may name: of the configuration, and of the upstreams' own lists where these count."""
        found: dict[str, ModelInfo] = {}

        def add(name: str, upstream: UpstreamSpec, created: int = 0) -> None:
            info = ModelInfo(name=name, upstream=upstream.name, dialect=upstream.kind, created=created)
            found.setdefault(name, info)

        for model in self._named.values():
            add(model.name, self.upstreams[model.targets[0][0]].spec)
        for upstream in self.upstreams.values():
            for name in upstream.spec.models or ():
                if not _is_pattern(name):
                    add(name, upstream.spec)
        asked = [one for one in self.upstreams.values() if _needs_list(one.spec)]
        for upstream, listed in zip(
            asked, await asyncio.gather(*(one.list.get() for one in asked)), strict=True
        ):
            for one in listed or ():
                if upstream.spec.models is None or _matches(upstream.spec, one.name):
                    add(one.name, upstream.spec, one.created)
        return list(found.values())

    async def info(self, name: str) -> ModelInfo:
        """One model as `names` lists it. Raises ModelNotFoundError."""
        for one in await self.names():
            if one.name == name:
                return one
        target = (await self.resolve(name)).targets[0]
        listed = await self.upstreams[target.upstream].list.get()
        if listed is not None and all(one.name != target.model for one in listed):
            raise await self._unknown(name)
        return ModelInfo(name=name, upstream=target.upstream, dialect=target.dialect)

    async def resolve(self, name: str) -> Model:
        """What `name` stands for: a model of the configuration, or one of an upstream, or UPSTREAM/MODEL.

        Raises ModelNotFoundError with names that are like it.
        """
        named = self._named.get(name)
        if named is not None:
            return self._model(name, named.targets, named)
        for upstream in self.upstreams.values():
            if upstream.spec.models is not None and _matches(upstream.spec, name):
                return self._model(name, ((upstream.spec.name, name),))
        before, _, rest = name.partition("/")
        chosen = self.upstreams.get(before)
        if chosen is not None and rest and (chosen.spec.models is None or _matches(chosen.spec, rest)):
            return self._model(name, ((before, rest),))
        owner = await self._owner(name)
        if owner is not None:
            return self._model(name, ((owner, name),))
        raise await self._unknown(name)

    def turn(self, model: Model, request: ModelRequest) -> AsyncGenerator[Delta]:
        """Asks the model; the last delta is a TurnEnd, and the only one.

        Closing the generator ends the connection at once. Timeouts, retries and waiting are the upstream's settings.

        Raises:
            UnsupportedParameterError: the first upstream's dialect cannot say what is asked for.
            UpstreamError: and its kin, the last one's of the chain; ModelNotFoundError when nobody knows the model.
        """
        return self._turn(model, request)

    async def _turn(self, model: Model, request: ModelRequest) -> AsyncGenerator[Delta]:
        if model.system:
            system = Message("system", [TextPart(model.system)])
            request = msgspec.structs.replace(request, messages=[system, *request.messages])
        turn = await self._open(model, request)
        try:
            while True:
                for delta in turn.deltas:
                    yield delta
                if turn.ended:
                    return
                await turn.more()
        except ProblemError as error:
            raise turn.upstream.clean(error) from None
        finally:
            turn.close()

    async def _open(self, model: Model, request: ModelRequest) -> Turn:
        """A turn that has given its first deltas."""
        failure: ProblemError | None = None
        for position, target in enumerate(model.targets, 1):
            upstream = self.upstreams[target.upstream]
            try:
                turn = Turn(upstream, request, target.model, target.capabilities)
            except UnsupportedParameterError:
                if failure is None:
                    raise
                continue  # the one before failed, and this one cannot say the same
            patience_s = PATIENCE_S if position == len(model.targets) else IMPATIENCE_S
            for attempt in range(upstream.spec.retries + 1):
                try:
                    await turn.start()
                    return turn
                except ProblemError as error:
                    failed = failure = upstream.clean(error)
                wait_s = _backoff_s(failed, attempt)
                if (
                    attempt == upstream.spec.retries
                    or turn.hopeless
                    or not failures.retriable(failed)
                    or wait_s > min(patience_s, turn.left_s())
                ):
                    break
                log.warning("%s; trying again in %.1f s", failed.detail, wait_s)
                await asyncio.sleep(wait_s)
            if not failures.elsewhere(failed):
                break
            if position < len(model.targets):
                log.warning("%s; falling back on %s", failed.detail, model.targets[position].upstream)
        assert failure is not None, "a model has a target"
        raise failure

    async def _owner(self, name: str) -> str | None:
        """Which of the upstreams that limit no models has this one."""
        asked = [one for one in self.upstreams.values() if one.spec.models is None]
        if len(asked) == 1:
            return asked[0].spec.name  # it answers itself for a name that it does not know
        for one in asked:
            if one.list.has(name):
                return one.spec.name
        silent: str | None = None
        for upstream, listed in zip(
            asked, await asyncio.gather(*(one.list.get() for one in asked)), strict=True
        ):
            if listed is None:
                silent = silent or upstream.spec.name
            elif any(one.name == name for one in listed):
                return upstream.spec.name
        return silent

    async def _unknown(self, name: str) -> ModelNotFoundError:
        shown = name[:200]
        if not self.upstreams:
            return ModelNotFoundError(
                f"there is no model {shown!r}: no server of models is configured; who runs onehop names one with "
                "--upstreams",
                model=shown,
            )
        known = [one.name for one in await self.names()]
        # Bounded, since a client may ask for anything, and comparing takes 30 µs for each.
        alike = [one for one in known if abs(len(one) - len(name)) <= 8 and len(one) <= 128][:MAX_COMPARED]
        near = get_close_matches(name, alike, n=3, cutoff=0.5)
        advice = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; GET /v1/models lists all"
        return ModelNotFoundError(f"there is no model {shown!r}{advice}", model=shown)

    def _model(
        self, name: str, targets: tuple[tuple[str, str], ...], named: ModelSpec | None = None
    ) -> Model:
        found = tuple(
            Target(
                upstream=upstream,
                model=real,
                dialect=self.upstreams[upstream].spec.kind,
                capabilities=self.upstreams[upstream].spec.capabilities(named),
            )
            for upstream, real in targets
        )
        return Model(
            name=name,
            dialect=found[0].dialect,
            capabilities=found[0].capabilities,
            targets=found,
            input_price=named.input_price if named else None,
            output_price=named.output_price if named else None,
            system=named.system if named else "",
        )


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _needs_list(spec: UpstreamSpec) -> bool:
    return spec.models is None or any(map(_is_pattern, spec.models))


def _matches(spec: UpstreamSpec, name: str) -> bool:
    return any(name == one or fnmatch.fnmatchcase(name, one) for one in spec.models or ())


def _backoff_s(error: ProblemError, attempt: int) -> float:
    """Seconds until the next try: as the upstream says, or longer each time; never all clients at the same moment."""
    if isinstance(error, UpstreamBusyError) and error.retry_after_s is not None:
        return error.retry_after_s + random.uniform(0, 0.1)
    return float(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt) * random.uniform(0.5, 1))
