"""`grade` on the files that people have: what pandas writes, archives, odd values, and one line for every mistake."""

import gzip
import json
from pathlib import Path

import pandas
import pytest

from llmft_helpers.__main__ import main
from llmft_helpers.doctor.machine import _solution_packages
from llmft_helpers.grading import sandbox

ADD = "class Solution:\n    def add(self, a, b):\n        return a + b\n"


def lines_of(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def grade_files(folder: Path, solutions: str, problems: str) -> int:
    (folder / "s.jsonl").write_text(solutions)
    (folder / "p.jsonl").write_text(problems)
    files = ["--input", str(folder / "s.jsonl"), "--problems", str(folder / "p.jsonl")]
    return main(["grade", *files, "--output", str(folder / "graded.jsonl")])


def test_grade_reads_what_pandas_writes(tmp_path, capsys):
    tests = [{"args": [1, 2], "expected": 3}]
    check = {"prompt": None, "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}
    frame = pandas.DataFrame(
        [
            {"task_id": 1, "entry_point": "add", "tests": tests, "compare": "exact"},
            {"task_id": 2, "entry_point": "Solution().add", **check},
            {"task_id": 2, "entry_point": "Solution().add", **check},
        ]
    )
    answers = pandas.DataFrame([{"task_id": task, "solution": ADD} for task in (1.0, 2, 2)])
    for name, table in ("p", frame), ("s", answers):
        table.to_json(tmp_path / f"{name}.jsonl.gz", orient="records", lines=True)
    files = ["--input", str(tmp_path / "s.jsonl.gz"), "--problems", str(tmp_path / "p.jsonl.gz")]
    assert main(["grade", *files]) == 0
    assert "3 of 3 solutions pass; 3 of 3 tests" in capsys.readouterr().out


def test_grade_takes_unusual_values(tmp_path):
    huge = "1" + "0" * 5000
    tests = f'[{{"args": [{huge}, 1], "expected": {huge[:-1]}1}}]'
    problems = '{"task_id": "a\\ud800", "entry_point": "add", "tests": ' + tests + "}\n"
    assert grade_files(tmp_path, lines_of([{"task_id": "a\ud800", "solution": ADD}]), problems) == 0
    [graded] = [json.loads(line) for line in (tmp_path / "graded.jsonl").read_text().splitlines()]
    assert graded["passed"] and graded["task_id"] == "a\ud800"


@pytest.mark.parametrize(
    ("solutions", "problems", "message"),
    [
        (
            [{"task_id": 1, "solution": ADD}],
            [{"task_id": 1, "entry_point": "add", "tests": []}, {"task_id": "1", "entry_point": "sub", "tests": []}],
            "p.jsonl: rows 1 and 2 are two problems with task_id '1': rename one",
        ),
        ([{"solution": ADD}], [], "s.jsonl: row 1 has no 'task_id' (it has: solution)"),
        ([{"task_id": None, "solution": ADD}], [], "s.jsonl: row 1 has no 'task_id'"),
        ([{"task_id": 1, "solution": None}], [], "s.jsonl: row 1: 'solution' must be text, it is NoneType"),
        (
            [{"task_id": 1, "solution": ADD}],
            [{"task_id": 1, "entry_point": "add", "tests": [{"args": "12", "expected": 3}]}],
            "problem 1: cannot read its tests: test 1: args must be a list, one item a parameter, not str",
        ),
    ],
)
def test_grade_names_the_row_and_keeps_what_was_there(tmp_path, capsys, solutions, problems, message):
    (tmp_path / "graded.jsonl").write_text("earlier")
    assert grade_files(tmp_path, lines_of(solutions), lines_of(problems)) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "graded.jsonl").read_text() == "earlier"


def test_grade_refuses_deep_nesting_and_broken_archives_by_name(tmp_path, capsys):
    solutions = lines_of([{"task_id": 1, "solution": ADD}])
    deep = '{"task_id": 1, "entry_point": "add", "tests": [{"args": [], "expected": %s}]}\n'
    for levels in 700, 100_000:
        assert grade_files(tmp_path, solutions, deep % ("[" * levels + "]" * levels)) == 2
        assert "nested too deep" in capsys.readouterr().err
    cut = tmp_path / "p.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"task_id": 1}\n' * 1000)[:40])
    assert main(["grade", "--input", str(tmp_path / "s.jsonl"), "--problems", str(cut)]) == 2
    assert f"{cut}: broken gzip file" in capsys.readouterr().err


def test_doctor_says_which_package_of_leetcodes_is_missing(monkeypatch):
    assert _solution_packages().advice == "" and "numpy" in _solution_packages().value
    monkeypatch.setattr(sandbox, "PACKAGES", ("sortedcontainers", "nowhere"))
    assert _solution_packages().value == "the standard library, sortedcontainers"
    assert _solution_packages().advice == "LeetCode offers nowhere, too: pip install nowhere"
