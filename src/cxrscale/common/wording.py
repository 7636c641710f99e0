"""What of code is words for readers: taken out of a parse tree before its digest is taken (`provenance`).

Words are: what the columns and rows of a table and the fields of a record mean, the range of a setting, log messages,
what progress bars and options of a script say, and the messages of errors that end a job. What an argument of a message
*does* still counts: a call within it is kept, unless it is `HARMLESS`.
"""

import ast
from collections.abc import Iterable, Iterator
from typing import Any

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

#: What is called -> its arguments that are words for readers, with their place if they may stand without a name.
WORDS: dict[str, dict[str, int | None]] = {
    "Column": {"meaning": 2},
    "Table": {"row": None, "made_by": None, "shown": None},
    "Record": {"of": None, "made_by": None, "remedy": None},
    "tqdm": {"desc": 1, "unit": None},
    "ArgumentParser": {"description": None},
    "add_argument": {"help": None},
}
#: Arguments of which counts whether they say anything.
SAID: dict[str, dict[str, int | None]] = {"Column": {"null": 3}}

#: Loggers by the last part of their name, and their methods.
LOGGERS = ("log", "logger", "logging")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
#: Methods of a progress bar that only change what it says.
BAR = ("set_postfix", "set_postfix_str", "set_description", "set_description_str")
#: Exceptions that end a job, so that nobody but the reader sees their message. Messages of others may be recorded: why
#: a picture cannot be read stands in quarantine.csv, why a metric has no value in metrics.csv.
ENDING = ("StudyError", "Interrupted", "FloatingPointError", "SystemExit")
#: Functions without effects, and methods.
HARMLESS = ("len", "list", "map", "max", "min", "repr", "round", "set", "sorted", "str", "sum", "tuple")
HARMLESS_METHODS = ("format", "join")


def without_words(node: Any) -> Any:
    """A parse tree without words; it is changed."""
    return _WithoutWords().visit(node)


class _WithoutWords(ast.NodeTransformer):
    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated" and isinstance(node.slice, ast.Tuple):
            return node.slice.elts[0]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        called = _name_of(node.func)
        words, said = WORDS.get(called, {}), SAID.get(called, {})
        for place, argument in enumerate(node.args):
            if place in words.values():
                node.args[place] = ast.Constant("")
            elif place in said.values():
                node.args[place] = _whether_said(argument)
        node.keywords = [k for k in node.keywords if k.arg not in words]
        for keyword in node.keywords:
            if keyword.arg in said:
                keyword.value = _whether_said(keyword.value)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        """Of a statement that only says something, what its arguments do."""
        self.generic_visit(node)
        if not (isinstance(node.value, ast.Call) and _only_says(node.value)):
            return node
        return [ast.Expr(part) for part in _doing(_arguments(node.value))]

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        self.generic_visit(node)
        if isinstance(node.exc, ast.Call) and _name_of(node.exc.func) in ENDING:
            node.exc.args = [_without_texts(argument) for argument in node.exc.args]
        return node


def _name_of(called: ast.expr) -> str:
    return called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")


def _only_says(call: ast.Call) -> bool:
    method = call.func
    if not isinstance(method, ast.Attribute):
        return False
    return method.attr in BAR or (method.attr in LEVELS and _name_of(method.value) in LOGGERS)


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _doing(arguments: Iterable[ast.expr]) -> Iterator[ast.expr]:
    """The outermost parts of arguments that may do something: calls, assignments and what waits."""
    for argument in arguments:
        if _does(argument):
            yield argument
        else:
            yield from _doing(node for node in ast.iter_child_nodes(argument) for node in _expressions(node))


def _does(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        called = node.func
        return _name_of(called) not in (HARMLESS if isinstance(called, ast.Name) else HARMLESS_METHODS)
    return isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """The node if it is an expression, else those directly within it (of a keyword, of the part of a comprehension)."""
    if isinstance(node, ast.expr):
        yield node
    else:
        for child in ast.iter_child_nodes(node):
            yield from _expressions(child)


def _without_texts(argument: ast.expr) -> ast.expr:
    """An argument of an exception: texts as what they do, other values as they are."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return ast.Constant("")
    if isinstance(argument, ast.JoinedStr):
        return ast.Tuple(list(_doing([argument])), ast.Load())
    if isinstance(argument, ast.BinOp):
        return ast.BinOp(_without_texts(argument.left), argument.op, _without_texts(argument.right))
    return argument


def _whether_said(words: ast.expr) -> ast.Constant:
    return ast.Constant("" if isinstance(words, ast.Constant) and not words.value else "said")
