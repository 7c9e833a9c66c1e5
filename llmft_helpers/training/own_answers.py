"""A model's own answers that pass their tests, as training rows: rejection-sampling fine-tuning (Yuan et al. 2023,
arXiv 2308.01825) and STaR (Zelikman et al. 2022, arXiv 2203.14465).
"""

import ast
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from ..data.prompts import LeetcodeTask
from ..grading.execution import grade
from ..models.generation import generate
from ..models.sampling import Sampling
from ..profiles import TaskSettings
from ..scoring.answers import extract_code
from ..scoring.metrics import pass_at_k_scores
from ..storage import fingerprint, write_jsonl

DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
KEEP = ("passed", "verdict", "tests_passed", "tests_total", "detail")


def sample_answers(
    model, tokenizer, rows: list[dict], sampling: Sampling, settings: TaskSettings, path: Path, key: str
) -> list[list[dict]]:
    """`sampling.answers` graded answers to each problem; `path` keeps them, a JSON line an answer.

    Each batch of problems is written when it is graded: a run that was killed goes on behind the last one. `key` says
    which model is asked; lines of another model, of other settings, or torn ones are left out.
    """
    task = LeetcodeTask()
    key = fingerprint([key, asdict(sampling), settings.max_new_tokens])
    runs = [fingerprint([key, task.prompt(row), row.get("tests") or row.get("test")]) for row in rows]
    found = _whole_problems(path, set(runs), sampling.answers)
    write_jsonl(path, [line for lines in found.values() for line in lines])
    missing = [(run, row) for run, row in zip(runs, rows, strict=True) if run not in found]
    if found:
        print(f"{len(rows) - len(missing)} of {len(rows)} problems were answered by a run before this one")
    size = max(1, settings.evaluation_batch_size // sampling.answers)
    with path.open("a", encoding="utf-8") as file, tqdm(total=len(missing), desc="problems", file=sys.stdout) as bar:
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            answers = answer_and_grade(model, tokenizer, [row for _, row in part], sampling, settings)
            for (run, row), some in zip(part, answers, strict=True):
                found[run] = [{"run": run, "task_id": row["task_id"], "answer": n} | one for n, one in enumerate(some)]
                file.writelines(json.dumps(line) + "\n" for line in found[run])
            file.flush()
            bar.update(len(part))
    return [found[run] for run in runs]


def _whole_problems(path: Path, runs: set[str], answers: int) -> dict[str, list[dict]]:
    """Run -> its lines, of those `runs` that have all their answers in the file; a line without an end is none."""
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]
    found: dict[str, list[dict]] = {}
    for line in lines:
        found.setdefault(line["run"], []).append(line)
    return {run: some for run, some in found.items() if run in runs and len(some) == answers}


def answer_and_grade(
    model, tokenizer, rows: list[dict], sampling: Sampling, settings: TaskSettings
) -> list[list[dict]]:
    """`{"text", "tokens", "ended", "code", "passed", "verdict", ...}` of each answer to each problem."""
    task, count = LeetcodeTask(), sampling.answers
    prompts = [task.prompt(row) for row in rows]
    batch_size = settings.evaluation_batch_size
    drawn = generate(
        model, tokenizer, prompts, settings.max_new_tokens, task.stop, batch_size, sampling=sampling
    )  # fmt: skip
    asked = [row for row in rows for _ in range(count)]
    code = [extract_code(task.program(row, g.text), row["entry_point"]) for row, g in zip(asked, drawn, strict=True)]
    answers = [
        {"text": g.text, "tokens": g.tokens, "ended": g.ended, "code": c} | {name: verdict[name] for name in KEEP}
        for g, c, verdict in zip(drawn, code, grade(code, asked), strict=True)
    ]
    return [answers[start : start + count] for start in range(0, len(answers), count)]


def passing_rows(rows: list[dict], answers: Iterable[list[dict]], at_most: int) -> list[dict]:
    """The problems with an own answer that passes in the place of the reference, up to `at_most` times each, no two of
    them with the same syntax tree.

    Left out are answers that did not end by an end token, hold more than was asked for (`is_to_the_point`), or would be
    another prompt's, as a whole program is: what is trained on is learned with its end.
    """
    task, kept = LeetcodeTask(), []
    for row, some in zip(rows, answers, strict=True):
        trees: dict[str, dict] = {}
        for answer in some:
            own = row | {"completion": answer["code"]}
            whole = answer["passed"] and answer["ended"] and is_to_the_point(answer["code"], row["entry_point"])
            if whole and task.prompt(own) == task.prompt(row):
                trees.setdefault(syntax_tree(answer["code"]), own)
        kept += list(trees.values())[:at_most]
    return kept


def is_to_the_point(code: str, entry_point: str) -> bool:
    """Whether a program is what was asked for and what that uses: a base that goes on invents further methods, or
    writes the same one again."""
    tree, asked = ast.parse(code), entry_point.rpartition(".")[2]
    defined = {node.name: node for node in ast.walk(tree) if isinstance(node, DEFINITIONS)}
    used, left = set(), {"Solution", asked}
    if isinstance(defined.get(asked), ast.ClassDef):  # a class to design: its methods are what was asked for
        left |= set(_defined_in(defined[asked]))
    while left:
        name = left.pop()
        used.add(name)
        if name in defined and name != "Solution":
            left |= _named(defined[name]) - used
    twice = any(len(names) != len(set(names)) for names in map(_defined_in, ast.walk(tree)))
    unused = {name for name in defined if name not in used and not name.startswith("__")}
    return not twice and not unused and all(_belongs(node, used) for node in tree.body)


def _defined_in(node: ast.AST) -> list[str]:
    body = getattr(node, "body", [])
    return [one.name for one in body if isinstance(one, DEFINITIONS)] if isinstance(body, list) else []


def _named(tree: ast.AST) -> set[str]:
    """Names, and attributes of the object or class itself: a list's own `reverse` is no method of the answer."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own = {"self", "cls", "Solution", "Solution()"}
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return names | {node.attr for node in attributes if ast.unparse(node.value) in own}


def _belongs(node: ast.stmt, used: set[str]) -> bool:
    """Imports, definitions, and constants that are used."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id in used for target in node.targets)
    return isinstance(node, (ast.Import, ast.ImportFrom, *DEFINITIONS))


def kept_counts(own: list[dict], rows: list[dict]) -> dict[str, int]:
    """Of the rows that `passing_rows` kept: answers, problems, and how many have their reference's syntax tree, which a
    model that was tuned on it may remember instead of find."""
    references = {row["task_id"]: syntax_tree(row["completion"]) for row in rows}
    remembered = sum(syntax_tree(row["completion"]) == references[row["task_id"]] for row in own)
    return {"answers": len(own), "problems": len({row["task_id"] for row in own}), "as_reference": remembered}


def syntax_tree(code: str) -> str:
    """What two programs share that differ in layout, comments and docstrings alone."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None and len(node.body) > 1:
            del node.body[0]
    return ast.dump(tree)


def sample_scores(answers: list[list[dict]]) -> dict:
    """pass@1 and pass@k of k answers a problem, with intervals; how many problems have a solution, and how much answers
    to one problem differ: the share of them that no earlier one equals."""
    count = len(answers[0])
    passed = [sum(answer["passed"] for answer in some) for some in answers]
    scores = {"problems": len(answers), "samples": count, "passed": sum(passed)}
    scores["solved_problems"] = sum(number > 0 for number in passed)
    scores["different_rate"] = sum(len({a["code"] for a in some}) for some in answers) / (count * len(answers))
    scores["verdicts"] = dict(Counter(answer["verdict"] for some in answers for answer in some))
    for name, k in (("pass_at_1", 1), ("pass_at_k", count)):
        scores[name], scores[f"{name}_ci95"] = pass_at_k_scores(passed, count, k)
    return scores
