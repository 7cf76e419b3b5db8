"""The module `tools` of user code: namespaces and functions made from the catalogue, on first use.

Everything here can be replaced by the code that it serves; nothing here is a wall. The server checks every
call by itself.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from IPython.core.guarded_eval import EVALUATION_POLICIES

from onehop import protocol
from onehop.kernel import catalogue as catalogue_module
from onehop.kernel import modes, schemas
from onehop.kernel.calls import Calls
from onehop.kernel.catalogue import Catalogue
from onehop.kernel.tool_errors import ERRORS, ToolArgumentError
from onehop.protocol import ToolEntry

NAME = "tools"
MAX_CATALOGUES = 4
_ERRORS: dict[str, Any] = {one.__name__: one for one in ERRORS}
_FUNCTIONS = ("search", "describe")


class Tool:
    """A tool: call it as a function."""

    def __init__(self, root: Tools, entry: ToolEntry, origin: str) -> None:
        self._root, self._entry, self._origin = root, entry, origin
        self._parameters: schemas.Parameters | None = None
        self._members: dict[str, Any] = {}
        self.__name__ = entry.path.rpartition(".")[2]
        self.__qualname__ = f"{NAME}.{entry.path}"
        self.__module__ = NAME

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The value; something to await where the calling code is asynchronous."""
        if modes.awaits(sys._getframe(1).f_code.co_filename):
            return self.aio(*args, **kwargs)
        return self.sync(*args, **kwargs)

    def sync(self, *args: Any, **kwargs: Any) -> Any:
        """Waits for the value, wherever it is called."""
        entry = self._current()
        return self._root._calls.now(
            entry.path,
            entry.name,
            self._bind(args, kwargs) if args else self._named(kwargs),
            waits=entry.waits,
        )

    def aio(self, *args: Any, **kwargs: Any) -> Any:
        """The call begins at once; await what you get for the value."""
        entry = self._current()
        arguments = self._bind(args, kwargs) if args else self._named(kwargs)
        return self._root._calls.soon(entry.path, entry.name, arguments, waits=entry.waits)

    def _current(self) -> ToolEntry:
        """As the catalogue of the execution that runs has it: this object may be of an earlier one."""
        calls = self._root._calls
        if calls.catalogue and calls.catalogue != self._origin:
            found = self._root._load().by_name.get(self._entry.name)
            self._origin = calls.catalogue
            if found is not None and found != self._entry:
                self._entry, self._parameters = found, None
        return self._entry

    @property
    def parameters(self) -> schemas.Parameters:
        if self._parameters is None:
            self._parameters = schemas.Parameters(self._entry.parameters)
        return self._parameters

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self.parameters.names
        if len(args) > len(names):
            raise self._wrong(f"it takes at most {len(names)} arguments, and got {len(args)} without a name")
        by_position = dict(zip(names, args, strict=False))
        named = self._named(kwargs, known=by_position)
        for name in by_position:
            if name in named:
                raise self._wrong(f"it got {name!r} twice, by position and by name")
        return by_position | named

    def _named(self, kwargs: dict[str, Any], known: dict[str, Any] | None = None) -> dict[str, Any]:
        parameters = self.parameters
        named: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name not in parameters.properties:
                name = parameters.python.get(name, name)
                if name not in parameters.properties and not parameters.open:
                    near = catalogue_module.near(name, parameters.names)
                    raise self._wrong(
                        f"it has no parameter {name!r}" + (f"; did you mean {near}?" if near else "")
                    )
            named[name] = value
        missing = [name for name in parameters.required if name not in named and name not in (known or ())]
        if missing:
            raise self._wrong(f"it needs {', '.join(repr(name) for name in missing)}")
        return named

    def _wrong(self, message: str) -> ToolArgumentError:
        listed = schemas.signature_text(self.parameters, None).partition(" -> ")[0]
        return ToolArgumentError(
            self._entry.path, f"{message}. Valid parameters: {listed}", self.parameters.properties
        )

    @property
    def __signature__(self) -> Any:
        return schemas.signature(self.parameters, self._entry.returns)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return schemas.documentation(self._entry, self.parameters)

    def __repr__(self) -> str:
        return f"<tool {NAME}.{self._entry.path}{self._text()}>"

    def _text(self) -> str:
        return schemas.signature_text(self.parameters, self._entry.returns)

    def __getattr__(self, name: str) -> Any:
        members = self.__dict__.get("_members", {})
        if name in members:
            return members[name]
        raise AttributeError(f"the tool {NAME}.{self._entry.path} has no attribute {name!r}: call it")

    def __reduce__(self) -> Any:
        return _again, (self._entry.path,)


def _again(path: str) -> Any:
    """A tool that was pickled, by its path."""
    found: Any = sys.modules[NAME]
    for part in path.split("."):
        found = getattr(found, part)
    return found


_again.__module__ = NAME


class Namespace(ModuleType):
    """Tools of one source, as a module: `from tools.weather import forecast` works."""

    def __init__(self, path: str, members: dict[str, Any]) -> None:
        super().__init__(f"{NAME}.{path}")
        self.__path__: list[str] = []
        self.__doc__ = f"Tools: {', '.join(members)}."
        self.__dict__.update(members)
        self.__all__ = sorted(members)

    def __dir__(self) -> list[str]:
        return self.__all__

    def __repr__(self) -> str:
        return f"<{self.__name__}: {', '.join(self.__all__)}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        near = catalogue_module.near(name, self.__all__)
        raise AttributeError(
            f"{self.__name__} has no {name!r}"
            + (f"; did you mean {near}?" if near else f": it has {self.__all__}")
        )


class Tools(ModuleType):
    """The module itself. Its own names begin with `_`: all others are the catalogue's."""

    _calls: Calls

    def __init__(self, calls: Calls) -> None:
        super().__init__(
            NAME, "Functions that run outside the sandbox. See tools.search(text), tools.describe(name)."
        )
        self.__path__: list[str] = []
        self.__dict__.update(_ERRORS)
        self.__dict__["_calls"] = calls
        self.__dict__["_again"] = _again
        self.__dict__["_catalogues"] = {}
        self.__dict__["_shown"] = ""

    def _load(self) -> Catalogue:
        """The catalogue of the execution that runs; asked for once. Raises ToolError."""
        calls: Calls = self.__dict__["_calls"]
        calls.check("")
        kept: dict[str, Catalogue] = self.__dict__["_catalogues"]
        found = kept.get(calls.catalogue)
        if found is None:
            value = calls.now("", protocol.CATALOGUE_TOOL, {})
            found = Catalogue(catalogue_module.read(value))
            while len(kept) >= MAX_CATALOGUES:
                del kept[next(iter(kept))]
            kept[calls.catalogue] = found
        return found

    def _show(self, catalogue: str) -> None:
        """From now on the attributes are those of this catalogue; it is read when one is asked for."""
        space = self.__dict__
        if space["_shown"] != catalogue:
            for name in space.pop("_members", ()):
                space.pop(name, None)
            space.update(_ERRORS)
            space["_shown"] = catalogue
            for name in [one for one in sys.modules if one.startswith(f"{NAME}.")]:
                if isinstance(sys.modules[name], Namespace):
                    del sys.modules[name]

    def _fill(self) -> dict[str, Any]:
        space = self.__dict__
        if "_members" not in space:
            found = self._load()
            space["_members"] = self._tree(found)
            space.update(space["_members"])
        members: dict[str, Any] = space["_members"]
        return members

    def _tree(self, found: Catalogue) -> dict[str, Any]:
        origin = self._calls.catalogue

        def build(path: str, node: dict[str, Any]) -> dict[str, Any]:
            made: dict[str, Any] = {}
            for name, inner in node.items():
                if not name:
                    continue
                below = f"{path}.{name}" if path else name
                members = build(below, inner)
                if "" in inner:
                    made[name] = tool = Tool(self, inner[""], origin)
                    tool._members = members
                else:
                    made[name] = sys.modules[f"{NAME}.{below}"] = Namespace(below, members)
            return made

        return build("", found.tree())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        members = self._fill()
        if name in members:
            return members[name]
        if name == "search":
            return self._search
        if name == "describe":
            return self._describe
        near = catalogue_module.near(name, [*members, *_FUNCTIONS])
        raise AttributeError(
            f"there is no {NAME}.{name}"
            + (f"; did you mean {near}?" if near else "")
            + f" tools.search('…') finds what there is; there are: {', '.join(list(members)[:20])}"
        )

    def __dir__(self) -> list[str]:
        return sorted({*self._fill(), *_FUNCTIONS, *_ERRORS})

    @property
    def __all__(self) -> list[str]:
        return sorted(self._fill())

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("tools.search('') lists them")

    def __repr__(self) -> str:
        return "<tools: tools.search('…') finds, tools.describe('name') explains>"

    def _search(self, text: str = "", limit: int = 10) -> list[dict[str, str]]:
        """Tools whose names and descriptions fit `text`, best first: dicts with name, signature and description."""
        return self._load().search(text, limit)

    def _describe(self, name: Any) -> str:
        """All about one tool: its signature, what it does, the JSON Schema of its parameters."""
        wanted = name._entry.name if isinstance(name, Tool) else str(name)
        return self._load().describe(wanted)


class _Finder:
    """Lets `import tools.weather` find a namespace that nobody has asked for yet."""

    def __init__(self, module: Tools) -> None:
        self._module = module

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(f"{NAME}.") or sys.modules.get(NAME) is not self._module:
            return None
        found: Any = self._module
        for part in name.split(".")[1:]:
            found = found._fill().get(part) if isinstance(found, Tools) else vars(found).get(part)
            if found is None:
                return None
        loader: Any = _Loader(found)
        return importlib.machinery.ModuleSpec(name, loader) if isinstance(found, Namespace) else None


class _Loader:
    def __init__(self, module: Namespace) -> None:
        self._module = module

    def create_module(self, spec: Any) -> Any:
        return self._module

    def exec_module(self, module: Any) -> None:
        pass


class Access:
    """Puts `tools` before the code of executions that have tools, and takes it away from others."""

    def __init__(self, calls: Calls, variables: dict[str, Any], hidden: dict[str, Any]) -> None:
        self.calls = calls
        self._variables, self._hidden = variables, hidden
        self._module: Tools | None = None
        self._finder: _Finder | None = None
        self._theirs: ModuleType | None = None
        self.active = False

    def begin(self, catalogue: str) -> None:
        """An execution with tools begins."""
        self.calls.begin(catalogue)
        if self._module is None:
            self._module = Tools(self.calls)
            self._finder = _Finder(self._module)
            # IPython completes only behind objects whose attributes are had without running anybody's code.
            EVALUATION_POLICIES["limited"].allowed_getattr.update({Tools, Namespace})  # type: ignore[attr-defined]
        self._module._show(catalogue)
        if sys.modules.get(NAME) is not self._module:
            self._theirs = sys.modules.get(NAME)
            sys.modules[NAME] = self._module
        finder: Any = self._finder
        if finder not in sys.meta_path:
            sys.meta_path.insert(0, finder)
        if NAME not in self._variables:
            self._variables[NAME] = self._hidden[NAME] = self._module
        self.active = True

    def leave(self) -> None:
        """One without tools begins: `tools` is the user's own name."""
        self.active = False
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        if self._module is not None:
            self._module._show("")
        if sys.modules.get(NAME) is self._module:
            del sys.modules[NAME]
            if self._theirs is not None:
                sys.modules[NAME], self._theirs = self._theirs, None
        if self._variables.get(NAME) is self._module:
            del self._variables[NAME]
        self._hidden.pop(NAME, None)
