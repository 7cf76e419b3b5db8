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

MAX_DETAIL = 2000


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
        """`error` as one line of bounded length, without the key, should the upstream have said it back."""
        detail = " ".join(error.detail.split())[:MAX_DETAIL]
        if self._key:
            detail = detail.replace(self._key, MASK)
        error.detail = detail
        error.args = (detail,)
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
