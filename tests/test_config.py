"""Where a setting's value comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onehop.config import SETTINGS, Settings, is_loopback, load
from onehop.errors import ConfigurationError


def test_flag_beats_variable_beats_file_beats_default(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port = 1\ntimeout_s = 5\nmemory_mb = 100\n")
    environ = {"ONEHOP_HOME": str(tmp_path), "ONEHOP_PORT": "2", "ONEHOP_TIMEOUT_S": "6"}
    settings = load({"port": 3, "strict": None}, environ)
    assert (settings.port, settings.timeout_s, settings.memory_mb, settings.processes) == (3, 6.0, 100, 64)
    assert settings.sources["port"] == "the flag --port"
    assert settings.sources["timeout_s"] == "the variable ONEHOP_TIMEOUT_S"
    assert settings.sources["memory_mb"] == f"the file {tmp_path / 'config.toml'}"
    assert settings.sources["processes"] == "default"
    assert set(settings.sources) == {setting.name for setting in SETTINGS}


def test_a_process_can_hand_its_settings_on(tmp_path: Path) -> None:
    settings = load({"home": tmp_path, "allowed_hosts": ["a.example", "b.example"], "strict": True}, {})
    assert load({}, settings.environ()) == settings


def test_named_file(tmp_path: Path) -> None:
    named = tmp_path / "other.toml"
    named.write_text('allowed_origins = ["https://a.example"]')
    settings = load({"config": named, "home": tmp_path}, {})
    assert settings.allowed_origins == ("https://a.example",)
    assert load({"home": tmp_path}, {"ONEHOP_CONFIG": str(named)}).allowed_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "70000"),
        ("port", "-1"),
        ("port", "1.5"),
        ("timeout_s", "nan"),
        ("timeout_s", "inf"),
        ("timeout_s", "0"),
        ("timeout_s", "4000"),  # more than max_timeout_s
        ("memory_mb", "1"),
        ("pool_min", "33"),  # more than pool_max
        ("strict", "maybe"),
        ("isolation", "gvisor"),
        ("log_level", "loud"),
        ("home", ""),
        ("allowed_origins", "app.example"),
        ("allowed_origins", "https://app.example/"),
    ],
)
def test_bad_value_names_setting_and_source(tmp_path: Path, name: str, value: str) -> None:
    environ = {"ONEHOP_HOME": str(tmp_path), f"ONEHOP_{name.upper()}": value}
    with pytest.raises(ConfigurationError, match=rf"{name} .*the variable ONEHOP_{name.upper()}"):
        load({}, environ)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.9.10", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "example.org", "127.0.0.1.example.org", "127.1", "")),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("port = ", "cannot be read"),
        ("no_such = 1", "no setting 'no_such'"),
        ('home = "/x"', "no setting 'home'"),
        ("port = true", "port .*file"),
        ("port = 1.0", "port .*file"),
        ("allowed_hosts = [1]", "allowed_hosts .*file"),
        ("environment = 5", "environment .*file"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        load({"home": tmp_path}, {})


def test_missing_named_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        load({"home": tmp_path, "config": tmp_path / "none.toml"}, {})


def test_every_setting_says_what_it_is_for() -> None:
    for setting in SETTINGS:
        assert setting.help
        value: Any = getattr(Settings(), setting.name)
        assert setting.parse(setting.render(value), "test") == setting.parse(value, "test")
