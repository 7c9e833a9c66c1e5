"""The command line: doctor, run, train, export, translate, solve, grade.

A user's mistake prints one line and exits with 2.
"""

import argparse
import contextlib
import errno
import os
import sys
from pathlib import Path

from .answering import direction, load, refuse_other_task, stay_offline_if_local, trained_profile
from .errors import WRITE_ERRORS, UserError, reason, system_errno
from .profiles import default_name, load_profile
from .runs import read_jsonl, write_jsonl, write_text

TRAINED = "the one it was trained with; of the untuned model LLMFT_PROFILE, or by device"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.action(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except WRITE_ERRORS as error:
        if system_errno(error) != errno.ENOSPC:
            raise
        where = f" ({error.filename})" if getattr(error, "filename", None) else ""
        print(f"error: no space left on the disk{where}: free some, and run again", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmft", description="Fine-tune small language models and measure what it buys."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, action, help_text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(action=action)
        return sub

    def add_profile(sub: argparse.ArgumentParser, default: str = "LLMFT_PROFILE, or by device") -> None:
        sub.add_argument("--profile", help=f"tiny, demo, long, full, or the path of a .toml file (default: {default})")

    add_profile(verb("doctor", doctor, "what this machine can do, and what to do about what is missing"))
    sub = verb("run", run, "execute copies of the notebooks in order and write HTML reports")
    sub.add_argument("notebooks", nargs="*", metavar="NN", help="numbers, e.g. 01 02; all without")
    add_profile(sub)

    sub = verb("train", train, "fine-tune and score without a notebook; on several GPUs under `accelerate launch`")
    sub.add_argument("task", choices=("translation", "leetcode"))
    add_profile(sub)

    sub = verb("export", export, "merge an adapter into its base: one model for any tool")
    sub.add_argument("--adapter", type=Path, required=True, help="folder of a trained adapter")
    sub.add_argument("--format", choices=("merged", "gguf", "merged_4bit"), default="merged")
    sub.add_argument("--output", type=Path, required=True, help="a new folder")
    add_profile(sub, TRAINED)

    sub = verb("translate", translate, "a line in, a line out")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--adapter", type=Path, help="folder of a trained adapter")
    which.add_argument("--model", type=Path, help="folder of an exported (merged) model")
    which.add_argument("--base", action="store_true", help="the untuned model")
    sub.add_argument("--input", type=Path, help="default: standard input")
    sub.add_argument("--output", type=Path, help="default: standard output")
    sub.add_argument("--direction", choices=("es-en", "en-es"), help="default: what was trained, es-en if it was both")
    add_profile(sub, TRAINED)

    sub = verb("solve", solve, "answer programming problems")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--adapter", type=Path, help="folder of a trained adapter")
    which.add_argument("--model", type=Path, help="folder of an exported (merged) model")
    which.add_argument("--base", action="store_true", help="the untuned model")
    sub.add_argument("--input", type=Path, required=True, help="problems.jsonl")
    sub.add_argument("--output", type=Path, required=True, help="solutions.jsonl")
    add_profile(sub, TRAINED)

    sub = verb("grade", grade, "run solutions against their problems' tests, isolated")
    sub.add_argument("--input", type=Path, required=True, help="solutions.jsonl")
    sub.add_argument("--problems", type=Path, required=True, help="problems.jsonl")
    sub.add_argument("--output", type=Path, help="graded.jsonl")
    return parser


def doctor(options: argparse.Namespace) -> int:
    from .doctor.machine import examine

    for finding in examine(options.profile):
        print(f"{'!' if finding.advice else ' '} {finding.name:<20} {finding.value}")
        if finding.advice:
            print(f"  {'':<20} -> {finding.advice}")
    return 0


def run(options: argparse.Namespace) -> int:
    from .reports.notebooks import find_notebooks, run_notebook

    choice = options.profile or default_name()
    if choice.endswith(".toml"):
        choice = str(Path(choice).resolve())
    profile = load_profile(choice)
    paths = find_notebooks(options.notebooks)
    print(f"profile {profile.name}: {profile.description}", file=sys.stderr)
    for path in paths:
        print(run_notebook(path, profile, choice))
    return 0


def train(options: argparse.Namespace) -> int:
    import unsloth  # noqa: F401  it asks to be imported before transformers

    from .processes import is_main, start_processes
    from .training.tasks import train_task

    profile = load_profile(options.profile)
    stay_offline_if_local(profile)
    start_processes()
    with contextlib.redirect_stdout(sys.stdout if is_main() else open(os.devnull, "w")):
        folder = train_task(profile, options.task)
        print(f"adapter and results: {folder}")
    return 0


def export(options: argparse.Namespace) -> int:
    from .models.exporting import export_merged, refuse

    refuse(options.format, options.output)
    profile = trained_profile(options)
    stay_offline_if_local(profile)
    export_merged(profile, options.adapter, options.output)
    print(f"merged model: {options.output}")
    return 0


def translate(options: argparse.Namespace) -> int:
    from .data.prompts import TranslationTask
    from .models.generation import generate

    text = _read(options.input)
    lines = text.removesuffix("\n").split("\n") if text else []
    _refuse_overwriting(options)
    refuse_other_task(options, "translation")
    task = TranslationTask(direction(options))  # before minutes of loading
    profile, model, tokenizer = load(options)
    asked = [line.strip() for line in lines if line.strip()]
    prompts = [task.prompt({task.source: line}) for line in asked]
    settings = profile.translation
    generated = generate(model, tokenizer, prompts, settings.max_new_tokens, task.stop, settings.evaluation_batch_size)
    answers = iter(task.answer(one.text) for one in generated)
    written = "".join((next(answers) if line.strip() else "") + "\n" for line in lines)
    if options.output:
        write_text(options.output, written)
    else:
        sys.stdout.write(written)
    return 0


def _read(path: Path | None) -> str:
    """A file's text, or that of standard input."""
    try:
        return path.read_text(encoding="utf-8") if path else sys.stdin.read()
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except UnicodeDecodeError as error:
        name = path or "standard input"
        raise UserError(f"{name}: not UTF-8 (byte {error.start}); convert it, e.g. iconv -f latin1 -t utf-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}): name a file that you may read") from error


def _refuse_overwriting(options: argparse.Namespace) -> None:
    """UserError if the answers would replace the questions."""
    if options.input and options.output and options.output.resolve() == options.input.resolve():
        raise UserError(f"--output {options.output} is the input: name another file")


def _column(path: Path, rows: list[dict], *names: str) -> None:
    for number, row in enumerate(rows, 1):
        for name in names:
            if name not in row:
                raise UserError(f"{path}: row {number} has no {name!r} (it has: {', '.join(row)})")
            if not isinstance(row[name], str):
                raise UserError(f"{path}: row {number}: {name!r} must be text, it is {type(row[name]).__name__}")


def solve(options: argparse.Namespace) -> int:
    from .data.prompts import LeetcodeTask
    from .models.generation import generate
    from .scoring.answers import extract_code

    _refuse_overwriting(options)
    problems = read_jsonl(options.input)
    _column(options.input, problems, "task_id", "problem_description", "starter_code")
    refuse_other_task(options, "leetcode")
    profile, model, tokenizer = load(options)
    task, settings = LeetcodeTask(), profile.leetcode
    prompts = [task.prompt(problem) for problem in problems]
    generated = generate(model, tokenizer, prompts, settings.max_new_tokens, task.stop, settings.evaluation_batch_size)
    write_jsonl(
        options.output,
        [
            {"task_id": p["task_id"], "solution": extract_code(task.program(p, one.text), p.get("entry_point"))}
            for p, one in zip(problems, generated, strict=True)
        ],
    )
    return 0


def _task_id(path: Path, number: int, row: dict) -> str:
    """As text: pandas makes 7 or 7.0 of "7"."""
    value = row.get("task_id")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        raise UserError(f"{path}: row {number} has no 'task_id' (it has: {', '.join(row)})")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _by_task(path: Path, rows: list[dict]) -> dict[str, dict]:
    """Problems by task_id; rows without one are no problems, and a row may stand there twice if it says the same."""
    found: dict[str, tuple[int, dict]] = {}
    for number, row in enumerate(rows, 1):
        if row.get("task_id") is not None:
            task = _task_id(path, number, row)
            first, other = found.setdefault(task, (number, row))
            if other != row:
                raise UserError(f"{path}: rows {first} and {number} are two problems with task_id {task!r}: rename one")
    return {task: row for task, (_, row) in found.items()}


def grade(options: argparse.Namespace) -> int:
    from .grading.execution import grade as run_tests
    from .grading.execution import isolation_level

    _refuse_overwriting(options)
    solutions = read_jsonl(options.input)
    _column(options.input, solutions, "solution")
    problems = _by_task(options.problems, read_jsonl(options.problems))
    tasks = [_task_id(options.input, number, row) for number, row in enumerate(solutions, 1)]
    unknown = [task for task in tasks if task not in problems]
    if unknown:
        raise UserError(
            f"{options.input}: task_id {unknown[0]!r} is not in {options.problems} ({len(unknown)} such rows)"
        )
    print(f"isolation: {isolation_level()}", file=sys.stderr)
    graded = run_tests([row["solution"] for row in solutions], [problems[task] for task in tasks])
    keys = ("task_id", "passed", "verdict", "tests_passed", "tests_total", "detail")
    if options.output:
        write_jsonl(options.output, [{key: row[key] for key in keys} for row in graded])
    passed, tests = sum(row["passed"] for row in graded), sum(row["tests_total"] for row in graded)
    print(f"{passed} of {len(graded)} solutions pass; {sum(row['tests_passed'] for row in graded)} of {tests} tests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
