"""`onehop config`: the effective settings, and where each came from. Passwords and keys are never printed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from onehop import config
from onehop.cli import options
from onehop.errors import ConfigurationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the value of this setting only")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--reference", action="store_true", help="print the table of docs/configuration.md instead"
    )
    options.add_settings(parser)


def main(arguments: argparse.Namespace) -> int:
    if arguments.reference:
        print(reference())
        return 0
    settings = options.load(arguments)
    rows = {setting.name: _row(setting, settings) for setting in config.SETTINGS}
    if arguments.name is not None:
        name = str(arguments.name).replace("-", "_")
        if name not in rows:
            raise ConfigurationError(f"there is no setting {name!r}; onehop config lists all")
        print(json.dumps(rows[name]) if arguments.json else rows[name]["text"])
    elif arguments.json:
        document = {"settings": list(rows.values()), "unknown_variables": config.unknown_variables()}
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(render(list(rows.values()))))
    return 0


def _row(setting: config.Setting, settings: config.Settings) -> dict[str, Any]:
    value = getattr(settings, setting.name)
    text = setting.masked(value)
    source = settings.sources[setting.name]
    kind, _, place = source.removeprefix("the ").partition(" ")
    plain = isinstance(value, int | float) or value is None  # bool is an int
    return {
        "name": setting.name,
        "value": value if plain else list(value) if isinstance(value, tuple) else text,
        "text": text,
        "source": kind,
        "from": place,
        "flag": setting.flag,
        "variable": setting.variable,
        "help": setting.help,
    }


def render(rows: list[dict[str, Any]]) -> list[str]:
    """Lines for people: name, value, and where it came from unless that is the default."""
    width = max(len(row["name"]) for row in rows)
    lines = []
    for row in rows:
        source = "" if row["source"] == "default" else f"   ({row['source']} {row['from']})"
        lines.append(f"{row['name']:<{width}}  {row['text'] or '-'}{source}")
    return lines


def reference() -> str:
    """All settings as a table in Markdown."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for setting in config.SETTINGS:
        text = setting.help + (f": {', '.join(setting.choices)}" if setting.choices else "")
        default = setting.render(setting.default)
        lines.append(
            f"| `{setting.name}` | {f'`{default}`' if default else 'none'} | {text}{_bounds(setting)} |"
        )
    return "\n".join(lines)


def _bounds(setting: config.Setting) -> str:
    least, most = setting.minimum, setting.maximum
    if least is None and most is None:
        return ""
    parts = [f"at least {least:g}"] if least is not None else []
    return f" ({', '.join([*parts, *([f'at most {most:.12g}'] if most is not None else [])])})"
