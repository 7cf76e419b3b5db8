"""From the setting `tools` to the sources of a server. Reads no module and no secret's value.

One table per source, in the configuration file as `[tools.NAME]`; what is given on the command line or in the
environment is a `target`, from whose form follows the kind.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from onehop.config import Settings
from onehop.errors import ConfigurationError
from onehop.tools.model import MAX_SOURCES, SourceSpec
from onehop.tools.source import KINDS

COMMON = {"kind", "target", "folder", "secrets", "readable", "requires_approval", "timeout_s"}
"""Members of a table that mean the same for every kind; all others are the kind's own options."""


def sources(settings: Settings) -> list[SourceSpec]:
    """The sources, in the order of their names. Raises ConfigurationError naming the source and the member."""
    tables: dict[str, Any] = json.loads(settings.tools or "{}")
    if len(tables) > MAX_SOURCES:
        raise ConfigurationError(f"tools: {len(tables)} sources; at most {MAX_SOURCES}")
    origin = settings.sources.get("tools", "default")
    return [_source(name, tables[name], f"tools.{name} (from {origin})") for name in sorted(tables)]


def check(specs: list[SourceSpec], environ: Mapping[str, str] | None = None) -> None:
    """Whether files and secrets are there. Raises ConfigurationError saying what is missing."""
    environ = os.environ if environ is None else environ
    for spec in specs:
        for name in spec.secrets:
            if name not in environ:
                raise ConfigurationError(
                    f"tools.{spec.name}: there is no variable {name} in the environment; set it, or take it "
                    "out of `secrets`"
                )
        for path in spec.readable:
            if not os.path.exists(path):
                raise ConfigurationError(f"tools.{spec.name}: there is no {path}")


def _source(name: str, table: dict[str, Any], where: str) -> SourceSpec:
    if not name.isidentifier() or name.startswith("_") or len(name) > 64:
        raise ConfigurationError(f"{where}: a source's name is a Python name without _ at its start")
    options = {key: value for key, value in table.items() if key not in COMMON}
    target = table.get("target")
    if target is not None:
        options = _from_target(str(target)) | options
    kind = table.get("kind") or options.pop("kind", None)
    options.pop("kind", None)
    if kind not in KINDS:
        raise ConfigurationError(f"{where}.kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    readable = list(_texts(table.get("readable", []), f"{where}.readable"))
    folder = Path(table.get("folder", "/"))
    if kind == "python":
        if not isinstance(options.get("module"), str) or set(options) != {"module"}:
            wrong = sorted(set(options) - {"module"})
            what = (
                f"there is no member {wrong[0]!r}"
                if wrong
                else "`module` is missing, the path of a Python file"
            )
            raise ConfigurationError(f"{where}: {what}")
        options["module"] = _absolute(options["module"], folder)
        readable.append(options["module"])
    else:
        for key in ("document", "cwd"):
            if isinstance(options.get(key), str) and not _is_url(options[key]):
                options[key] = _absolute(options[key], folder)
        readable.extend(_checked(kind, options, where))
    timeout_s = table.get("timeout_s")
    if timeout_s is not None and (
        isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < 1e6
    ):
        raise ConfigurationError(
            f"{where}.timeout_s: expected a number of seconds above 0, got {timeout_s!r}"
        )
    return SourceSpec(
        name=name,
        kind=kind,
        options=options,
        secrets=_texts(table.get("secrets", []), f"{where}.secrets"),
        readable=tuple(_absolute(path, folder) for path in readable),
        requires_approval=_texts(table.get("requires_approval", []), f"{where}.requires_approval"),
        timeout_s=timeout_s,
    )


def _checked(kind: str, options: dict[str, Any], where: str) -> tuple[str, ...]:
    """The paths that such a source reads, when its options are right."""
    try:
        about = importlib.import_module(f"onehop.tools.{kind}.options")
        found: tuple[str, ...] = about.readable(about.read(options))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return found


def _from_target(target: str) -> dict[str, Any]:
    """The kind and its first option, from what was given as one text."""
    if _is_url(target):
        if urlsplit(target).path.rstrip("/").endswith(("/mcp", "/sse")):
            return {"kind": "mcp", "url": target}
        return {"kind": "openapi", "document": target}
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise ConfigurationError(f"tools: {target[:200]!r} is no command line: {error}") from None
    if len(words) > 1 and shutil.which(words[0]):  # a program with arguments, the last of which may be a file
        return {"kind": "mcp", "command": words}
    if target.endswith(".py"):
        return {"kind": "python", "module": target}
    if target.endswith((".json", ".yaml", ".yml")):
        return {"kind": "openapi", "document": target}
    return {"kind": "mcp", "command": words}


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _absolute(path: str, folder: Path) -> str:
    return str((folder / Path(path).expanduser()).resolve())


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ConfigurationError(f"{where}: expected a list of texts, got {value!r}")
    return tuple(value)
