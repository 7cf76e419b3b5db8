"""Import rules: which modules the user's own code may import. A guard rail for well-meant code, no wall.

The rule looks at imports that a cell, a file outside the environment, or a magic asks for: what an allowed
module imports itself is its own business (numpy needs os). Code that wants around it gets around it
(`sys.modules`, a subprocess): what a sandbox can do is the jail's subject, and nothing here may be relied on.
"""
# runs inside the wall: standard library only

from __future__ import annotations

import builtins
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from onehop.kernel.failures import CELL_PREFIX, OWN

if TYPE_CHECKING:
    from onehop.kernel.shell import Shell
    from onehop.protocol import ImportRules

_SHOWN = 30
"""So many names of a rule are in a message."""

_import = builtins.__import__
_import_module = importlib.import_module
_library: tuple[str, ...] = ()
"""Beginnings of file names of code that is not the user's."""
_rules: ImportRules | None = None
_namespace: dict[str, Any] = {}


def prepare(shell: Shell) -> None:
    """Once, in the zygote. `import_module` is ours for good: code keeps references to it; it costs a look."""
    global _library
    folders = {os.path.dirname(os.__file__), *(path for path in sys.path if os.path.isabs(path))}
    _library = (*OWN, *(folder + os.sep for folder in folders))
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(_checked_module, name, getattr(_import_module, name))
    importlib.import_module = _checked_module
    # Both import what the cell's text names, from files of IPython's.
    for owner, name in ((shell, "safe_run_module"), (shell.extension_manager, "load_extension")):
        setattr(owner, name, _checked_magic(getattr(owner, name)))


def install(shell: Shell, rules: ImportRules) -> None:
    """From here on `rules` hold."""
    global _rules, _namespace
    _rules, _namespace = rules, shell.user_global_ns
    builtins.__import__ = _checked_import


def remove() -> None:
    """No rules hold any more. A wrapper that user code has put around ours stays, and lets everything pass."""
    global _rules
    _rules = None
    if builtins.__import__ is _checked_import:
        builtins.__import__ = _import


def _checked_import(
    name: str,
    globals: Any = None,
    locals: Any = None,
    fromlist: Any = (),
    level: int = 0,
) -> ModuleType:
    """`builtins.__import__` while rules hold."""
    if _rules is not None and level == 0 and isinstance(name, str):
        frame = sys._getframe(1)
        # CPython's own C code asks in the name of whatever frame is there, with an empty list (PyImport_Import:
        # time.strptime imports _strptime so); a statement passes None or a tuple.
        if type(fromlist) is list and not fromlist and "__import__" not in frame.f_code.co_names:
            return _import(name, globals, locals, fromlist, level)
        if _is_users(frame):
            _check(_rules, name, fromlist or ())
    return _import(name, globals, locals, fromlist, level)


def _checked_module(name: Any, package: str | None = None) -> ModuleType:
    """`importlib.import_module`."""
    rules = _rules
    if rules is not None and isinstance(name, str) and name[:1] != "." and _is_users(sys._getframe(1)):
        _check(rules, name, ())
    return _import_module(name, package)


def _checked_magic(call: Any) -> Any:
    def check_and_call(module: str, *args: Any, **kwargs: Any) -> Any:
        if _rules is not None:
            _check(_rules, module, ())
        return call(module, *args, **kwargs)

    return check_and_call


def _is_users(frame: FrameType | None) -> bool:
    """Whether code of the user's asks. What was made from a string belongs to whoever runs it."""
    while frame is not None:
        if frame.f_globals is _namespace:
            return True
        name = frame.f_code.co_filename
        if name.startswith(CELL_PREFIX):
            return True
        if not name.startswith("<"):
            return not name.startswith(_library)
        frame = frame.f_back
    return False


def _check(rules: ImportRules, name: str, fromlist: Sequence[Any]) -> None:
    """Raises ImportError for what the rules do not let pass."""
    members = [f"{name}.{one}" for one in fromlist if isinstance(one, str) and one != "*"]
    if rules.allow is None:
        for asked in (name, *members):
            if _covers(rules.deny, asked):
                raise _refused(asked, f"denies {_listed(rules.deny)} (imports.deny)")
        return
    if _covers(rules.allow, name) or _is_given(name):
        return
    if members and len(members) == len(fromlist) and all(_covers(rules.allow, one) for one in members):
        return  # `from matplotlib import pyplot`, where matplotlib.pyplot is allowed
    allowed = f"only {_listed(rules.allow)}, and modules of the workspace" if rules.allow else "no module"
    raise _refused(name, f"allows {allowed} (imports.allow)")


def _covers(names: list[str], asked: str) -> bool:
    return any(asked == name or asked.startswith(f"{name}.") for name in names)


def _is_given(name: str) -> bool:
    """Nobody has to allow the language's own, the tools of the execution, or the user's own files.

    Those files are code under the same rules.
    """
    top = name.partition(".")[0]
    if top == "__future__":
        return True
    module = sys.modules.get(top)
    if top == "tools" and type(module).__module__ == "onehop.kernel.tools":
        return True
    try:
        spec: Any = module.__spec__ if module is not None else importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None:
        return module is None  # it does not exist: let Python say so
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return bool(places) and not any(os.path.abspath(place).startswith(_library) for place in places)


def _refused(name: str, rule: str) -> ImportError:
    return ImportError(f"{name!r} may not be imported here: the import rule {rule}", name=name)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
