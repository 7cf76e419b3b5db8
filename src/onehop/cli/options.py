"""Settings as flags of a command: every entry of onehop.config, or those that a command names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from typing import Any

from onehop import config


def add_settings(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """Adds a flag for each setting in `names` (all when None), and --config."""
    group = parser.add_argument_group("settings (each is also a variable ONEHOP_… and a key of config.toml)")
    group.add_argument(
        "--config", metavar="PATH", help="TOML file with settings (default: <home>/config.toml)"
    )
    for setting in config.SETTINGS:
        if names is not None and setting.name not in names:
            continue
        text = f"{setting.help} (default: {setting.render(setting.default) or 'none'})".replace("%", "%%")
        if setting.kind is bool:
            group.add_argument(
                setting.flag,
                dest=setting.name,
                default=None,
                action=argparse.BooleanOptionalAction,
                help=text,
            )
        elif setting.kind is config.Tables:
            group.add_argument(
                setting.flag,
                dest=setting.name,
                default=None,
                action="append",
                metavar="[NAME=]TARGET",
                help=text + "; may be given several times",
            )
        else:
            group.add_argument(
                setting.flag, dest=setting.name, default=None, metavar=_metavar(setting), help=text
            )


def load(options: argparse.Namespace, **fixed: Any) -> config.Settings:
    """The settings from flags, environment and file; raises ConfigurationError.

    A variable that is no setting is told on stderr and changes nothing: it may be another version's.

    Args:
        fixed: values that the command itself decides.
    """
    for variable, meant in config.unknown_variables().items():
        advice = f"; is {meant} meant?" if meant else "; onehop config lists all"
        print(f"onehop: warning: the variable {variable} is no setting{advice}", file=sys.stderr)
    flags = {name: getattr(options, name, None) for name in ("config", *(s.name for s in config.SETTINGS))}
    return config.load(flags | fixed)


def _metavar(setting: config.Setting) -> str:
    if setting.choices:
        return "{" + ",".join(setting.choices) + "}"
    unit = setting.name.rpartition("_")[2]
    names: dict[type, str] = {int: "N", float: "N", tuple: "A,B"}
    return {"s": "SECONDS", "mb": "MIB", "bytes": "BYTES", "days": "DAYS", "url": "URL", "home": "PATH"}.get(
        unit, names.get(setting.kind, "NAME")
    )
