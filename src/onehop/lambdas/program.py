"""From code to a program whose last statement's value is kept, and called where that can be.

`monty_source` and `sandbox_source` must mean the same: the value of the last statement, if that is an
expression, or the function or class that it defines; else None. A value that can be called is called.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from importlib import resources

VALUE = "__onehop_value__"
ARGS = "__onehop_args__"
KWARGS = "__onehop_kwargs__"
_NO_TEXT = ("<", "range(", "dict_", "slice(")
"""How text begins that Monty makes of what it cannot hand over: functions, modules, ranges, views.
What holds itself has "..." in its text, and lone surrogates become U+FFFD."""
_LAZY = frozenset(("enumerate", "filter", "map", "reversed", "zip"))
"""They would come out as lists."""
MIME = "application/vnd.onehop.value+json"
"""What a sandbox shows: one JSON object with `value`, `refused` or `error`."""

# What Monty may do otherwise than CPython, asked before it is done. A RuntimeError can be caught by nothing
# that fit.py lets through, so it ends the program, and the sandbox runs the code instead.
#   plain: a type that Monty cannot hand over comes out of it as text
#   text: of two shortest texts of a float, which there can be from 16 digits on, it takes another
#   round: CPython rounds the decimal digits, which a format does in Monty too
_PLAIN = """
def __onehop_plain__(value):
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool or kind is float:
        return True
    if kind is list or kind is tuple:
        return all([__onehop_plain__(item) for item in value])
    return kind is dict and all([type(key) is str and __onehop_plain__(value[key]) for key in value])
"""
_FLOATS = """
def __onehop_floats__(value):
    kind = type(value)
    if kind is float:
        if len(str(value)) > 15:
            raise RuntimeError("the text of a float")
    elif kind is list or kind is tuple or kind is set:
        for item in value:
            __onehop_floats__(item)
    elif kind is dict:
        for key in value:
            __onehop_floats__(key)
            __onehop_floats__(value[key])
    elif value is not None and kind is not str and kind is not int and kind is not bool:
        raise RuntimeError("the text of that type")
"""
_STR = """
def __onehop_str__(value=""):
    if type(value) is str:
        return value
    if type(value) is set and len(value) > 1:
        raise RuntimeError("the order of a set")
    __onehop_floats__(value)
    return str(value)
"""
_SHORT = """
def __onehop_short__(value):
    __onehop_floats__(value)
    return value
"""
_ROUND = """
def __onehop_round__(value, digits=None):
    if digits is None or type(value) is not float:
        return round(value, digits)
    if not -1e12 < value < 1e12 or type(digits) is not int or not 0 <= digits <= 15:
        raise RuntimeError("such rounding of a float")
    return float(f"{value:.{digits}f}")
"""
_MOD = """
def __onehop_mod__(left, right):
    if type(left) is str:
        raise RuntimeError("% of text")
    return left % right
"""
_NEEDS = {
    "__onehop_mod__": (_MOD,),
    "__onehop_str__": (_FLOATS, _STR),
    "__onehop_short__": (_FLOATS, _SHORT),
    "__onehop_round__": (_ROUND,),
}
"""Only what a program uses goes with it: Monty reads all of it anew for each call."""


class _Rewrite(ast.NodeTransformer):
    """Text of values, rounding and % go by the helpers; loops over enumerate() become plain ones."""

    def __init__(self) -> None:
        self._loops = 0

    def visit_For(self, node: ast.For) -> ast.AST | list[ast.stmt]:
        """A loop over enumerate(x) counts itself: Monty takes all of x at once, also what the loop adds or drops."""
        self.generic_visit(node)
        call = node.iter
        if not (
            isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "enumerate"
        ):
            return node
        self._loops += 1
        number, item = f"__onehop_number{self._loops}__", f"__onehop_item{self._loops}__"
        start = (
            call.args[1]
            if len(call.args) > 1
            else call.keywords[0].value
            if call.keywords
            else ast.Constant(0)
        )
        pair = ast.Tuple([ast.Name(number, ast.Load()), ast.Name(item, ast.Load())], ast.Load())
        node.body[:0] = [
            ast.AugAssign(ast.Name(number, ast.Store()), ast.Add(), ast.Constant(1)),
            ast.Assign([node.target], pair, lineno=1),
        ]
        node.target, node.iter = ast.Name(item, ast.Store()), call.args[0]
        before = ast.Assign(
            [ast.Name(number, ast.Store())], ast.BinOp(start, ast.Sub(), ast.Constant(1)), lineno=1
        )
        return [before, node]

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Mod):
            return node
        return ast.Call(ast.Name("__onehop_mod__", ast.Load()), [node.left, node.right], [])

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        helper = "__onehop_str__" if node.format_spec is None else "__onehop_short__"
        if "." not in _spec(node):
            node.value = ast.Call(ast.Name(helper, ast.Load()), [node.value], [])
            node.conversion = -1
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("str", "round"):
            node.func = ast.Name(f"__onehop_{node.func.id}__", ast.Load())
        elif not (isinstance(node.func, ast.Name) and node.func.id == "isinstance"):
            node.args = [_text_function(one) for one in node.args]
            for keyword in node.keywords:
                keyword.value = _text_function(keyword.value)
        return node


def _spec(node: ast.FormattedValue) -> str:
    parts = node.format_spec.values if isinstance(node.format_spec, ast.JoinedStr) else []
    return "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


def _text_function(node: ast.expr) -> ast.expr:
    return ast.Name("__onehop_str__", ast.Load()) if isinstance(node, ast.Name) and node.id == "str" else node


@dataclass(frozen=True)
class Program:
    """What Monty is given.

    Attributes:
        quick: gives the value alone; empty where that would not do.
        full: gives [is JSON, value], which takes a quarter of a millisecond more to read and run.
    """

    quick: str
    full: str

    @staticmethod
    def doubtful(value: object) -> bool:
        """Whether some text in a value of `quick` may be what Monty made of something that is no JSON."""
        if isinstance(value, str):
            return value.startswith(_NO_TEXT) or "..." in value or "\ufffd" in value
        if isinstance(value, list | tuple):
            return any(Program.doubtful(item) for item in value)
        if isinstance(value, dict):
            return any(Program.doubtful(key) or Program.doubtful(item) for key, item in value.items())
        return False


def monty_source(tree: ast.Module) -> Program:
    """The program for Monty, from a tree that has passed `fit.check`."""
    lazy = any(isinstance(node, ast.Name) and node.id in _LAZY for node in ast.walk(tree))
    last = tree.body[-1]
    kept: ast.expr = ast.Constant(None)
    if isinstance(last, ast.FunctionDef):
        kept = ast.Name(last.name, ast.Load())
    elif isinstance(last, ast.Expr):
        tree.body.pop()
        kept = last.value
    called = isinstance(last, ast.FunctionDef) or isinstance(kept, ast.Lambda)
    tree.body.append(ast.Assign([ast.Name(VALUE, ast.Store())], kept, lineno=1))
    code = ast.unparse(ast.fix_missing_locations(_Rewrite().visit(tree)))
    helpers = dict.fromkeys(text for name, texts in _NEEDS.items() if name in code for text in texts)
    code = "".join(helpers) + code + "\n"
    call = f"{VALUE}(*{ARGS}, **{KWARGS})" if called else VALUE
    full = f"{code}{VALUE} = {call}\n{_PLAIN}[__onehop_plain__({VALUE}), {VALUE}]"
    return Program("" if lazy else code + call, full)


# It shows what the code raised as the code's user should see it, then raises it: the execution failed.
_SANDBOX = """
def _onehop_run(source, args, kwargs):
    import ast, linecache, traceback
    from IPython.display import display
    def show(found):
        display({MIME: json.dumps(found)}, raw=True)
    linecache.cache["<lambda>"] = (len(source), None, source.splitlines(True), "<lambda>")
    names = {"__name__": "__main__"}
    try:
        tree = ast.parse(source, "<lambda>")
        last = tree.body[-1] if tree.body else None
        value = None
        if isinstance(last, ast.Expr):
            tree.body.pop()
            exec(compile(tree, "<lambda>", "exec"), names)
            value = eval(compile(ast.Expression(last.value), "<lambda>", "eval"), names)
        else:
            exec(compile(tree, "<lambda>", "exec"), names)
            if isinstance(last, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                value = names[last.name]
        if callable(value):
            value = value(*args, **kwargs)
    except BaseException as error:
        described = traceback.TracebackException.from_exception(error)
        stack = described.stack
        while stack and stack[0].filename != "<lambda>":
            del stack[0]
        try:
            text = str(error)
        except Exception:
            text = ""
        written = "".join(described.format()).rstrip()
        show({"error": {"name": type(error).__name__[:256], "value": text[:8192], "traceback": written[:32768]}})
        raise
    if type(value).__name__ == "coroutine":
        value.close()
    try:
        text = encode(value)
    except NotPlainError as error:
        show({"refused": str(error)})
    else:
        show({"value": text})
"""


def sandbox_source(code: str, arguments: str) -> str:
    """The cell that a kernel runs.

    Args:
        arguments: JSON of [args, kwargs].
    """
    return f"{_sandbox_helpers()}_onehop_run({code!r}, *json.loads({arguments!r}))\n"


@cache
def _sandbox_helpers() -> str:
    text = resources.files("onehop.lambdas").joinpath("plain.py").read_text()
    # One statement, so that a traceback of the cell holds little of ours.
    return f"exec({text + _SANDBOX.replace('MIME', repr(MIME))!r})\n"
