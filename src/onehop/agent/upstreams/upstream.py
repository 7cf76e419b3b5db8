"""One server of models: its settings, its codec, its connections. Its key is in the headers and nowhere else."""

from __future__ import annotations

import importlib

from onehop.agent.model import Dialect
from onehop.agent.upstreams.codec import Codec
from onehop.agent.upstreams.config import UpstreamSpec
from onehop.agent.upstreams.listing import ModelList
from onehop.agent.upstreams.transport import Transport
from onehop.config import MASK
from onehop.errors import ConfigurationError, ProblemError


class Upstream:
    """Entered by `Models`, which owns it.

    Attributes:
        headers: of every request, the key among them.
        list: the models that it says it has.
    """

    def __init__(self, spec: UpstreamSpec, key: str) -> None:
        self.spec = spec
        self.codec = codec_of(spec.kind)
        self.transport = Transport(spec)
        self.headers = self.codec.headers(key)
        self.list = ModelList(spec.name, self.transport, self.codec, self.headers)
        self._key = key

    def __repr__(self) -> str:
        return f"<Upstream {self.spec.name}>"

    @property
    def has_key(self) -> bool:
        return bool(self._key)

    def clean(self, error: ProblemError) -> ProblemError:
        """`error` without the key, should the upstream have said it back."""
        if self._key and self._key in error.detail:
            error.detail = error.detail.replace(self._key, MASK)
            error.args = (error.detail,)
        return error


def codec_of(dialect: Dialect) -> Codec:
    """The dialect's codec: `CODEC` of the module of its name. Raises ConfigurationError."""
    name = f"onehop.agent.upstreams.{dialect}"
    try:
        codec: Codec = importlib.import_module(name).CODEC
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ConfigurationError(f"upstreams of the kind {dialect!r} are not supported yet") from None
    return codec
