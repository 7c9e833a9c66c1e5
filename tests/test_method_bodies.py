"""Unfinished code and its rest: every shipped reference comes apart and goes together again."""

import ast
import textwrap

import pytest

from llmft_helpers.data import method_bodies
from llmft_helpers.data.prompts import LeetcodeTask
from llmft_helpers.grading import grade
from llmft_helpers.runs import ROOT
from llmft_helpers.storage import read_jsonl

STARTER = "class Solution:\n    def total(self, nums: List[int]) -> int:"
PROBLEMS = [row for path in sorted((ROOT / "data" / "leetcode").glob("*.jsonl")) for row in read_jsonl(path)]


def solution(text):
    return textwrap.dedent(text).strip("\n")


def test_every_shipped_reference_is_a_body_under_its_starter():
    task = LeetcodeTask()
    together = [task.program(row, task.completion(row)) for row in PROBLEMS]
    assert [row["task_id"] for row in PROBLEMS if not task.prompt(row).startswith(row["starter_code"].strip())] == []
    sample = slice(0, None, 40)
    assert all(one["passed"] for one in grade(together[sample], PROBLEMS[sample])) and len(PROBLEMS) > 500


@pytest.mark.parametrize(
    ("completion", "wanted"),
    [("""
      class Solution:
          def total(self, nums: list) -> int:  # typed otherwise
              # a comment first
              @cache
              def part(i):
                  return nums[i]
              return part(0)
      """, "        # a comment first\n        @cache\n        def part(i):\n            return nums[i]\n"
           "        return part(0)"),
     ("""
      class Solution:
          def total(self, nums):
              \"\"\"Says what it does.\"\"\"
              return self.add(nums)

          def add(self, nums):
              return sum(nums)
      """, "        return self.add(nums)\n\n    def add(self, nums):\n        return sum(nums)"),
     ("""
      import math


      class Solution:
        def total(self, nums):
          return math.fsum(nums)
      """, "        return math.fsum(nums)\n\n\nimport math")],
    ids=["comment, decorator", "docstring, second method", "import, two spaces"],
)  # fmt: skip
def test_a_body_takes_its_comments_and_what_it_needs_along(completion, wanted):
    assert method_bodies.body(STARTER, solution(completion), "Solution().total") == wanted


@pytest.mark.parametrize(
    "completion",
    ["class Solution:\n    def total(self, numbers):\n        return sum(numbers)",
     "class Solution:\n    def total(self, nums): return sum(nums)",
     "class Solution:\n    def other(self, nums):\n        return 1", "def total(nums):\n    return (", "lambda: 1"],
)  # fmt: skip
def test_a_solution_of_another_shape_has_no_body_here(completion):
    assert method_bodies.body(STARTER, completion, "total") is None


@pytest.mark.parametrize(
    ("starter", "indent"),
    [(STARTER, 8), ("def total(nums):", 4),
     ("# class Node:\nclass Solution:\n    def f(\n        self,\n    ) -> int:", 8),
     ("class Bag:\n    def add(self):\n    def get(self):", None), ("def total(nums)", None), ("x = 1:", None)],
)  # fmt: skip
def test_starters_with_one_open_method(starter, indent):
    head = method_bodies.signature(starter)
    assert head == (None if indent is None else (starter, " " * indent))


@pytest.mark.parametrize("statement", ['Say """hi""".', "A backslash \\N{x} and \\x.", "Two\n\nparagraphs, año."])
def test_any_statement_makes_a_docstring_that_parses(statement):
    tree = ast.parse(f"def f():\n{method_bodies.docstring(statement, '    ')}")
    assert ast.get_docstring(tree.body[0]) == statement.replace('"""', "'''")
