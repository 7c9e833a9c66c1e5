"""Tests as a reader types them, `assert Solution().name(...) == ...`, made into a problem that can be graded."""

import ast

from ..errors import UserError
from ..grading.problems import asserts
from ..grading.signatures import classes, functions, own_code


def with_typed_test(problem: dict, typed: str) -> dict:
    """`problem` with a `test` that runs the typed lines; they see `Solution`, or the plain function, and the answer is
    called through it. UserError names the line that is no Python, or says that nothing is asserted.
    """
    owner, name = _entry_point(problem)
    try:
        lines = ast.parse(typed).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        raise UserError(f"your test{place}: {getattr(error, 'msg', error)}") from error
    called = f"{owner}().{name}" if owner else name
    if not any(map(asserts, lines)):
        raise UserError(f"your test asserts nothing: write lines such as assert {called}(...) == ...")
    stands_in = f"class {owner}:\n  {name} = staticmethod(candidate)" if owner else f"{name} = candidate"
    check = ast.parse("def check(candidate):\n pass")
    check.body[0].body = ast.parse(stands_in).body + lines
    return problem | {"test": ast.unparse(check), "entry_point": called}


def _entry_point(problem: dict) -> tuple[str, str]:
    """("Solution", method) or ("", function): the one that the starter code opens."""
    tree = own_code({"starter_code": problem["starter_code"]})
    owner = "Solution" if "Solution" in classes(tree) else ""
    names = [name for name in functions(classes(tree)[owner].body if owner else tree.body) if not name.startswith("_")]
    if len(names) != 1:
        raise UserError(
            "the starter code opens no method, or several: write class Solution: and under it, indented, "
            "def name(self, ...) -> ...:"
        )
    return owner, names[0]
