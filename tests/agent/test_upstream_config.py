"""Upstreams and models out of the configuration: files, short forms, keys that stay secret, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onehop import config as settings_of
from onehop.agent.upstreams import config
from onehop.errors import ConfigurationError

SECRET = "sk-secret-0123456789"


def load(tmp_path: Path, text: str) -> settings_of.Settings:
    (tmp_path / "config.toml").write_text(text)
    return settings_of.load({"home": str(tmp_path)}, {})


def specs(**upstreams: Any) -> list[config.UpstreamSpec]:
    return config.upstreams(settings_of.load({"upstreams": json.dumps(upstreams)}, {}))


def test_a_file_with_everything(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    settings = load(
        tmp_path,
        """
        [upstreams.local-vllm]
        kind = "chat"
        url = "http://127.0.0.1:9000/v1/"
        key_file = "key"
        models = ["qwen-*"]
        headers = {X-Team = "a"}
        token_timeout_s = 5
        timeout_s = 60
        connect_timeout_s = 1.5
        retries = 0
        images = false
        parallel_calls = false
        strict = false
        stream_options = false
        max_tokens_name = "max_completion_tokens"

        [upstreams.openai]
        url = "https://api.openai.com/v1"

        [models."best of all"]
        upstreams = ["openai:gpt-9", "local-vllm:qwen-99"]
        input_price = 2
        output_price = 10.5
        system = "Be brief."
        images = true
        hosted = true
        """,
    )
    vllm, openai = servers = config.upstreams(settings)
    assert vllm == config.UpstreamSpec(
        name="local-vllm",
        kind="chat",
        url="http://127.0.0.1:9000/v1",
        key_env="LOCAL_VLLM_API_KEY",
        key_file=str(tmp_path / "key"),
        models=("qwen-*",),
        headers={"X-Team": "a"},
        connect_timeout_s=1.5,
        token_timeout_s=5.0,
        timeout_s=60.0,
        retries=0,
        images=False,
        parallel_calls=False,
        strict=False,
        stream_options=False,
        max_tokens_name="max_completion_tokens",
    )
    assert (openai.kind, openai.key_env, openai.models) == ("chat", "OPENAI_API_KEY", None)
    (model,) = config.models(settings, servers)
    assert model.targets == (("openai", "gpt-9"), ("local-vllm", "qwen-99"))
    assert (model.input_price, model.output_price, model.system) == (2.0, 10.5, "Be brief.")
    assert vllm.capabilities(model).images
    assert vllm.capabilities(model).hosted
    assert not vllm.capabilities().images
    assert config.read_keys(servers, {}) == {"local-vllm": SECRET}
    assert config.read_keys(servers, {"OPENAI_API_KEY": "k2"}) == {"local-vllm": SECRET, "openai": "k2"}


@pytest.mark.parametrize(
    ("given", "name", "kind", "url", "variable"),
    [
        ("chat=https://llm.example/v1", "chat", "chat", "https://llm.example/v1", "CHAT_API_KEY"),
        ("messages=https://llm.example", "messages", "messages", "https://llm.example", "MESSAGES_API_KEY"),
        (
            "big=responses+https://api.openai.com/v1",
            "big",
            "responses",
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
        ),
        (
            "claude=https://api.anthropic.com",
            "claude",
            "messages",
            "https://api.anthropic.com",
            "ANTHROPIC_API_KEY",
        ),
        (
            "https://generativelanguage.googleapis.com",
            "generativelanguage_googleapis_com",
            "gemini",
            "https://generativelanguage.googleapis.com",
            "GEMINI_API_KEY",
        ),
        ("local=http://127.0.0.1:8080/v1", "local", "chat", "http://127.0.0.1:8080/v1", "LOCAL_API_KEY"),
    ],
)
def test_short_forms(given: str, name: str, kind: str, url: str, variable: str) -> None:
    for flags, environ in (({"upstreams": [given]}, {}), ({}, {"ONEHOP_UPSTREAMS": given})):
        (spec,) = config.upstreams(settings_of.load(flags, environ))
        assert (spec.name, spec.kind, spec.url, spec.key_env) == (name, kind, url, variable)


def test_short_forms_of_models() -> None:
    flags = {
        "upstreams": ["a=http://h/v1", "b=http://h/v1"],
        "models": ["gpt-4o.x=a:real/name+b:other", "m=a:m"],
    }
    settings = settings_of.load(flags, {})
    found = config.models(settings, config.upstreams(settings))
    assert [(one.name, one.targets) for one in found] == [
        ("gpt-4o.x", (("a", "real/name"), ("b", "other"))),
        ("m", (("a", "m"),)),
    ]
    again = settings_of.load({}, settings.environ())
    assert (again.models, again.upstreams) == (settings.models, settings.upstreams)


def test_habits_of_hosts() -> None:
    urls = {"a": "api.openai.com", "b": "x.openai.azure.com", "c": "api.mistral.ai", "d": "openrouter.ai"}
    found = specs(**{name: {"url": f"https://{host}/v1"} for name, host in urls.items()})
    assert [(one.max_tokens_name, one.stream_options) for one in found] == [
        ("max_completion_tokens", True),
        ("max_completion_tokens", True),
        ("max_tokens", False),
        ("max_tokens", True),
    ]


def test_a_vendors_key_goes_to_nobody_else() -> None:
    (spec,) = specs(mine={"url": "https://elsewhere.example/v1"})
    assert config.read_keys([spec], {"OPENAI_API_KEY": SECRET}) == {}


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "`url` is missing"),
        ({"url": "ftp://h"}, "expected http"),
        ({"url": "https://"}, "expected http"),
        ({"url": "http://[::1"}, "expected http"),
        ({"url": f"https://u:{SECRET}@h"}, "no user"),
        ({"url": "https://h/v1?a=b"}, "no user, query"),
        ({"url": "https://h", "kind": "telepathy"}, "expected one of chat, responses, messages, gemini"),
        ({"url": "https://h", "key": SECRET}, "does not belong in the configuration"),
        ({"url": "https://h", "modles": []}, "no member 'modles'"),
        ({"url": "https://h", "models": [1]}, "list of texts"),
        ({"url": "https://h", "headers": {"a b": "c"}}, "name of a header"),
        ({"url": "https://h", "headers": {"a": "c\r\nd: e"}}, "name of a header"),
        ({"url": "https://h", "timeout_s": 0}, "number of seconds"),
        ({"url": "https://h", "token_timeout_s": True}, "number of seconds"),
        ({"url": "https://h", "retries": 99}, "from 0 to 10"),
        ({"url": "https://h", "images": "no"}, "true or false"),
        ({"url": "https://h", "max_tokens_name": "tokens"}, "max_tokens or max_completion_tokens"),
        ({"url": "https://h", "key_env": 1}, "expected text"),
    ],
)
def test_tables_that_are_refused(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as raised:
        specs(up=table)
    assert str(raised.value).startswith("upstreams.up")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "table", "text"),
    [
        ("m", {}, "1 to 8"),
        ("m", {"upstreams": ["nobody:x"]}, "configured upstreams: up"),
        ("m", {"upstreams": ["up:"]}, "UPSTREAM:MODEL"),
        ("m", {"upstreams": ["up:x"], "input_price": -1}, "a price"),
        ("m", {"upstreams": ["up:x"], "hosted": 1}, "true or false"),
        ("m", {"upstreams": ["up:x"], "kind": "chat"}, "no member 'kind'"),
        (" m", {"upstreams": ["up:x"]}, "one line"),
        ("m\n", {"upstreams": ["up:x"]}, "one line"),
    ],
)
def test_models_that_are_refused(name: str, table: dict[str, Any], text: str) -> None:
    flags = {"upstreams": json.dumps({"up": {"url": "https://h"}}), "models": json.dumps({name: table})}
    settings = settings_of.load(flags, {})
    with pytest.raises(ConfigurationError, match=text):
        config.models(settings, config.upstreams(settings))


def test_names_of_upstreams_are_plain() -> None:
    for name in ("a:b", "a/b", "", "-a", "ä"):
        with pytest.raises(ConfigurationError, match="letters, digits"):
            specs(**{name: {"url": "https://h"}})


@pytest.mark.parametrize("text", ["a b", "ä", "line\nline", "\x00"])
def test_what_is_no_key_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(SECRET + text + SECRET)
    (spec,) = specs(up={"url": "https://h", "key_file": str(tmp_path / "key")})
    with pytest.raises(ConfigurationError, match="is no key") as raised:
        config.read_keys([spec])
    assert SECRET not in str(raised.value)


def test_keys_that_are_not_there(tmp_path: Path) -> None:
    (named,) = specs(up={"url": "https://h", "key_env": "NOT_SET"})
    with pytest.raises(ConfigurationError, match="no variable NOT_SET"):
        config.read_keys([named], {})
    (missing,) = specs(up={"url": "https://h", "key_file": str(tmp_path / "none")})
    with pytest.raises(ConfigurationError, match="No such file"):
        config.read_keys([missing], {})
    (tmp_path / "empty").write_text("\n")
    (empty,) = specs(up={"url": "https://h", "key_file": str(tmp_path / "empty")})
    with pytest.raises(ConfigurationError, match="has no key in it"):
        config.read_keys([empty], {})


def test_values_of_headers_are_not_printed(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONEHOP_")}
    table = {"up": {"url": "https://h", "headers": {"X-Token": SECRET}}}
    environ |= {"ONEHOP_UPSTREAMS": json.dumps(table), "ONEHOP_HOME": str(tmp_path)}
    for arguments in (["config"], ["config", "--json"], ["config", "upstreams"]):
        done = subprocess.run(
            [sys.executable, "-m", "onehop.cli.main", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "X-Token" in done.stdout
        assert SECRET not in done.stdout
