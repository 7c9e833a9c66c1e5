"""The command line: doctor, run, train, evaluate, export, translate, solve, compare, grade.

A user's mistake prints one line and exits with 2.
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
from pathlib import Path

try:
    from .answering import solve_problems, stay_offline_if_local, trained_profile, translate_lines
    from .errors import WRITE_ERRORS, Terminated, UserError, system_errno
    from .evaluating import evaluate
    from .profiles import default_name, load_profile
    from .runs import only_run
    from .storage import read_jsonl, write_jsonl
    from .streams import discard_output, refuse_columns, refuse_overwriting
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: the package {missing.name} is not installed: in a clone of the repository, pip install -r "
        "requirements.txt, then -r requirements-nodeps.txt with --no-deps"
    )

TRAINED = "the one it was trained with; of the untuned model LLMFT_PROFILE, or by device"


def main(arguments: list[str] | None = None) -> int:
    if sys.stderr is None:  # closed: what is printed there would go to standard output, among the answers
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  as long as the process lives
    options = _parser().parse_args(arguments)
    _end_tidily_on_signals()
    try:
        status = options.action(options)
        if sys.stdout is not None:
            sys.stdout.flush()  # here its failure can still be told
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for every verb
            raise
        print(
            "error: the GPU's memory is full: nvidia-smi shows what else uses it; or lower evaluation_batch_size in a "
            "copy of the profile",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        discard_output()
        return 128 + signal.SIGPIPE
    except WRITE_ERRORS as error:
        if system_errno(error) != errno.ENOSPC:
            raise
        where = f" ({error.filename})" if getattr(error, "filename", None) else ""
        print(f"error: no space left on the disk{where}: free some, and run again", file=sys.stderr)
        discard_output()
        return 2
    except KeyboardInterrupt as error:
        print("; ".join([str(error) or "interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def _end_tidily_on_signals() -> None:
    """A request to end is an exception like Ctrl-C's: what runs below is stopped, and temporary files go."""

    def end(number: int, _) -> None:
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not under nohup
            signal.signal(number, end)


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
        sub.add_argument(
            "--profile", help=f"tiny, demo, long, coder, full, or the path of a .toml file (default: {default})"
        )

    def add_model(sub: argparse.ArgumentParser) -> None:
        which = sub.add_mutually_exclusive_group(required=True)
        which.add_argument("--adapter", type=Path, help="folder of a trained adapter")
        which.add_argument("--model", type=Path, help="folder of an exported (merged) model")
        which.add_argument("--base", action="store_true", help="the untuned model")

    add_profile(verb("doctor", doctor, "what this machine can do, and what to do about what is missing"))
    sub = verb("run", run, "execute copies of the notebooks in order and write HTML reports")
    sub.add_argument("notebooks", nargs="*", metavar="NN", help="numbers, e.g. 01 02; all without")
    add_profile(sub)

    sub = verb("train", train, "fine-tune and score without a notebook; on several GPUs under `accelerate launch`")
    sub.add_argument("task", choices=("translation", "leetcode", "leetcode-grpo"))
    add_profile(sub)

    sub = verb("evaluate", evaluate, "score a model: on its profile's test rows, or on a file of yours")
    sub.add_argument("task", nargs="?", choices=("translation", "leetcode"), help="default: what was trained")
    add_model(sub)
    sub.add_argument("--input", type=Path, help="your pairs (columns es and en) or problems; default: the test rows")
    sub.add_argument("--direction", choices=("es-en", "en-es"), help="default: what was trained, es-en if it was both")
    sub.add_argument("--shots", type=int, choices=range(11), default=0, metavar="N", help="solved rows shown first")
    sub.add_argument("--output", type=Path, help="scores.json: every score and what it was taken of")
    sub.add_argument("--predictions", type=Path, help="predictions.jsonl: every question, reference and answer")
    add_profile(sub, TRAINED)

    sub = verb("export", export, "merge an adapter into its base: one model for any tool")
    sub.add_argument("--adapter", type=Path, required=True, help="folder of a trained adapter")
    formats = "merged (default): for transformers; gguf: for Ollama, LM Studio and llama.cpp"
    sub.add_argument("--format", choices=("merged", "gguf", "merged_4bit"), default="merged", help=formats)
    sub.add_argument("--output", type=Path, required=True, help="a new folder")
    add_profile(sub, TRAINED)

    sub = verb("translate", translate_lines, "a line in, a line out")
    add_model(sub)
    sub.add_argument("--input", type=Path, help="default: standard input")
    sub.add_argument("--output", type=Path, help="default: standard output")
    sub.add_argument("--direction", choices=("es-en", "en-es"), help="default: what was trained, es-en if it was both")
    add_profile(sub, TRAINED)

    sub = verb("solve", solve_problems, "answer programming problems")
    add_model(sub)
    sub.add_argument("--input", type=Path, required=True, help="problems.jsonl")
    sub.add_argument("--output", type=Path, required=True, help="solutions.jsonl")
    add_profile(sub, TRAINED)

    sub = verb("compare", compare, "answer line by line with base, few-shot base and tuned, next to each other")
    sub.add_argument("--adapter", type=Path, required=True, help="folder of a trained adapter")
    sub.add_argument("--input", type=Path, help="sentences, or problems.jsonl (default: standard input, or typed)")
    sub.add_argument("--direction", choices=("es-en", "en-es"), help="default: what was trained, es-en if it was both")
    sub.set_defaults(model=None)
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
    from .reports.notebooks import find_notebooks, run_notebooks

    choice = options.profile or default_name()
    if choice.endswith(".toml"):
        choice = str(Path(choice).resolve())
    profile = load_profile(choice)
    paths = find_notebooks(options.notebooks)
    print(f"profile {profile.name}: {profile.description}", file=sys.stderr)
    with only_run(profile):
        return 0 if run_notebooks(paths, profile, choice) else 2


def train(options: argparse.Namespace) -> int:
    profile = load_profile(options.profile)
    stay_offline_if_local(profile)  # read once, when the hub's library is imported
    import unsloth  # noqa: F401  it asks to be imported before transformers

    from .processes import is_main, start_processes
    from .training.grpo import train_grpo
    from .training.tasks import train_task

    start_processes()
    alone = only_run(profile) if is_main() else contextlib.nullcontext()
    with alone, contextlib.redirect_stdout(sys.stdout if is_main() else open(os.devnull, "w")):
        grpo = options.task == "leetcode-grpo"
        folder = train_grpo(profile) if grpo else train_task(profile, options.task)
        print(f"adapter and results: {folder}")
    return 0


def export(options: argparse.Namespace) -> int:
    from .models.exporting import export as write_export

    profile = trained_profile(options)
    stay_offline_if_local(profile)
    write_export(profile, options.adapter, options.output, options.format)
    print(f"{options.format} model: {options.output}")
    if options.format == "gguf":
        print(f"for Ollama: ollama create NAME -f {options.output}/Modelfile")
    return 0


def compare(options: argparse.Namespace) -> int:
    stay_offline_if_local(trained_profile(options))  # read once, when the hub's library is imported
    with contextlib.redirect_stdout(sys.stderr):  # its greeting is no answer
        import unsloth  # noqa: F401  it asks to be imported before transformers

    from .playground.terminal import compare_lines

    return compare_lines(options)


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

    refuse_overwriting(options.output, options.input, options.problems)
    solutions = read_jsonl(options.input)
    refuse_columns(options.input, solutions, "solution")
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
