"""Rows of problems in the shapes that people bring, read into one."""

import ast
import contextlib
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UserError
from .comparison import COMPARE
from .signatures import NODES, classes, first_parameter, functions, own_code, typed, typed_arguments


@dataclass(frozen=True)
class Problem:
    """A row of any of the shapes, taken apart."""

    task_id: str
    entry: str  # "Solution.twoSum" (a class is demanded), "twoSum", or a class whose methods are called
    setup: str  # source that both the solution and the tests see
    prelude: bool  # LeetCode's imports are provided
    cases: tuple[dict, ...] = ()  # {"args", "expected"}, encoded
    compare: str = "exact"
    in_place: bool = False  # the first argument is the answer
    calls: bool = False  # a case is a list of calls on one object
    check: str = ""  # source with every test in its own `with __test__(number):`
    labels: tuple[str, ...] = ()
    reference: str = ""

    @property
    def total(self) -> int:
        return len(self.cases) or len(self.labels)


def read_problem(row: dict) -> Problem:
    """A row of shape `tests` (ours), or `test` (LeetCodeDataset, HumanEval). UserError if it is none of them."""
    task = str(row.get("task_id", "?"))
    given = {key: value for key, value in row.items() if value is not None and value == value}  # null, NaN
    given = {key: value for key, value in given.items() if value != [] or key != "tests"}
    try:
        with _any_digits():
            if "tests" in given:
                return _of_cases(task, given)
            return _of_code(task, given, given["test"], given["entry_point"])
    except KeyError as error:
        missing = "no tests" if error.args == ("test",) else f"no {error}"
        raise UserError(f"problem {task}: cannot read its tests: {missing} in the row; add that column") from error
    except RecursionError as error:
        raise UserError(f"problem {task}: cannot read its tests: a value is nested too deep; leave it out") from error
    except (TypeError, ValueError, AttributeError, SyntaxError) as error:
        raise UserError(f"problem {task}: cannot read its tests: {error}") from error


@contextlib.contextmanager
def _any_digits() -> Iterator[None]:
    """Integers of more than 4,300 digits, for the problem's own values; a solution's come in hexadecimal."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def _of_cases(task: str, row: dict) -> Problem:
    tests = json.loads(row["tests"]) if isinstance(row["tests"], str) else row["tests"]
    if not isinstance(tests, list):
        raise ValueError(f"tests must be a list, not {type(tests).__name__}")
    if all(isinstance(test, str) for test in tests):  # MBPP's asserts
        code = "def check(candidate):\n" + textwrap.indent("\n".join(tests), "    ")
        return _of_code(task, row, code, row["entry_point"])
    compare = row.get("compare", "exact")
    if compare not in COMPARE:
        raise ValueError(f"compare is {compare!r}, none of {', '.join(COMPARE)}")
    tree = own_code(row)
    entry = _entry(row.get("entry_point"), tree)
    owner, _, name = entry.rpartition(".")
    design = None if owner or name in functions(tree.body) else classes(tree).get(name)
    method = functions(_body(tree, owner)).get(name)
    in_place = _in_place(method, tests)
    cases = tuple(_case(i, test, method, design, in_place) for i, test in enumerate(tests, 1))
    same = COMPARE[compare]
    if odd := [i for i, case in enumerate(cases, 1) if not same(case["expected"], case["expected"])]:
        raise ValueError(f"test {odd[0]}: its expected value is nested too deep to compare")
    setup = NODES if re.search(r"\b(ListNode|TreeNode)\b", ast.unparse(tree)) else ""
    calls = design is not None
    return Problem(task, entry, setup, True, cases, compare, in_place, calls, reference=reference(row))


def _in_place(method: ast.FunctionDef | None, tests: list) -> bool:
    """Whether the method is annotated `-> None`, and something is expected all the same."""
    if method is None or not (isinstance(method.returns, ast.Constant) and method.returns.value is None):
        return False
    return any(isinstance(test, dict) and test.get("expected") is not None for test in tests)


def _body(tree: ast.Module, owner: str) -> list[ast.stmt]:
    if not owner:
        return tree.body
    return classes(tree)[owner].body if owner in classes(tree) else []


def _entry(name: str | None, tree: ast.Module) -> str:
    """Where the problem's own code defines the entry point; without that code, a method of class Solution."""
    methods, plain = functions(_body(tree, "Solution")), functions(tree.body)
    if name is None:
        choice = [n for n in methods or plain or classes(tree) if not n.startswith("_")]
        if len(choice) != 1:
            raise ValueError("no 'entry_point' in the row, and starter_code does not define exactly one: name it")
        name = choice[0]
    if not isinstance(name, str):
        raise TypeError(f"entry_point must be text, not {type(name).__name__}")
    name = name.rpartition(".")[2]
    outside = name in plain or (name in classes(tree) and name != "Solution")
    return name if outside and name not in methods else f"Solution.{name}"


def _case(number: int, test: dict, method: ast.FunctionDef | None, design: ast.ClassDef | None, in_place: bool) -> dict:
    if not isinstance(test, dict) or not {"args", "expected"} <= test.keys():
        raise ValueError(f'test {number} must be {{"args": [...], "expected": ...}}')
    args, expected = test["args"], test["expected"]
    if not isinstance(args, list):
        raise ValueError(f"test {number}: args must be a list, one item a parameter, not {type(args).__name__}")
    try:
        if design:
            return _calls(args, expected, functions(design.body))
        answer = first_parameter(method) if in_place else method and method.returns
        return {"args": typed_arguments(args, method), "expected": typed(expected, answer)}
    except (TypeError, ValueError) as error:
        raise ValueError(f"test {number}: {error}") from error


def _calls(args: list, expected: object, methods: dict[str, ast.FunctionDef]) -> dict:
    """LeetCode's form for a class: names (the class first), the arguments of each, and what each returns."""
    if (
        len(args) != 2
        or not all(isinstance(a, list) for a in (*args, expected))
        or len({*map(len, args), len(expected)}) > 1
    ):
        raise ValueError("a class is tested by [names, arguments of each] and a list of what each returns, all as long")
    called = [methods.get("__init__" if i == 0 else name) for i, name in enumerate(args[0])]
    arguments = [typed_arguments(values, f) for values, f in zip(args[1], called, strict=True)]
    results = [typed(value, f and f.returns) for value, f in zip(expected, called, strict=True)]
    return {"args": [args[0], arguments], "expected": results}


def _of_code(task: str, row: dict, code: str, entry_point: str) -> Problem:
    for name, value in ("test", code), ("entry_point", entry_point), ("prompt", row.get("prompt", "")):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be text, not {type(value).__name__}")
    check, labels = split_check(code)
    entry = entry_point.replace("Solution().", "Solution.")
    prompt = row.get("prompt", "")
    # HumanEval's prompt is the solution's own beginning, and its task includes the imports
    given = bool(re.search(rf"^def {re.escape(entry)}\b", prompt, re.MULTILINE))
    return Problem(task, entry, prompt, not given, check=check, labels=labels, reference=reference(row))


def reference(row: dict) -> str:
    """The row's own solution, behind its prompt where that begins it (HumanEval); empty without one."""
    code, prompt = row.get("completion") or row.get("canonical_solution") or "", row.get("prompt") or ""
    name = str(row.get("entry_point")).rpartition(".")[2]
    begins = [re.search(rf"^[ \t]*def {re.escape(name)}\b", text, re.MULTILINE) for text in (prompt, code)]
    return prompt + code if begins[0] and not begins[1] else code


def split_check(source: str) -> tuple[str, tuple[str, ...]]:
    """The tests' source with every statement of `check` that asserts in a `with __test__(i):`, and their texts.

    `assert True` and the like are no tests and stay as they are. ValueError if nothing is tested.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    labels: list[str] = []
    for check in tree.body:
        if isinstance(check, ast.FunctionDef) and check.name == "check":
            for i, node in enumerate(check.body):
                if asserts(node):
                    test = ast.Call(ast.Name("__test__", ast.Load()), [ast.Constant(len(labels))], [])
                    check.body[i] = ast.With([ast.withitem(test)], [node])
                    labels.append(ast.unparse(node))
    if not labels:
        raise ValueError("no function check(candidate) with an assert in it")
    return ast.unparse(ast.fix_missing_locations(tree)), tuple(labels)


def asserts(node: ast.stmt) -> bool:
    return any(isinstance(n, ast.Assert) and not isinstance(n.test, ast.Constant) for n in ast.walk(node))
