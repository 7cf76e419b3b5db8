"""`onehop env`: further environments beside the default one. A running server finds them by itself.

It must never change an environment that is there: a build appears whole under a new path, or not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onehop.cli import options
from onehop.errors import ConfigurationError, EnvironmentBuildError

if TYPE_CHECKING:
    from onehop.config import Settings
    from onehop.environments.model import Environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str, perform: Callable[..., Any]) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        sub.set_defaults(perform=perform)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        return sub

    adding = action("add", "build an environment, or build it anew with other packages", add)
    adding.add_argument("name", metavar="NAME", help="a-z, 0-9, '_' and '-'")
    adding.add_argument(
        "-r",
        "--requirements",
        action="append",
        default=[],
        metavar="FILE",
        help="packages, in pip's format; may be repeated",
    )
    adding.add_argument(
        "--python-packages", nargs="+", action="extend", default=[], metavar="PKG", help="further packages"
    )
    adding.add_argument(
        "--preload",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODULE",
        help="modules to import beforehand, besides the usual ones: a session then has them at once",
    )
    adding.add_argument(
        "--allow-build",
        action="store_true",
        help="let packages without a wheel run their build code on this machine",
    )
    listing = action("list", "list the environments", list_all)
    showing = action("show", "show what is in an environment", show)
    showing.add_argument("name", metavar="NAME")
    removing = action("remove", "remove an environment that no session uses", remove)
    removing.add_argument("name", metavar="NAME")
    for sub in (adding, listing, showing, removing):
        options.add_settings(sub, ("home",))


def main(arguments: argparse.Namespace) -> int:
    settings = options.load(arguments)
    if (name := getattr(arguments, "name", None)) is not None:
        _check_name(name, settings, exists=arguments.perform in (show, remove))
    document, lines = arguments.perform(arguments, settings)
    print(json.dumps(document, indent=2) if arguments.json else "\n".join(lines))
    return 0


def _check_name(name: str, settings: Settings, *, exists: bool) -> None:
    """Raises ConfigurationError: a wrong word of the command line is nothing that failed."""
    from onehop.environments import known

    try:
        known.check_name(name)
        if exists and not known.aside_path(name, settings.home).exists():
            known.lock_text(name, settings.home)
    except EnvironmentBuildError as error:
        raise ConfigurationError(str(error)) from None


Answer = tuple[dict[str, Any], list[str]]
"""The document of --json, and lines for people."""


def add(arguments: argparse.Namespace, settings: Settings) -> Answer:
    requirements = "\n".join([*map(_requirements, arguments.requirements), *arguments.python_packages, ""])
    if not requirements.strip():
        raise ConfigurationError("name packages with -r FILE or --python-packages PKG …")
    from onehop.environments import build

    started_s = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - started_s:5.1f} s] {line}", file=sys.stderr, flush=True)

    built = build.add(
        arguments.name,
        requirements,
        settings.home,
        progress=tell,
        preload=arguments.preload,
        allow_build=arguments.allow_build,
    )
    return _described(built), [
        f"The environment {built.name!r} is ready, with {len(built.packages)} packages.",
        f"  onehop run --environment {built.name} -c 'import sys; sys.prefix'",
        f'  POST /api/sessions {{"environment": "{built.name}"}}   (a running server knows it already)',
    ]


def list_all(arguments: argparse.Namespace, settings: Settings) -> Answer:
    from onehop.environments import known

    rows = []
    for name in known.names(settings.home):
        built = known.find(name, settings.home)
        row: dict[str, Any] = {
            "name": name,
            "built": built is not None,
            "default": name == settings.environment,
        }
        if built is not None:
            row |= {"python": built.python_version, "packages": len(built.packages), "path": str(built.path)}
        rows.append(row)
    width = max(len(row["name"]) for row in rows)
    lines = [
        f"{row['name']:<{width}}  Python {row['python']}, {row['packages']:3} packages  {row['path']}"
        if row["built"]
        else f"{row['name']:<{width}}  not built yet"
        for row in rows
    ]
    return {"environments": rows}, lines


def show(arguments: argparse.Namespace, settings: Settings) -> Answer:
    from onehop.environments import known
    from onehop.environments.remove import bytes_on_disk

    built = known.find(arguments.name, settings.home)
    if built is None:
        raise ConfigurationError(
            f"the environment {arguments.name!r} is not built for this Python; "
            + ("run: onehop run -c 1" if arguments.name == "default" else "add it again with onehop env add")
        )
    document = _described(built) | {
        "bytes": bytes_on_disk(built.path),
        "preload": list(built.preload),
        "lock": str(built.path / "share" / "onehop" / "requirements.lock"),
        "packages": built.packages,
    }
    return document, [
        f"{built.name}: Python {built.python_version}, {document['bytes'] / 2**20:.0f} MiB in {built.path}",
        f"locked in {document['lock']}",
        f"imported beforehand: {' '.join(built.preload)}",
        "",
        *(f"{name}=={version}" for name, version in built.packages.items()),
    ]


def remove(arguments: argparse.Namespace, settings: Settings) -> Answer:
    from onehop.environments.remove import remove as take_away

    builds = take_away(arguments.name, settings.home)
    document = {"name": arguments.name, "removed": True, "builds": builds}
    return document, [f"The environment {arguments.name!r} is gone."]


def _described(built: Environment) -> dict[str, Any]:
    return {
        "name": built.name,
        "path": str(built.path),
        "python": built.python_version,
        "packages": len(built.packages),
        "digest": built.digest,
    }


def _requirements(path: str) -> str:
    """The text of a requirements file. What would be looked for beside it is refused: it is locked elsewhere."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"-r: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"-r: {path} is not UTF-8 text: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        start = line.strip()
        if start.startswith(("-r", "--requirement")):
            raise ConfigurationError(
                f"-r: {path}, line {number}: {start!r}: name that file with a -r of its own"
            )
        if start.startswith("-") and not start.startswith("--hash"):
            raise ConfigurationError(
                f"-r: {path}, line {number}: {start!r}: options belong into pip's configuration or its variables"
            )
        if start.startswith((".", "/", "file:")):
            raise ConfigurationError(
                f"-r: {path}, line {number}: {start!r}: only packages of an index can be locked by their hashes"
            )
    return text
