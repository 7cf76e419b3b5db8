"""`onehop models`: lists and tries the models of this machine's configuration, without a server. It prints no key."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from onehop.cli import options
from onehop.cli.terminal import printable, table
from onehop.errors import ConfigurationError, ProblemError

if TYPE_CHECKING:
    from onehop.agent.upstreams.router import Models
    from onehop.agent.upstreams.upstream import Upstream

FAILED_EXIT = 1
SETTINGS = ("home", "upstreams", "models", "currency")
QUESTION = "Answer with the single word: ready"
ANSWER_TOKENS = 512
"""Enough for a model that thinks before it says one word."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        options.add_settings(sub, SETTINGS)
        return sub

    action("list", "list the models that clients may name")
    checking = action("check", "ask every server of models for its list, with its key, and models for a word")
    checking.add_argument(
        "names", nargs="*", metavar="MODEL", help="ask this model one short question, too (which may cost)"
    )


def main(arguments: argparse.Namespace) -> int:
    settings = options.load(arguments)
    if not settings.upstreams:
        raise ConfigurationError(
            "no server of models is configured: name one with --upstreams chat=https://HOST/v1, or in the "
            "configuration file as [upstreams.NAME]"
        )
    from onehop.agent.upstreams.router import Models

    models = Models(settings)
    return asyncio.run(_list(arguments, models) if arguments.action == "list" else _check(arguments, models))


async def _list(arguments: argparse.Namespace, models: Models) -> int:
    async with models:
        found = await models.names()
        silent = [one for one in models.upstreams.values() if one.list.error is not None]
        resolved = [await models.resolve(one.name) for one in found]
    if arguments.json:
        documents = [
            {
                "name": model.name,
                "targets": [
                    {"upstream": one.upstream, "model": one.model, "kind": one.dialect}
                    for one in model.targets
                ],
                "images": model.capabilities.images,
                "hosted": model.capabilities.hosted,
                "input_price": model.input_price,
                "output_price": model.output_price,
            }
            for model in resolved
        ]
        _print({"models": documents, "problems": {one.spec.name: _problem(one) for one in silent}})
    else:
        rows = [("MODEL", "KIND", "SERVED BY")]
        for model in resolved:
            served = " + ".join(f"{one.upstream}:{one.model}" for one in model.targets)
            rows.append((printable(model.name), model.dialect, printable(served)))
        table(rows)
        for one in silent:
            print(f"{one.spec.name}: gives no list: {_problem(one)}")
    return FAILED_EXIT if silent else 0


def _problem(upstream: Upstream) -> str:
    error = upstream.list.error
    return "" if error is None else printable(upstream.clean(error).detail)


async def _check(arguments: argparse.Namespace, models: Models) -> int:
    async with models:
        async with asyncio.TaskGroup() as group:
            listing = [group.create_task(_listed(one)) for one in models.upstreams.values()]
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(_asked(models, name)) for name in arguments.names]
    servers, asked = [one.result() for one in listing], [one.result() for one in asking]
    if arguments.json:
        _print({"upstreams": servers, "models": asked})
    else:
        for row in servers:
            what = row["problem"] or f"{row['models']} models, {row['ms']} ms"
            print(
                f"{row['name']} ({row['kind']}, {row['key']}): {'failed' if row['problem'] else 'ready'}: {what}"
            )
        for row in asked:
            what = row["problem"] or f"first word after {row['first_ms']} ms, all after {row['ms']} ms"
            print(f"model {printable(row['name'])}: {'failed' if row['problem'] else 'answers'}: {what}")
    return FAILED_EXIT if any(row["problem"] for row in servers + asked) else 0


async def _listed(upstream: Upstream) -> dict[str, Any]:
    began_s = time.monotonic()
    count, problem = 0, ""
    try:
        count = len(await upstream.list.ask())
    except ProblemError as error:
        problem = printable(upstream.clean(error).detail)
    return {
        "name": upstream.spec.name,
        "kind": upstream.spec.kind,
        "key": "with a key" if upstream.has_key else "without a key",
        "models": count,
        "ms": round((time.monotonic() - began_s) * 1000),
        "problem": problem,
    }


async def _asked(models: Models, name: str) -> dict[str, Any]:
    """One real turn."""
    from onehop.agent.model import Message, ModelRequest, Options, TextPart

    request = ModelRequest(
        model=name,
        messages=[Message("user", [TextPart(QUESTION)])],
        options=Options(max_tokens=ANSWER_TOKENS),
    )
    began_s = time.monotonic()
    first_s: float | None = None
    problem = ""
    try:
        async for _ in models.turn(await models.resolve(name), request):
            first_s = first_s or time.monotonic()
    except ProblemError as error:
        problem = printable(error.detail)
    ended_s = time.monotonic()
    return {
        "name": name,
        "first_ms": round(((first_s or ended_s) - began_s) * 1000),
        "ms": round((ended_s - began_s) * 1000),
        "problem": problem,
    }


def _print(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))
