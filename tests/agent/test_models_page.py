"""docs/models.md is true: its examples are read as they stand, its numbers are the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec
import pytest

from onehop import config as settings_of
from onehop.agent.upstreams import config, router
from onehop.cli.main import parser
from onehop.errors import (
    ContextOverflowError,
    ModelNotFoundError,
    UpstreamAuthenticationError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_the_files_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)))
    (tmp_path / "openai.key").write_text("sk-1\n")
    settings = settings_of.load({"home": str(tmp_path)}, {})
    servers = config.upstreams(settings)
    assert [one.name for one in servers] == ["local-vllm", "openai"]
    assert config.read_keys(servers, {}) == {"openai": "sk-1"}
    (model,) = config.models(settings, servers)
    assert model.targets == (("local-vllm", "qwen-72b"), ("openai", "gpt-4o-mini"))


def test_the_command_lines_of_the_page(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.replace("\\\n", "").splitlines()]
    for words in commands:
        if words[0] == "onehop":
            arguments = parser(words[1]).parse_args(words[1:])
            if words[1] == "serve":
                flags = {"upstreams": arguments.upstreams, "models": arguments.models, "home": str(tmp_path)}
    settings = settings_of.load(flags, {})
    servers = config.upstreams(settings)
    assert [(one.name, one.kind, one.key_env) for one in servers] == [
        ("local", "chat", "LOCAL_API_KEY"),
        ("openai", "chat", "OPENAI_API_KEY"),
    ]
    (model,) = config.models(settings, servers)
    assert model.targets == (("local", "qwen3"), ("openai", "gpt-4o-mini"))


@pytest.mark.parametrize("struct", [config.UpstreamSpec, config.ModelSpec])
def test_every_member_is_there(struct: type[msgspec.Struct]) -> None:
    internal = {"name", "key_required", "targets"}
    for name in set(struct.__struct_fields__) - internal:
        assert f"`{name}`" in PAGE, name


def test_defaults() -> None:
    for name, value in {
        "token_timeout_s": config.TOKEN_TIMEOUT_S,
        "timeout_s": config.TIMEOUT_S,
        "connect_timeout_s": config.CONNECT_TIMEOUT_S,
        "retries": config.RETRIES,
    }.items():
        assert f"| `{name}` | {value:g} |" in PAGE
    assert f"more than {router.PATIENCE_S:g} s ({router.IMPATIENCE_S:g} s where" in PAGE
    assert f"after {router.FIRST_BACKOFF_S:g} s, 1 s" in PAGE
    for host in config.VENDORS:
        assert host in PAGE


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError,
        UpstreamTimeoutError,
        UpstreamAuthenticationError,
        UpstreamBusyError,
        UpstreamRefusedError,
        ContextOverflowError,
        ModelNotFoundError,
    ],
)
def test_problems(error: type[UpstreamError]) -> None:
    assert re.search(rf"`{error.type}`[^(]*\({error.status}", PAGE), error.type
