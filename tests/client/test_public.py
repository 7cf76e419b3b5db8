"""The public face: every name, lazily; the same calls on both faces; light to import."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import onehop

PAIRS = (
    (onehop.Session, onehop.AsyncSession),
    (onehop.Client, onehop.AsyncClient),
    (onehop.Files, onehop.AsyncFiles),
    (onehop.Contexts, onehop.AsyncContexts),
    (onehop.Commands, onehop.AsyncCommands),
    (onehop.Command, onehop.AsyncCommand),
    (onehop.Keys, onehop.AsyncKeys),
    (onehop.Functions, onehop.AsyncFunctions),
)
SOURCE = Path(onehop.__file__)


def test_every_public_name_exists_and_is_listed_once() -> None:
    assert sorted(onehop.__all__) == sorted(["__version__", *onehop._WHERE])
    for name in onehop.__all__:
        assert getattr(onehop, name) is not None
    assert set(onehop.__all__) <= set(dir(onehop))
    with pytest.raises(AttributeError, match="nonsense"):
        onehop.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    (branch, *_) = [one for one in ast.parse(SOURCE.read_text()).body if isinstance(one, ast.If)]
    seen = {
        alias.name: node.module
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"onehop.{where}" for name, where in onehop._WHERE.items()}


@pytest.mark.parametrize(("sync", "asyncio"), PAIRS, ids=lambda one: one.__name__)
def test_both_faces_have_the_same_calls(sync: type, asyncio: type) -> None:
    def calls(face: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(face)
            if not name.startswith("_") and callable(member)
        }

    assert calls(sync) == calls(asyncio)
    for name in calls(sync):
        assert inspect.getdoc(getattr(sync, name)), f"{sync.__name__}.{name} says nothing"


def test_signatures_are_those_of_the_face() -> None:
    assert str(inspect.signature(onehop.Files.read)) == "(self: 'Part', path: 'str') -> 'bytes'"
    assert inspect.signature(onehop.Session.stream).return_annotation == "Iterator[Event]"
    assert inspect.signature(onehop.AsyncSession.stream).return_annotation == "AsyncIterator[Event]"
    assert inspect.signature(onehop.Commands.start).return_annotation == "Command"
    assert list(inspect.signature(onehop.run).parameters)[:2] == ["code", "environment"]


def test_the_import_is_light() -> None:
    code = (
        "import sys, time; before = time.process_time(); import onehop; spent = time.process_time() - before; "
        "import json; print(json.dumps([spent, sorted(m for m in sys.modules if m.startswith(('onehop', 'httpx2')))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    spent_s, loaded = json.loads(done.stdout)
    assert spent_s < 0.15
    assert loaded == ["onehop"]


def test_no_part_of_the_server_is_loaded_by_use() -> None:
    code = (
        "import sys, onehop\n"
        "for name in onehop.__all__: getattr(onehop, name)\n"
        "onehop.Client('http://127.0.0.1:1').close()\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'msgspec', 'starlette', 'fastapi', 'uvloop', 'pydantic'}))\n"
        "print(sorted({'.'.join(m.split('.')[:2]) for m in sys.modules if m.startswith('onehop.')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    # onehop.tools.declare has the decorator for operators' functions, and nothing else.
    assert done.stdout == "[]\n['onehop.client', 'onehop.errors', 'onehop.tools']\n"
