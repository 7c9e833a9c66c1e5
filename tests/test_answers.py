"""What is read out of answers of the kinds that small models give, written by hand."""

import textwrap
import time

import pytest

from llmft_helpers.scoring.answers import describe_code, extract_code, parses, prompt_echo

CODE = """class Solution:
    def total(self, nums: List[int]) -> int:
        return sum(nums)"""
UNTYPED = "class Solution:\n    def total(self, nums):\n        return sum(nums)"
PROMPT = (
    "# Problem\nA shop writes down what each of its customers has paid today. Return the sum of all the payments.\n\n"
    "# Starter code\nclass Solution:\n    def total(self, nums: List[int]) -> int:\n\n# Solution"
)
ROW = {
    "entry_point": "total",
    "starter_code": "class Solution:\n    def total(self, nums: List[int]) -> int:",
    "completion": CODE,
}
TRAITS = ("parses", "defines_entry_point", "type_hints", "code_only", "prompt_echo")


@pytest.mark.parametrize(
    ("answer", "code", "traits"),
    [
        pytest.param(f"\n{CODE}\n", CODE, "parses defines_entry_point type_hints code_only", id="code only"),
        pytest.param(f"```python\n{CODE}\n```", CODE, "parses defines_entry_point type_hints", id="fenced"),
        pytest.param(f"```Python3\r\n{CODE}\n```", CODE, "parses defines_entry_point type_hints", id="capital, CR"),
        pytest.param(
            f"Sure! Here is a solution:\n\n```\n{CODE}\n```\nIt sums the list.\n```python\nprint(1)\n```",
            CODE, "parses defines_entry_point type_hints", id="chat, two fences: the first counts",
        ),
        pytest.param(
            f"A solution. It imports nothing.\nfrom the list, take all:\n{UNTYPED}\n\nIt is O(n).",
            UNTYPED, "parses defines_entry_point", id="chat without fences",
        ),
        pytest.param(
            f"```python\n{CODE}\n\nprint(Solution().tot", CODE, "parses defines_entry_point type_hints",
            id="fence never closed, last statement cut off",
        ),
        pytest.param(
            f"import math\n\n{CODE}\n\n    def helper(self, x: int) -> int:\n        if x", f"import math\n\n{CODE}",
            "parses defines_entry_point type_hints", id="second method cut off",
        ),
        pytest.param(
            CODE.removesuffix("nums)"), CODE.removesuffix("nums)"), "", id="nothing whole",
        ),
        pytest.param(
            "def total(nums: List[int]) -> int:\n    return sum(nums)",
            "def total(nums: List[int]) -> int:\n    return sum(nums)",
            "parses defines_entry_point type_hints code_only", id="plain function",
        ),
        pytest.param(
            f"class Node:\n    pass\n\n{UNTYPED}", f"class Node:\n    pass\n\n{UNTYPED}",
            "parses defines_entry_point code_only", id="helper class first",
        ),
        pytest.param(
            f"{CODE}\n\n{UNTYPED}", f"{CODE}\n\n{UNTYPED}", "parses defines_entry_point code_only",
            id="two Solutions: the last one is what runs",
        ),
        pytest.param(
            f"{CODE}\n\nclass Solution:\n    def other(self):\n        return 0",
            f"{CODE}\n\nclass Solution:\n    def other(self):\n        return 0", "parses code_only",
            id="the last Solution lacks the method",
        ),
        pytest.param(
            UNTYPED.replace("total", "sumAll"), UNTYPED.replace("total", "sumAll"), "parses code_only", id="other name",
        ),
        pytest.param(
            f"A shop writes down what each of its customers has paid today.\n\n{CODE}", CODE,
            "parses defines_entry_point type_hints prompt_echo", id="restates the problem first",
        ),
        pytest.param("I am not able to solve this.", "I am not able to solve this.", "", id="prose"),
        pytest.param("", "", "", id="empty"),
    ],
)  # fmt: skip
def test_description_of_an_answer(answer, code, traits):
    assert extract_code(answer).replace("\r", "") == code
    described = describe_code(answer, PROMPT, ROW)
    assert tuple(described) == TRAITS
    assert {name for name, value in described.items() if value} == set(traits.split())


def test_without_the_type_of_its_result_an_answer_is_not_typed():
    assert not describe_code(CODE.replace(" -> int", ""), PROMPT, ROW)["type_hints"]


DESIGN = (
    "class Cache:\n    def __init__(self, size: int):\n        self.size = size\n\n    def get(self, key{}) -> int:\n"
)


@pytest.mark.parametrize(("hint", "typed"), [(": int", True), ("", False)])
def test_a_class_to_design_is_its_entry_point(hint, typed):
    described = describe_code(DESIGN.format(hint) + "        return -1", "", {"entry_point": "Cache"})
    assert described["defines_entry_point"] and described["type_hints"] == typed
    assert not describe_code("class Other:\n    pass", "", {"entry_point": "Cache"})["defines_entry_point"]


DRAFT = "class Solution:\n    def total(self, nums):\n        return 0"
DOCSTRING = (
    'class Solution:\n    def total(self, nums):\n        """Sum.\n\n        ```\n        total([1])\n        ```\n'
    '        """\n        return sum(nums)'
)
MODULE_DOCSTRING = f'"""Usage:\n\n```\ntotal([1])\n```\n"""\n{UNTYPED}'
SESSION = (
    ">>> class Solution:\n...     def total(self, nums):\n...         return sum(nums)\n...\n"
    ">>> Solution().total([1])\n1"
)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(f"```bash\npip install numpy\n```\nThen:\n```python\n{CODE}\n```", CODE, id="bash first"),
        pytest.param(f'```json\n{{"nums": [1]}}\n```\n```python\n{CODE}\n```', CODE, id="JSON first"),
        pytest.param(f"```\nInput: [1, 2]\nOutput: 3\n```\n```\n{CODE}\n```", CODE, id="example first"),
        pytest.param(f"```python\n{DRAFT}\n```\nThat is wrong.\n```python\n{CODE}\n```", CODE, id="draft first"),
        pytest.param(f"```python\n{CODE}\n```\nUse:\n```python\nprint(Solution().total([1]))\n```", CODE, id="usage"),
        pytest.param(f"```python\n{CODE}\n```\nTest:\n```python\ndef test():\n    pass\n```", CODE, id="test after it"),
        pytest.param(DOCSTRING, DOCSTRING, id="code only, a fence in its docstring"),
        pytest.param(f"So:\n```python\n{DOCSTRING}\n```\nDone.", DOCSTRING, id="a fence in the docstring"),
        pytest.param(f"So:\n```python\n{MODULE_DOCSTRING}\n```\nDone.", MODULE_DOCSTRING, id="module docstring"),
        pytest.param(f'So:\n```python title="a.py"\n{CODE}\n```', CODE, id="title"),
        pytest.param(f"So:\n``` {{.python .numberLines}}\n{CODE}\n```", CODE, id="attributes"),
        pytest.param(f"So:\n~~~python\n{CODE}\n~~~", CODE, id="tildes"),
        pytest.param(f"So:\n````python\n{MODULE_DOCSTRING}\n````", MODULE_DOCSTRING, id="four backticks"),
        pytest.param("1. So:\n   ```python\n" + textwrap.indent(CODE, "   ") + "\n   ```\n2. Done.", CODE, id="list"),
        pytest.param(textwrap.indent(CODE, "    "), CODE, id="indented"),
        pytest.param(f"The code: ```python\n{CODE}```", CODE, id="fences beside text"),
        pytest.param(f"```\n{SESSION}\n```", f"{UNTYPED}\nSolution().total([1])", id="interpreter session"),
        pytest.param(SESSION, f"{UNTYPED}\nSolution().total([1])", id="session without fence"),
        pytest.param(f"import numpy is not needed here.\n\n{CODE}\n\nThat is all.", CODE, id="prose like an import"),
        pytest.param(f"```python\n{DRAFT}\n```\nBetter:\n```python\n{CODE}\n\nprint(Sol", DRAFT, id="last cut off"),
        pytest.param(f"```python\nimport re\n```\nand then\n{CODE}", CODE, id="code outside of the fences"),
    ],
)  # fmt: skip
def test_the_program_among_other_things(answer, code):
    assert extract_code(answer, "total") == code
    assert extract_code(answer, "Solution().total") == code


def test_the_last_program_counts_where_no_entry_point_is_known():
    assert extract_code(f"```sh\nls\n```\n```python\n{CODE}\n```\n```python\nSolution().total([1])\n```") == CODE
    assert extract_code("```python\ndef f():\n    return 1\n```\n```python\ndef g():\n    return 1\n```", "f")[4] == "f"
    assert (
        extract_code("```python\nclass LRU:\n    x = 1\n```\n```python\nclass User:\n    x = 1\n```", "LRU")[6] == "L"
    )


def test_a_long_answer_is_read_quickly():
    start = time.monotonic()
    extract_code("def f(:\n    x = (\n" * 2_000)
    extract_code("```\nx = (\n" * 500)
    assert time.monotonic() - start < 5


def test_entry_point_may_be_written_as_leetcode_data_writes_it():
    assert describe_code(CODE, PROMPT, ROW | {"entry_point": "Solution().total"})["defines_entry_point"]


@pytest.mark.parametrize(
    "text", ["", "# only a comment", "x =", "  x = 1\n y = 2", "a\0b", "(" * 5000, "-" * 100_000 + "1"]
)
def test_what_is_no_program_does_not_parse(text):
    assert not parses(text)


def test_echo_is_eight_words_of_the_prompt_that_the_reference_does_not_need():
    prompt = "one two three four five six seven eight nine"
    assert prompt_echo(prompt, "So: ONE two, three four five six seven eight!")
    assert not prompt_echo(prompt, "one two three four five six seven")
    assert not prompt_echo(prompt, "one two three four five six seven 8 nine")
    assert not prompt_echo(prompt, prompt, own=prompt)
    assert prompt_echo(prompt, prompt, own="one two three four five six seven eight")
    # Repeating the starter code is what the reference does, too.
    assert not prompt_echo(PROMPT, CODE, own=ROW["starter_code"] + CODE)


def test_the_first_word_of_a_statement_after_the_signature_is_no_echo_of_it():
    """A statement begins with "Return", and so does many a body."""
    starter = "class Solution:\n    def mean(self, marks: Dict[str, int], most: int) -> float:"
    completion = "class Solution:\n    def mean(self, marks, most):\n        total = 1"
    row = {"starter_code": starter, "entry_point": "mean", "completion": completion}
    prompt = f'{starter}\n        """\n        Return the mean of the marks that are at most most.\n        """'
    body = "\n        return sum(marks) / len(marks)"
    assert not describe_code(starter + body, prompt, row)["prompt_echo"]
    echo = "\n        # Return the mean of the marks that are at most most.\n        return 1"
    assert describe_code(starter + echo, prompt, row)["prompt_echo"]
