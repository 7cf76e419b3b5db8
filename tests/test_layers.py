"""Imports point one way, what runs inside the wall imports nothing from outside it, and the SDK stays light.

Every rule is proved to bite by a small tree with the error in it. The rules are tables: a new module of
onehop fails here until somebody gives it a layer.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "onehop"

# From top to bottom. A module may import its own layer and those below; cli is above all, config and
# errors are below all. `kernel` and `protocol` are shipped into the sandbox and have rules of their own.
LAYERS = (
    "cli",
    "wires",
    "api",
    "agent",
    "tools",
    "lambdas",
    "sessions",
    "store",
    "supervisor",
    "zygote",
    "environments",
    "jail",
    "kernel",
    "protocol",
    "client",
    "config",
    "crash",
    "errors",
)
RANK = {name: rank for rank, name in enumerate(LAYERS)}

# What exists inside the wall besides the environment's packages is exactly onehop.kernel and onehop.protocol.
SHIPPED = {
    "kernel": {"kernel", "protocol"},
    "protocol": {"protocol"},
}
SHIPPED_LIBRARIES = {
    "kernel": {
        "msgspec", "IPython", "traitlets", "matplotlib", "matplotlib_inline", "numpy", "pandas", "PIL",
        "plotly", "polars", "sympy", "e2b_charts",
    },
    "protocol": {"msgspec"},
}  # fmt: skip

# The SDK is for machines without a server, too: httpx2 is all that it needs. Only the command line may use
# it, as everybody else would: the server calls no server.
CLIENT_LIBRARIES = {"httpx2"}
CLIENT_MODULES = {"client", "config", "errors"}
CLIENT_USERS = {"cli", "client"}

MARKER = "# runs inside the wall: standard library only"
MARKED_MAY_ALSO_USE = {"kernel", "protocol"}

HEAVY = {
    "alembic",
    "asyncio",
    "fastapi",
    "httpx2",
    "IPython",
    "msgspec",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "uvicorn",
}


@dataclass(frozen=True)
class Import:
    """One imported name: `module` is absolute and dotted, `at_top` false inside a function."""

    module: str
    line: int
    at_top: bool


@dataclass(frozen=True)
class Module:
    """One file: `name` is dotted below onehop ("jail.seccomp", "" for onehop/__init__)."""

    name: str
    path: str
    is_package: bool
    marked: bool
    imports: tuple[Import, ...]

    @property
    def layer(self) -> str:
        return self.name.partition(".")[0]


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_below(node: ast.AST, package: list[str], at_top: bool) -> Iterator[Import]:
    """Walks a tree for imports; `package` is the dotted package that relative imports start from."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_top)
        elif isinstance(child, ast.ImportFrom):
            base = package[: len(package) - child.level + 1] if child.level else []
            origin = ".".join(base + ([child.module] if child.module else []))
            for alias in child.names:
                # the last part may be a module (`onehop.jail`) or a thing in one (`onehop.jail.Policy`)
                yield Import(f"{origin}.{alias.name}", child.lineno, at_top)
        elif isinstance(child, ast.If) and is_type_checking(child):
            for branch in child.orelse:
                yield from imports_below(ast.Module([branch], []), package, at_top)
            for branch in child.body:  # types only: directions count, what is loaded does not
                yield from imports_below(ast.Module([branch], []), package, False)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_below(child, package, at_top and not inside)


def read_tree(root: Path) -> list[Module]:
    """Parses every module below `root`, which stands for the package onehop."""
    modules = []
    for path in sorted(root.rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        if is_package:
            parts.pop()
        text = path.read_text(encoding="utf-8")
        package = ["onehop", *parts] if is_package else ["onehop", *parts[:-1]]
        modules.append(
            Module(
                name=".".join(parts),
                path=str(path),
                is_package=is_package,
                marked=any(line.strip() == MARKER for line in text.splitlines()),
                imports=tuple(imports_below(ast.parse(text, str(path)), package, at_top=True)),
            )
        )
    return modules


def own_target(modules: dict[str, Module], imported: str) -> str | None:
    """The onehop module that an import names ("jail.seccomp"), or None if it is somebody else's."""
    if imported != "onehop" and not imported.startswith("onehop."):
        return None
    name = imported.removeprefix("onehop").removeprefix(".")
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def is_standard(imported: str) -> bool:
    return imported.partition(".")[0] in sys.stdlib_module_names


def violations(root: Path) -> list[str]:
    """Every broken rule in the tree, one line each."""
    modules = {module.name: module for module in read_tree(root)}
    found = []
    for module in modules.values():
        if module.name and module.layer not in RANK:
            found.append(f"{module.path}: {module.layer} has no layer; give it one in tests/test_layers.py")
            continue
        for imported in module.imports:
            reason = broken_rule(modules, module, imported)
            if reason:
                found.append(f"{module.path}:{imported.line}: imports {imported.module}: {reason}")
    return found


def broken_rule(modules: dict[str, Module], module: Module, imported: Import) -> str | None:
    """Why this import is forbidden, or None."""
    own = own_target(modules, imported.module)
    if not module.name:
        if imported.at_top and own is None and not is_standard(imported.module):
            return "onehop/__init__ loads the standard library only; import lazily in __getattr__"
        if imported.at_top and own:
            return "onehop/__init__ loads none of its modules; import lazily in __getattr__"
        return None
    if own == "":
        return None  # only names of onehop/__init__ itself, such as __version__
    if module.layer in SHIPPED:
        if own is None and not is_standard(imported.module):
            library = imported.module.partition(".")[0]
            if library not in SHIPPED_LIBRARIES[module.layer]:
                return "shipped into the sandbox, where this library is not promised"
        if own is not None and own.partition(".")[0] not in SHIPPED[module.layer]:
            return "shipped into the sandbox, where nothing else of onehop is visible"
        return None
    if module.layer == "client":
        if own is None and not is_standard(imported.module):
            if imported.module.partition(".")[0] not in CLIENT_LIBRARIES:
                return "the SDK needs httpx2 and nothing else"
        elif own is not None and own.partition(".")[0] not in CLIENT_MODULES:
            return "the SDK knows the server by its API only"
    if own is not None and own.partition(".")[0] == "client" and module.layer not in CLIENT_USERS:
        return "only the command line uses the SDK"
    if own is not None and RANK[own.partition(".")[0]] < RANK[module.layer]:
        return f"{module.layer} is below it"
    if module.marked and imported.at_top:
        if own is None and not is_standard(imported.module):
            return "a module that runs inside the wall loads the standard library only"
        if own is not None and not inside_the_wall(modules, own):
            return "a module that runs inside the wall loads only modules with the same marker"
    return None


def inside_the_wall(modules: dict[str, Module], own: str) -> bool:
    target = modules[own]
    # An empty package is only a name on the way to its modules.
    return target.marked or target.layer in MARKED_MAY_ALSO_USE or (target.is_package and not target.imports)


def plant(root: Path, files: dict[str, str]) -> Path:
    """Writes a small package tree; every folder gets an empty __init__."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != root:
            (path.parent / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    return root


def test_imports_of_onehop_point_one_way() -> None:
    modules = read_tree(SOURCE)
    assert {"protocol", "errors"} <= {module.name for module in modules}, "the source was not found"
    assert violations(SOURCE) == []


BAD = {
    "upwards": {"jail/a.py": "from onehop.sessions import b\n", "sessions/b.py": ""},
    "upwards, whole package": {"supervisor/a.py": "import onehop.api\n", "api/b.py": ""},
    "upwards, relative": {"store/a.py": "from ..sessions.b import thing\n", "sessions/b.py": "thing = 1\n"},
    "upwards, inside a function": {
        "jail/a.py": "def f():\n    from onehop.cli import b\n    return b\n",
        "cli/b.py": "",
    },
    "upwards, for types": {
        "jail/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onehop.api.b import B\n",
        "api/b.py": "B = 1\n",
    },
    "kernel, foreign module": {"kernel/a.py": "from onehop import errors\n", "errors.py": ""},
    "kernel, foreign library": {"kernel/a.py": "def f():\n    import fastapi\n    return fastapi\n"},
    "protocol, foreign module": {"protocol.py": "from onehop.errors import E\n", "errors.py": "E = 1\n"},
    "marked, library": {"jail/a.py": f'"""Doc."""\n{MARKER}\nimport pyseccomp\n'},
    "marked, library in a branch": {
        "jail/a.py": f'"""Doc."""\n{MARKER}\ntry:\n    import msgspec\nexcept ImportError:\n    pass\n',
    },
    "marked, unmarked module": {
        "zygote/a.py": f'"""Doc."""\n{MARKER}\nfrom onehop.jail import b\n',
        "jail/b.py": "import os\n",
    },
    "package, library": {"__init__.py": "import msgspec\n"},
    "package, module": {"__init__.py": "from onehop.errors import E\n", "errors.py": "E = 1\n"},
    "SDK, server": {"client/a.py": "def f():\n    from onehop.protocol import P\n", "protocol.py": "P = 1\n"},
    "SDK, library": {"client/a.py": "import msgspec\n"},
    "SDK, used by the server": {"api/a.py": "from onehop.client import b\n", "client/b.py": ""},
    "no layer": {"novelty.py": ""},
}  # fmt: skip


@pytest.mark.parametrize("files", BAD.values(), ids=BAD.keys())
def test_a_forbidden_import_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    found = violations(plant(tmp_path, files))
    assert len(found) == 1, found


def test_allowed_imports_pass(tmp_path: Path) -> None:
    files = {
        "__init__.py": "import sys\n\ndef __getattr__(name):\n    from onehop.errors import E\n",
        "errors.py": "E = 1\n",
        "config.py": "from onehop.errors import E\n",
        "protocol.py": "import msgspec\n",
        "kernel/main.py": "import IPython\nfrom onehop import protocol\nfrom . import output\n",
        "kernel/output.py": "import pandas\n",
        "jail/calls.py": f'"""Doc."""\n{MARKER}\nimport os\n\ndef f():\n    import pyseccomp\n',
        "zygote/init.py": f"{MARKER}\nfrom onehop.jail import calls\nfrom onehop.kernel import main\n",
        "sessions/s.py": "import sqlalchemy\nfrom onehop import __version__\nfrom onehop.store import t\n",
        "store/t.py": "from onehop.errors import E\n",
        "cli/main.py": "from onehop.sessions import s\nimport onehop.zygote.init\nfrom onehop.client import c\n",
        "client/c.py": "import httpx2\nfrom onehop.errors import E\n",
    }
    assert violations(plant(tmp_path, files)) == []


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules of a new interpreter after `statement`, minus those it starts with."""
    show = "print(json.dumps(sorted(set(sys.modules) - before)))"
    code = f"import sys, json; before = set(sys.modules); {statement}; {show}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_import_of_the_package_is_light() -> None:
    assert "onehop" in loaded_by("import onehop")
    assert loaded_by("import onehop") & HEAVY == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert loaded_by("import onehop, fastapi") >= {"fastapi", "pydantic", "starlette", "asyncio"}
