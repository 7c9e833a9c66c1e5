"""What is read out of answers of the kinds that small models give, written by hand."""

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
