"""From the settings `upstreams` and `models` to what the router needs. Keys are read here and nowhere else.

One table per server of models, in the configuration file as `[upstreams.NAME]`, and one per model of an own name,
as `[models.NAME]`; what is given on the command line or in the environment is a `target`. No key may stand in the
configuration itself, and none is part of what this module gives besides `read_keys`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from onehop.agent.model import Dialect
from onehop.agent.upstreams.codec import Capabilities
from onehop.config import Settings
from onehop.errors import ConfigurationError

DIALECTS: tuple[str, ...] = get_args(Dialect)
MAX_UPSTREAMS = 64
MAX_MODELS = 1024
MAX_TARGETS = 8
KEY_BYTES = 16 * 1024
TIMEOUT_S = 900.0
TOKEN_TIMEOUT_S = 180.0
CONNECT_TIMEOUT_S = 10.0
RETRIES = 2

VENDORS: dict[str, tuple[Dialect, str]] = {
    "api.openai.com": ("chat", "OPENAI_API_KEY"),
    "api.anthropic.com": ("messages", "ANTHROPIC_API_KEY"),
    "generativelanguage.googleapis.com": ("gemini", "GEMINI_API_KEY"),
    "openrouter.ai": ("chat", "OPENROUTER_API_KEY"),
    "api.deepseek.com": ("chat", "DEEPSEEK_API_KEY"),
    "api.mistral.ai": ("chat", "MISTRAL_API_KEY"),
    "api.groq.com": ("chat", "GROQ_API_KEY"),
    "api.together.xyz": ("chat", "TOGETHER_API_KEY"),
    "api.x.ai": ("chat", "XAI_API_KEY"),
}
"""Hosts whose kind and variable of the key are known. A vendor's key goes to that vendor's host only, unless
`key_env` says otherwise."""

NO_STREAM_OPTIONS = ("api.mistral.ai",)
"""It refuses members that it does not know, and counts tokens without being asked."""
NEWER_LIMIT = ("api.openai.com", ".openai.azure.com")
"""Hosts whose newer models refuse `max_tokens`; many others know only that."""


class UpstreamSpec(msgspec.Struct, kw_only=True, frozen=True):
    """A server of models.

    Args:
        url: what the dialect's paths are put behind; without a slash at the end.
        key_env: the variable that has the key; `key_required` when the configuration names it.
        key_file: a file that has the key; it goes before `key_env`.
        models: names or patterns (`gpt-*`) of the models that it serves; None: whatever its own list says.
        headers: that every request gets besides.
        token_timeout_s: longest silence between two events of an answer.
        timeout_s: for a whole turn.
        retries: after a first try that failed, before the next upstream of the chain.
        images, parallel_calls, strict, stream_options, max_tokens_name: see `Capabilities`.
    """

    name: str
    kind: Dialect
    url: str
    key_env: str = ""
    key_file: str = ""
    key_required: bool = False
    models: tuple[str, ...] | None = None
    headers: dict[str, str] = {}
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    token_timeout_s: float = TOKEN_TIMEOUT_S
    timeout_s: float = TIMEOUT_S
    retries: int = RETRIES
    images: bool = True
    parallel_calls: bool = True
    strict: bool = True
    stream_options: bool = True
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_tokens"

    def capabilities(self, model: ModelSpec | None = None) -> Capabilities:
        """What a model there can do: `model`'s own word goes before the server's."""
        images = self.images if model is None or model.images is None else model.images
        return Capabilities(
            images=images,
            parallel_calls=self.parallel_calls,
            strict=self.strict,
            hosted=model is not None and model.hosted,
            stream_options=self.stream_options,
            max_tokens_name=self.max_tokens_name,
        )


class ModelSpec(msgspec.Struct, kw_only=True, frozen=True):
    """A model under a name of its own.

    Args:
        targets: upstream and that one's name of the model; the later ones to fall back on.
        hosted: the upstream's own interpreter is used instead of ours.
        input_price, output_price: of a million tokens, in the setting `currency`.
        system: said to the model before everything else.
    """

    name: str
    targets: tuple[tuple[str, str], ...]
    hosted: bool = False
    images: bool | None = None
    input_price: float | None = None
    output_price: float | None = None
    system: str = ""


def upstreams(settings: Settings) -> list[UpstreamSpec]:
    """The servers, in the order of their names. Raises ConfigurationError naming the server and the member."""
    tables = _loaded(settings, "upstreams", MAX_UPSTREAMS)
    return [_upstream(name, table, where) for name, table, where in tables]


def models(settings: Settings, servers: list[UpstreamSpec]) -> list[ModelSpec]:
    """The models of own names, in the order of these. Raises ConfigurationError naming the model and the member."""
    known = {one.name for one in servers}
    return [
        _model(name, table, where, known) for name, table, where in _loaded(settings, "models", MAX_MODELS)
    ]


def read_keys(specs: list[UpstreamSpec], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The key of each upstream that has one, by its name.

    Raises:
        ConfigurationError: a key that the configuration names is not there, or is no key; it says where one was
            looked for and never what was found.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, str] = {}
    for spec in specs:
        where = f"upstreams.{spec.name}"
        if spec.key_file:
            key = _read_file(spec.key_file, where)
        else:
            key = environ.get(spec.key_env, "").strip()
            if not key and spec.key_required:
                raise ConfigurationError(
                    f"{where}: there is no variable {spec.key_env} in the environment; set it, or give a "
                    "`key_file`"
                )
        if not key.isascii() or not key.isprintable() or " " in key:
            source = spec.key_file or f"the variable {spec.key_env}"
            raise ConfigurationError(
                f"{where}: what is in {source} is no key: one line of ASCII without spaces"
            )
        if key:
            found[spec.name] = key
    return found


def _read_file(path: str, where: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(KEY_BYTES + 1)
        key = content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigurationError(f"{where}.key_file: {path} cannot be read: {reason}") from None
    if not key or len(content) > KEY_BYTES:
        raise ConfigurationError(f"{where}.key_file: {path} has no key in it")
    return key


def _loaded(settings: Settings, setting: str, most: int) -> list[tuple[str, dict[str, Any], str]]:
    tables: dict[str, Any] = json.loads(getattr(settings, setting) or "{}")
    if len(tables) > most:
        raise ConfigurationError(f"{setting}: {len(tables)} of them; at most {most}")
    origin = settings.sources.get(setting, "default")
    return [(name, tables[name], f"{setting}.{name} (from {origin})") for name in sorted(tables)]


_UPSTREAM_MEMBERS = {
    *("kind", "target", "folder", "url", "key_env", "key_file", "models", "headers", "connect_timeout_s"),
    *("token_timeout_s", "timeout_s", "retries", "images", "parallel_calls", "strict"),
    *("stream_options", "max_tokens_name"),
}
_MODEL_MEMBERS = {
    *("target", "folder", "upstreams", "hosted", "images", "input_price", "output_price", "system"),
}


def _upstream(name: str, table: dict[str, Any], where: str) -> UpstreamSpec:
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", name, re.ASCII):
        raise ConfigurationError(f"{where}: an upstream's name is letters, digits, - and _")
    if "key" in table or "api_key" in table:
        raise ConfigurationError(
            f"{where}: a key does not belong in the configuration; name its variable with `key_env`, or its file "
            "with `key_file`"
        )
    _known(table, _UPSTREAM_MEMBERS, where)
    kind, url = table.get("kind"), table.get("url")
    if "target" in table:
        kind, url = _target(name, str(table["target"]))
    host = _checked(url, where)
    vendor = VENDORS.get(host)
    kind = kind or (vendor[0] if vendor else "chat")
    if kind not in DIALECTS:
        raise ConfigurationError(f"{where}.kind: expected one of {', '.join(DIALECTS)}, got {kind!r}")
    named = _text(table, "key_env", where)
    key_file = _text(table, "key_file", where)
    if key_file:
        key_file = str((Path(table.get("folder", "/")) / Path(key_file).expanduser()).resolve())
    own = re.sub(r"\W", "_", name).upper() + "_API_KEY"
    return UpstreamSpec(
        name=name,
        kind=kind,
        url=str(url).rstrip("/"),
        key_env=named or (vendor[1] if vendor else own),
        key_file=key_file,
        key_required=bool(named),
        models=_texts(table["models"], f"{where}.models") if "models" in table else None,
        headers=_headers(table.get("headers", {}), f"{where}.headers"),
        connect_timeout_s=_seconds(table, "connect_timeout_s", CONNECT_TIMEOUT_S, where),
        token_timeout_s=_seconds(table, "token_timeout_s", TOKEN_TIMEOUT_S, where),
        timeout_s=_seconds(table, "timeout_s", TIMEOUT_S, where),
        retries=_retries(table.get("retries", RETRIES), f"{where}.retries"),
        images=_flag(table, "images", True, where),
        parallel_calls=_flag(table, "parallel_calls", True, where),
        strict=_flag(table, "strict", True, where),
        stream_options=_flag(table, "stream_options", host not in NO_STREAM_OPTIONS, where),
        max_tokens_name=_limit_name(table, host, where),
    )


def _target(name: str, target: str) -> tuple[str | None, str]:
    """Kind and URL of `[KIND+]URL`; an upstream that has a kind's name is of that kind."""
    kind, separator, url = target.partition("+")
    if separator and kind in DIALECTS:
        return kind, url
    return (name if name in DIALECTS else None), target


def _checked(url: Any, where: str) -> str:
    """The host of a URL that can be used."""
    if not isinstance(url, str) or not url:
        raise ConfigurationError(f"{where}: `url` is missing, as https://api.openai.com/v1")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", None
    if parts is None or not host or parts.scheme not in ("http", "https") or not url.isascii():
        raise ConfigurationError(f"{where}.url: expected http://HOST… or https://HOST…")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{where}.url: no user, query or fragment may stand in it; keys go by `key_env`"
        )
    return host


def _model(name: str, table: dict[str, Any], where: str, known: set[str]) -> ModelSpec:
    if not 0 < len(name) <= 256 or not name.isprintable() or name != name.strip():
        raise ConfigurationError(f"{where}: a model's name is one line of at most 256 characters")
    _known(table, _MODEL_MEMBERS, where)
    given = table.get("upstreams", [])
    if "target" in table:
        given = str(table["target"]).split("+")
    targets = []
    for one in _texts(given, f"{where}.upstreams"):
        upstream, separator, real = one.partition(":")
        if not separator:
            real = name
        if upstream not in known or not real:
            names = ", ".join(sorted(known)) or "none"
            raise ConfigurationError(
                f"{where}.upstreams: expected UPSTREAM:MODEL, got {one!r}; configured upstreams: {names}"
            )
        targets.append((upstream, real))
    if not 0 < len(targets) <= MAX_TARGETS:
        raise ConfigurationError(f"{where}.upstreams: expected 1 to {MAX_TARGETS} of UPSTREAM:MODEL")
    return ModelSpec(
        name=name,
        targets=tuple(targets),
        hosted=_flag(table, "hosted", False, where),
        images=_flag(table, "images", True, where) if "images" in table else None,
        input_price=_price(table, "input_price", where),
        output_price=_price(table, "output_price", where),
        system=_text(table, "system", where),
    )


def _known(table: dict[str, Any], members: set[str], where: str) -> None:
    wrong = sorted(set(table) - members)
    if wrong:
        raise ConfigurationError(
            f"{where}: there is no member {wrong[0]!r}; there are {', '.join(sorted(members - {'target', 'folder'}))}"
        )


def _text(table: dict[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ConfigurationError(f"{where}.{key}: expected text, got {value!r}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
        raise ConfigurationError(f"{where}: expected a list of texts, got {value!r}")
    return tuple(value)


def _headers(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: expected a table of names and texts")
    for name, text in value.items():
        token = re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name)
        if not token or not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise ConfigurationError(f"{where}.{name}: expected the name of a header and one line of ASCII")
    return dict(value)


def _seconds(table: dict[str, Any], key: str, default: float, where: str) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86400:
        raise ConfigurationError(f"{where}.{key}: expected a number of seconds above 0, got {value!r}")
    return float(value)


def _retries(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        raise ConfigurationError(f"{where}: expected a whole number from 0 to 10, got {value!r}")
    return value


def _flag(table: dict[str, Any], key: str, default: bool, where: str) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise ConfigurationError(f"{where}.{key}: expected true or false, got {value!r}")
    return value


def _limit_name(
    table: dict[str, Any], host: str, where: str
) -> Literal["max_completion_tokens", "max_tokens"]:
    value = table.get(
        "max_tokens_name", "max_completion_tokens" if host.endswith(NEWER_LIMIT) else "max_tokens"
    )
    if value == "max_tokens":
        return "max_tokens"
    if value == "max_completion_tokens":
        return "max_completion_tokens"
    raise ConfigurationError(
        f"{where}.max_tokens_name: expected max_tokens or max_completion_tokens, got {value!r}"
    )


def _price(table: dict[str, Any], key: str, where: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ConfigurationError(f"{where}.{key}: expected a price of a million tokens, got {value!r}")
    return float(value)
