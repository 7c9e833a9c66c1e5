"""Single-edit mutants of a Python solution: how strong a problem's tests are is the share of them that fail.

The edits are those of classical mutation testing (DeMillo, Lipton, Sayward 1978): operator, constant, boundary
(`<` for `<=`), swapped branch (the condition negated) and dropped line. Annotations and docstrings are left alone.
Some mutants are equivalent to the original, so that no set of tests kills all of them.
"""

import ast
import copy
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

KINDS = ("operator", "constant", "boundary", "swapped branch", "dropped line")
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitXor: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
BOUNDARIES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
DROPPABLE = (ast.Assign, ast.AugAssign, ast.Expr, ast.Break, ast.Continue, ast.Return)
PRELUDE = """
from typing import *
from collections import *
from heapq import *
from bisect import *
from functools import *
from itertools import *
import bisect, collections, functools, heapq, itertools, math, operator, re, string
"""


class Mutant(NamedTuple):
    kind: str
    line: int
    source: str


class Timeout(BaseException):
    """A mutant that loops; no `except Exception` of its own catches it."""


def mutants(source: str) -> Iterator[Mutant]:
    """Every single edit of `source`, as source again."""
    tree = ast.parse(source)
    for node, put in list(_places(tree)):
        for kind, replacement in _edits(node):
            put(ast.copy_location(replacement, node))
            yield Mutant(kind, node.lineno, ast.unparse(ast.fix_missing_locations(tree)))
            put(node)


def _places(parent: ast.AST) -> Iterator[tuple[ast.AST, Callable[[ast.AST], None]]]:
    """Every node below `parent` and how to put another one in its place."""
    for name, value in ast.iter_fields(parent):
        if name in ("annotation", "returns"):
            continue
        if isinstance(value, list):
            children = [(child, partial(value.__setitem__, index)) for index, child in enumerate(value)]
        else:
            children = [(value, partial(setattr, parent, name))]
        for child, put in children:
            if isinstance(child, ast.AST):
                yield child, put
                yield from _places(child)


def _edits(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(kind, replacement) for every edit of this node itself."""
    changed = copy.copy(node)
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                other = COMPARISONS[type(operator)]()
                changed = copy.copy(node)
                changed.ops = [*node.ops[:index], other, *node.ops[index + 1 :]]
                yield ("boundary" if isinstance(operator, BOUNDARIES) else "operator"), changed
        case ast.BinOp() | ast.AugAssign() if type(node.op) in ARITHMETIC:
            changed.op = ARITHMETIC[type(node.op)]()
            yield "operator", changed
        case ast.BoolOp():
            changed.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield "operator", changed
        case ast.Constant(value=bool()):
            yield "constant", ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield "constant", ast.Constant(node.value + 1)
        case ast.If() | ast.IfExp() | ast.While():
            changed.test = ast.UnaryOp(ast.Not(), node.test)
            yield "swapped branch", changed
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if isinstance(node, DROPPABLE) and not docstring:
        yield "dropped line", ast.Pass()


def run(source: str, entry_point: str, calls: list[list], seconds: float) -> Iterator[object]:
    """What `Solution().entry_point` returns for each argument list; `Timeout` after `seconds` of CPU time in all.

    Runs in this process: only for our own solutions and their mutants, in a child process with a memory limit.
    """
    signal.signal(signal.SIGVTALRM, _raise_timeout)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        space = dict(_prelude())
        exec(compile(source, "<mutant>", "exec"), space)
        for arguments in calls:
            yield getattr(space["Solution"](), entry_point)(*copy.deepcopy(arguments))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@cache
def _prelude() -> dict:
    space: dict = {}
    exec(compile(PRELUDE, "<prelude>", "exec"), space)
    return space


def _raise_timeout(*_: object) -> None:
    raise Timeout
