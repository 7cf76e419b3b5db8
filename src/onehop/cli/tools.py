"""`onehop tools`: tries the sources of tools of this machine's configuration, without a server.

It starts the same workers as a server does, for as long as the command runs. It must never call a tool
that was not named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from onehop.cli import options
from onehop.cli.terminal import printable, table
from onehop.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from onehop.config import Settings
    from onehop.tools.registry import Registry

FAILED_EXIT = 1
START_S = 60.0
SETTINGS = ("home", "tools", "tool_timeout_s", "allow_no_namespaces", "uid_base")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        options.add_settings(sub, SETTINGS)
        return sub

    action("list", "list the tools of all sources")
    action("check", "start every source and say what is wrong with it")
    calling = action("call", "call one tool")
    calling.add_argument("name", metavar="NAME", help="as `onehop tools list` shows it: weather.forecast")
    calling.add_argument(
        "arguments", nargs="*", metavar="ARGUMENT", help="KEY=VALUE (JSON, or else text), or one JSON object"
    )
    action("stubs", "print the typed Python stubs that a model is given")


def main(arguments: argparse.Namespace) -> int:
    settings = options.load(arguments)
    perform = {"list": _list, "check": _check, "call": _call, "stubs": _stubs}[arguments.action]
    return asyncio.run(_with_sources(settings, lambda registry: perform(arguments, registry)))


async def _with_sources(settings: Settings, perform: Callable[[Registry], Awaitable[int]]) -> int:
    from onehop.api import logs
    from onehop.cli.engine import service_uid
    from onehop.tools import configure, launcher
    from onehop.tools.registry import Registry

    specs = configure.sources(settings)
    if not specs:
        raise ConfigurationError(
            "no source of tools is configured: name one with --tools mytools.py, or in the configuration "
            "file as [tools.NAME]"
        )
    configure.check(specs)
    logs.configure(settings)
    uid = service_uid(settings)
    launched = launcher.start(
        specs, first_uid=None if uid is None else uid + 1, allow_no_namespaces=settings.allow_no_namespaces
    )
    registry = Registry(settings, specs)
    try:
        registry.attach(launched.channel)
        await registry.settled(START_S)
        return await perform(registry)
    finally:
        registry.close()
        launched.end()


async def _list(arguments: argparse.Namespace, registry: Registry) -> int:
    import msgspec

    from onehop.sessions.caller import LOCAL
    from onehop.tools.listing import info

    found = [info(tool) for tool in registry.tools(LOCAL)]
    if arguments.json:
        _print({"tools": msgspec.to_builtins(found), "sources": msgspec.to_builtins(registry.sources())})
    else:
        rows = [("TOOL", "FLAGS", "WHAT IT DOES")]
        for tool in found:
            names = ("read_only", "idempotent", "requires_approval")
            flags = ",".join(name for name in names if getattr(tool, name))
            first = next(iter(tool.description.splitlines()), "")
            rows.append((printable(tool.name), flags or "-", printable(first[:80])))
        table(rows)
    return FAILED_EXIT if any(one.state != "ready" for one in registry.sources()) else 0


async def _check(arguments: argparse.Namespace, registry: Registry) -> int:
    import msgspec

    sources = registry.sources()
    if arguments.json:
        _print({"sources": msgspec.to_builtins(sources)})
    else:
        for one in sources:
            what = f"{one.tools} tools" if one.state == "ready" else printable(one.problem) or one.state
            print(f"{one.name} ({one.kind}): {one.state}: {what}")
    return FAILED_EXIT if any(one.state != "ready" for one in sources) else 0


async def _call(arguments: argparse.Namespace, registry: Registry) -> int:
    import msgspec

    from onehop.sessions.caller import LOCAL
    from onehop.sessions.calls import Call, Outcome

    try:
        toolset = registry.toolset([arguments.name], LOCAL)
    except InvalidRequestError as error:
        raise ConfigurationError(str(error).removeprefix("tools: ")) from None
    if len(toolset.names) != 1:
        raise ConfigurationError(f"{arguments.name[:128]!r} is not the name of one tool")
    toolset.timeout_s = registry.timeout_s
    (name,) = toolset.names
    given = _arguments(arguments.arguments)
    wrong = registry.check(toolset, name, given)
    if wrong is not None:
        outcome = Outcome(error=wrong)
    else:
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        cancel = registry.start(toolset, Call("exe_cli", 1, name, given), answer.set_result)
        try:
            outcome = await answer
        except asyncio.CancelledError:
            cancel()
            raise
    if outcome.error is not None:
        if arguments.json:
            _print({"error": msgspec.to_builtins(outcome.error)})
        print(f"onehop: {name}: {outcome.error.kind}: {printable(outcome.error.message)}", file=sys.stderr)
        return FAILED_EXIT
    value = outcome.value
    if isinstance(value, msgspec.Raw):
        value = msgspec.msgpack.decode(value)
    files = [{"path": path, "bytes": len(content)} for path, content in outcome.files.items()]
    _print({"value": value, "files": files} if arguments.json else value)
    for file in files:
        print(f"onehop: file {file['path']} ({file['bytes']} bytes)", file=sys.stderr)
    return 0


async def _stubs(arguments: argparse.Namespace, registry: Registry) -> int:
    from onehop.sessions.caller import LOCAL
    from onehop.tools.stubs import stubs

    text = stubs(tool.entry for tool in registry.tools(LOCAL))
    if arguments.json:
        _print({"stubs": text})
    else:
        print(text, end="")
    return FAILED_EXIT if any(one.state != "ready" for one in registry.sources()) else 0


def _arguments(texts: list[str]) -> dict[str, Any]:
    if len(texts) == 1 and texts[0].lstrip().startswith("{"):
        try:
            whole = json.loads(texts[0])
        except ValueError as error:
            raise ConfigurationError(f"the arguments are no JSON: {error}") from None
        return dict(whole)
    found: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigurationError(f"expected KEY=VALUE or one JSON object, got {text[:80]!r}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _print(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))
