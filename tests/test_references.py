"""References that a model must not learn from, each named with its reason."""

from llmft_helpers.grading import reference_faults

GOOD = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
ROW = {"task_id": "t", "entry_point": "add", "tests": [{"args": [1, 2], "expected": 3}], "completion": GOOD}
HUMANEVAL = {
    "task_id": "h",
    "prompt": 'import math\n\n\ndef half(x: int) -> int:\n    """Half."""\n',
    "entry_point": "half",
    "completion": "    return math.floor(x / 2)\n",
    "test": "def check(candidate):\n    assert candidate(5) == 2\n",
}


def test_faults_by_row_and_kind():
    rows = [
        ROW,
        ROW | {"completion": GOOD + "    x = ("},
        ROW | {"completion": f"```python\n{GOOD}```\n"},
        ROW | {"completion": GOOD.replace("+", "-")},
        ROW | {"completion": GOOD.replace("a + b", "a + c")},
        ROW | {"tests": [{"args": 1, "expected": 3}]},
        HUMANEVAL,
        HUMANEVAL | {"completion": HUMANEVAL["completion"].strip()},
        HUMANEVAL | {"completion": HUMANEVAL["prompt"] + HUMANEVAL["completion"]},
    ]
    faults = reference_faults(rows, workers=2)
    assert {i: fault.kind for i, fault in faults.items()} == {
        1: "does not parse",
        2: "is wrapped in Markdown",
        3: "fails its own tests",
        4: "fails its own tests",
        5: "has tests that cannot be read",
        7: "does not parse",  # its indentation is lost
    }
    assert faults[1].detail == "line 4: '(' was never closed"
    assert faults[3].detail == "wrong: expected 3, got -1"
    assert faults[4].detail.startswith("error: NameError: name 'c' is not defined")


def test_no_rows_have_no_faults():
    assert reference_faults([]) == {}
