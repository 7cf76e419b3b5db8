"""Whether code means the same in Monty as in CPython: a list of what is known to, and everything else does not fit.

Monty is not CPython: other orders of sets, other Unicode tables, missing methods, which code may notice
and catch. So this allows what a test compares, node by node and name by name, and must refuse what
nobody has compared. What Monty raises is not answered either: the sandbox runs the code again and
says what CPython says. Only the standard library; code is parsed here, so it runs in a worker.
"""

from __future__ import annotations

import ast
import re


class UnfitError(Exception):
    """The code is for a sandbox; the text says why."""


MAX_CODE_CHARS = 64 * 1024

_NODES = (
    ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.Return, ast.If, ast.For, ast.While, ast.Break,
    ast.Continue, ast.Pass, ast.Raise, ast.Assert, ast.Try, ast.ExceptHandler, ast.FunctionDef, ast.Lambda,
    ast.arguments, ast.arg, ast.keyword, ast.Call, ast.Name, ast.Constant, ast.Attribute, ast.Subscript,
    ast.Slice, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp,
    ast.comprehension, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr,
    ast.FormattedValue, ast.Starred, ast.NamedExpr, ast.Import, ast.ImportFrom, ast.alias, ast.Nonlocal,
    ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BUILTINS = _words(
    "abs all any bool dict divmod enumerate filter float frozenset int isinstance len list map max min ord range "
    "reversed round set sorted str sum tuple zip"
)
_CONSUMERS = _words("all any dict enumerate filter len list map max min set sorted sum tuple zip")
"""They take an iterable and keep nothing of its type."""
_DRAINERS = _words("list max min set sorted sum tuple")
"""They take all of an iterable at once: Monty makes what CPython would make one by one, as it is asked for."""
_CHANGING = _words("append extend insert pop remove reverse sort clear update setdefault add discard")
_ORDERLESS = _words("all any len max min sorted")
"""What they make of a set does not depend on its order (for min and max: of plain numbers and text)."""
_TYPES = _words("bool dict float int list str tuple")
_PASSED = _TYPES | _words("len abs")
"""Functions that may be handed to others."""
_RAISED = _words("ValueError KeyError IndexError ZeroDivisionError TypeError LookupError ArithmeticError")
_ATTRIBUTES = _words(
    "append extend insert pop remove reverse sort copy clear count index get items keys values update setdefault "
    "add discard upper lower title capitalize strip lstrip rstrip split rsplit join replace startswith endswith "
    "find rfind isdigit isalpha isalnum isspace isupper islower zfill ljust rjust center partition rpartition "
    "splitlines swapcase removeprefix removesuffix"
)
_UNICODE = _words(
    "upper lower title capitalize swapcase strip lstrip rstrip split rsplit isdigit isalpha isalnum isspace isupper "
    "islower splitlines center ljust rjust zfill"
)
"""Methods that ask Unicode's tables, whose versions differ: for plain text only."""
_MODULES = {
    "math": _words(
        "floor ceil sqrt gcd lcm isqrt fabs trunc comb perm factorial isnan isinf isfinite pi e copysign"
    ),
    "json": _words("loads"),
}
_SPEC = re.compile(r"([<>^]?\d{0,3}|0\d{1,2})(\.\d{1,2}[fe%]|,|,\.\d{1,2}f|[dxXobe])?", re.ASCII)
_EXOTIC = re.compile(r"[^\n\r\t -~]")
_VIEWS = frozenset(("keys", "items", "values"))


def check(code: str, *, plain_arguments: bool) -> ast.Module:
    """The code's tree.

    Args:
        plain_arguments: the arguments hold no text but printable ASCII.

    Raises:
        UnfitError: it is not known to mean the same in both.
    """
    if len(code) > MAX_CODE_CHARS:
        raise UnfitError(f"code of more than {MAX_CODE_CHARS} characters")
    if "\r" in code or "\f" in code or "\0" in code:
        raise UnfitError("line ends other than \\n")
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UnfitError("a syntax error") from None
    if not tree.body:
        raise UnfitError("there is nothing to run")
    try:
        _Check(tree, plain_arguments).run()
    except RecursionError:
        raise UnfitError("nested too deeply") from None
    return tree


class _Check:
    def __init__(self, tree: ast.Module, plain_arguments: bool) -> None:
        self._tree = tree
        self._plain = plain_arguments
        self._unicode = ""
        self._imported: dict[str, str] = {}
        self._bound: set[str] = set()
        self._sets: set[str] = set()
        self._parent: dict[ast.AST, ast.AST] = {}

    def run(self) -> None:
        nodes = list(ast.walk(self._tree))
        for node in nodes:
            if not isinstance(node, _NODES):
                raise UnfitError(f"{type(node).__name__} is not in the lane")
            for child in ast.iter_child_nodes(node):
                self._parent[child] = node
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._bind(node.id)
            elif isinstance(node, ast.arg):
                self._bind(node.arg)
            elif isinstance(node, ast.FunctionDef):
                self._bind(node.name)
        self._find_sets(nodes)
        for node in nodes:
            method = getattr(self, f"_{type(node).__name__}", None)
            if method is not None:
                method(node)
        if self._unicode and not self._plain:
            raise UnfitError(f"{self._unicode} of text beyond ASCII")

    def _bind(self, name: str) -> None:
        if name.startswith("__") or not name.isascii():
            raise UnfitError(f"the name {name!r}")
        if name in _BUILTINS or name in _RAISED or name in _MODULES:
            raise UnfitError(f"{name} gets another meaning")
        self._bound.add(name)

    # --- sets: their order differs, so they may only be used where it does not show ---------------------

    def _find_sets(self, nodes: list[ast.AST]) -> None:
        """Names that are sets, everywhere in the code: bound once or more, to sets only."""
        assigned: dict[str, list[bool]] = {}
        for node in nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        assigned.setdefault(target.id, []).append(_makes_set(node.value))
        for name, kinds in assigned.items():
            if all(kinds):
                stores = sum(
                    1
                    for node in nodes
                    if (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store))
                    or (isinstance(node, ast.arg) and node.arg == name)
                )
                if stores == len(kinds):
                    self._sets.add(name)

    def _set(self, node: ast.expr) -> None:
        """`node` is a set: only uses that do not show its order."""
        parent = self._parent[node]
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Name):
            shown = parent.func.id not in _ORDERLESS or parent.args != [node] or bool(parent.keywords)
        elif isinstance(parent, ast.Compare):
            shown = node is parent.left or not all(isinstance(op, ast.In | ast.NotIn) for op in parent.ops)
        elif isinstance(parent, ast.Assign):
            shown = not all(isinstance(one, ast.Name) and one.id in self._sets for one in parent.targets)
        elif isinstance(parent, ast.Attribute) and parent.attr in ("add", "discard"):
            statement = self._parent[self._parent[parent]]
            shown = not isinstance(statement, ast.Expr) or statement is self._tree.body[-1]
        else:
            shown = True
        if shown:
            raise UnfitError("the order of a set")

    def _Set(self, node: ast.Set) -> None:
        self._set(node)

    def _SetComp(self, node: ast.SetComp) -> None:
        self._set(node)

    # --- names, attributes, calls -------------------------------------------------------------------

    def _Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            return
        name = node.id
        if name in self._sets:
            self._set(node)
            return
        if name in self._bound or name in self._imported:
            return
        parent = self._parent[node]
        if name in _BUILTINS:
            called = isinstance(parent, ast.Call) and parent.func is node
            passed = isinstance(parent, ast.Call) and parent.func is not node and name in _PASSED
            keyed = isinstance(parent, ast.keyword) and parent.arg == "key" and name in _PASSED
            listed = isinstance(parent, ast.Tuple) and name in _TYPES and self._in_isinstance(parent)
            if called or passed or keyed or listed or self._in_annotation(node):
                return
            raise UnfitError(f"{name} as a value")
        if name in _RAISED:
            return
        raise UnfitError(f"the name {name!r}")

    def _in_isinstance(self, node: ast.AST) -> bool:
        call = self._parent[node]
        return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "isinstance"

    def _in_annotation(self, node: ast.AST) -> bool:
        parent = self._parent[node]
        return isinstance(parent, ast.arg) or (isinstance(parent, ast.FunctionDef) and parent.returns is node)

    def _Attribute(self, node: ast.Attribute) -> None:
        if (
            isinstance(node.value, ast.Name)
            and node.value.id in self._imported
            and node.value.id not in self._bound
        ):
            if node.attr not in _MODULES[self._imported[node.value.id]]:
                raise UnfitError(f"{node.value.id}.{node.attr}")
            return
        parent = self._parent[node]
        if node.attr not in _ATTRIBUTES or not (isinstance(parent, ast.Call) and parent.func is node):
            raise UnfitError(f"the attribute {node.attr!r}")
        if node.attr in _UNICODE:
            self._unicode = node.attr
        if node.attr in _VIEWS:
            self._consumed(parent)

    def _GeneratorExp(self, node: ast.GeneratorExp) -> None:
        parent = self._parent[node]
        if (
            isinstance(parent, ast.Call)
            and isinstance(parent.func, ast.Name)
            and parent.func.id in ("any", "all")
        ):
            # They stop early, so nothing may show how far the others got.
            for inner in ast.walk(node):
                if isinstance(inner, ast.NamedExpr) or (
                    isinstance(inner, ast.Call) and self._may_change(inner)
                ):
                    raise UnfitError("any() or all() of something that may have effects")
        else:
            self._drained(node)

    def _may_change(self, call: ast.Call) -> bool:
        function = call.func
        if isinstance(function, ast.Attribute):
            return function.attr in _CHANGING
        return not (isinstance(function, ast.Name) and function.id in _BUILTINS)

    def _drained(self, node: ast.expr) -> None:
        parent = self._parent[node]
        if isinstance(parent, ast.Call) and not any(one.arg == "key" for one in parent.keywords):
            function = parent.func
            if isinstance(function, ast.Name) and function.id in _DRAINERS and parent.args[0] is node:
                return
            if isinstance(function, ast.Attribute) and function.attr == "join":
                return
        raise UnfitError("an iterator as a value")

    def _consumed(self, node: ast.Call) -> None:
        """A view or an iterator must be taken apart where it is made: it is no list, and may be part of a set."""
        parent = self._parent[node]
        if isinstance(parent, ast.For | ast.comprehension):
            taken = parent.iter is node
        elif isinstance(parent, ast.Call):
            function = parent.func
            taken = (isinstance(function, ast.Name) and function.id in _CONSUMERS) or (
                isinstance(function, ast.Attribute) and function.attr == "join"
            )
        else:
            taken = isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Tuple)
        if not taken:
            raise UnfitError("an iterator as a value")

    def _Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Lambda):
            return
        if isinstance(function, ast.Name) and function.id in _BUILTINS:
            name = function.id
            if name in ("set", "frozenset"):
                self._set(node)
            elif name == "enumerate":
                self._enumerate(node)
            elif name in ("map", "filter"):
                self._drained(node)
            elif name in ("range", "zip", "reversed"):
                self._consumed(node)
            elif name in ("str", "float", "int") and len(node.args) + len(node.keywords) > (
                2 if name == "int" else 1
            ):
                raise UnfitError(f"{name} with encodings")
            if name in ("int", "float", "str"):
                self._unicode = self._unicode or f"{name}()"
            if any(isinstance(one, ast.Starred) for one in node.args) and name not in ("max", "min", "zip"):
                raise UnfitError("a builtin with *")
            return
        if not isinstance(function, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            raise UnfitError("a call of that kind")

    def _enumerate(self, node: ast.Call) -> None:
        self._consumed(node)
        starts = [*node.args[1:], *(one.value for one in node.keywords if one.arg == "start")]
        if (
            not node.args
            or len(node.args) + len(node.keywords) > 2
            or len(starts) != len(node.args) + len(node.keywords) - 1
            or not all(isinstance(one, ast.Constant | ast.Name) for one in starts)
        ):
            raise UnfitError("enumerate() of that kind")
        comprehension = self._parent[node]
        if isinstance(comprehension, ast.comprehension):
            for inner in ast.walk(self._parent[comprehension]):
                if isinstance(inner, ast.Attribute) and inner.attr in _CHANGING:
                    raise UnfitError("a comprehension that changes what it goes through")

    def _keyword(self, node: ast.keyword) -> None:
        call = self._parent[node]
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _BUILTINS:
            if node.arg not in ("key", "reverse", "default", "start", "strict") and call.func.id != "dict":
                raise UnfitError(f"{call.func.id} with {node.arg}=")
        elif (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and node.arg not in ("key", "reverse")
        ):
            raise UnfitError(f"{call.func.attr} with {node.arg}=")

    # --- statements ---------------------------------------------------------------------------------

    def _FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.decorator_list:
            raise UnfitError("a decorator")
        if node.returns is not None:
            self._annotation(node.returns)

    def _arg(self, node: ast.arg) -> None:
        if node.annotation is not None:
            self._annotation(node.annotation)

    def _annotation(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
            return
        if not (isinstance(node, ast.Name) and node.id in _TYPES):
            raise UnfitError("an annotation other than a plain type")

    def _Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Starred):
            raise UnfitError("a starred expression")

    def _Import(self, node: ast.Import) -> None:
        self._at_top(node)
        for alias in node.names:
            if alias.name not in _MODULES or alias.asname:
                raise UnfitError(f"import {alias.name}")
            self._imported[alias.name] = alias.name

    def _ImportFrom(self, node: ast.ImportFrom) -> None:
        raise UnfitError(f"from {node.module} import")

    def _at_top(self, node: ast.AST) -> None:
        if self._parent[node] is not self._tree:
            raise UnfitError("an import that is not at the top")

    def _ExceptHandler(self, node: ast.ExceptHandler) -> None:
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if node.name or not all(isinstance(kind, ast.Name) and kind.id in _RAISED for kind in kinds):
            raise UnfitError("an except clause that sees more than a plain type")

    def _Compare(self, node: ast.Compare) -> None:
        for op, right in zip(node.ops, node.comparators, strict=True):
            plain = isinstance(right, ast.Constant) and right.value in (None, True, False)
            if isinstance(op, ast.Is | ast.IsNot) and not plain:
                raise UnfitError("`is` of something else than None, True, False")

    def _BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.MatMult):
            raise UnfitError("@")

    def _AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.MatMult | ast.Mod):
            raise UnfitError("@= and %=")

    def _Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str):
            if _EXOTIC.search(value):
                self._plain = False
                if any("\ud800" <= one <= "\udfff" for one in value):
                    raise UnfitError("lone surrogates")
        elif isinstance(value, bytes | complex) or value is ...:
            raise UnfitError(f"{type(value).__name__} constants")

    def _FormattedValue(self, node: ast.FormattedValue) -> None:
        if node.conversion not in (-1, 115):  # none, or !s
            raise UnfitError("!r and !a in an f-string")
        spec = node.format_spec
        if spec is not None:
            if not (
                isinstance(spec, ast.JoinedStr) and all(isinstance(one, ast.Constant) for one in spec.values)
            ):
                raise UnfitError("a computed format")
            if not _SPEC.fullmatch("".join(str(one.value) for one in spec.values)):  # type: ignore[attr-defined]
                raise UnfitError("such a format in an f-string")


def _makes_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("set", "frozenset")
    )
