"""The verb `evaluate`: the named model's scores on test rows, by the code that scores it in the notebooks."""

import contextlib
import sys
from argparse import Namespace

from .answering import direction, load, stay_offline_if_local, task_named, trained_profile
from .errors import UserError
from .profiles import Profile
from .runs import Stages, from_root, provenance
from .storage import fingerprint, write_json, write_jsonl
from .streams import refuse_closed_output, refuse_overwriting


def evaluate(options: Namespace) -> int:
    """Prints the scores; with --output and --predictions it writes all of them, and the answers."""
    _refuse_files(options)
    name, stages = task_named(options), Stages()
    profile = trained_profile(options)
    stay_offline_if_local(profile)
    with stages("data"):
        task, rows, shots = _questions(options, profile, name)
    with contextlib.redirect_stdout(sys.stderr):  # greetings and progress are no results
        import unsloth  # noqa: F401  it asks to be imported before transformers, which scoring imports

        from .scoring.evaluation import evaluate_task

        rows, left_out = _sound(rows, name)
        with stages("load model"):
            profile, model, tokenizer = load(options)
        with stages("evaluate"):
            metrics, answers = evaluate_task(model, tokenizer, task, rows, getattr(profile, name), shots, name)
    about = {"task": name, "model": _model_name(options), "rows": len(rows), "rows_of": _origin(options, profile)}
    asked = {"direction": f"{task.source}-{task.target}"} if name == "translation" else {"isolation": _isolation()}
    print(_table(about, metrics))
    if options.predictions:
        write_jsonl(options.predictions, _predictions(task, rows, answers))
    if options.output:
        about |= asked | {"left_out": left_out, "shots": options.shots, "metrics": metrics}
        write_json(options.output, about | {"provenance": provenance(profile, stages, {"test": fingerprint(rows)})})
    return 0


def _refuse_files(options: Namespace) -> None:
    refuse_closed_output(options.output)
    refuse_overwriting(options.output, options.input)
    refuse_overwriting(options.predictions, options.input, option="--predictions")
    if options.output and options.output == options.predictions:
        raise UserError(f"--output and --predictions are both {options.output}: name two files")


def _questions(options: Namespace, profile: Profile, name: str) -> tuple:
    """(task, rows to score, training rows to show before each)."""
    from .data.corpora import load_pairs, load_problems
    from .data.own_file import read_own_rows
    from .data.prompts import LeetcodeTask, TranslationTask, few_shot_rows

    task = TranslationTask(direction(options)) if name == "translation" else LeetcodeTask()
    if name == "leetcode" and options.direction:
        raise UserError("--direction is of translations: leave it out")
    read = load_pairs if name == "translation" else load_problems
    own = read_own_rows(options.input, name) if options.input else None
    corpus = read(profile) if own is None or options.shots else None
    shots = few_shot_rows(task, corpus.train, options.shots) if options.shots else []
    return task, own or corpus.test, shots


def _sound(rows: list[dict], name: str) -> tuple[list[dict], list[str]]:
    """(rows that can be scored, task_ids of problems whose own reference fails their tests, each told)."""
    from .scoring.evaluation import drop_broken_problems

    if name == "translation":
        return rows, []
    print(f"isolation: {_isolation()}", file=sys.stderr)
    rows, broken = drop_broken_problems(rows)
    for one in broken:
        print(f"left out: {one['task_id']}: its reference fails its tests ({one['detail']})", file=sys.stderr)
    return rows, [one["task_id"] for one in broken]


def _isolation() -> str:
    from .grading.execution import isolation_level

    return isolation_level()


def _model_name(options: Namespace) -> str:
    named = {"adapter": options.adapter, "merged model": options.model}
    return next((f"{kind} {from_root(str(path))}" for kind, path in named.items() if path), "the untuned base")


def _origin(options: Namespace, profile: Profile) -> str:
    return from_root(str(options.input)) if options.input else f"the test rows of profile {profile.name}"


def _table(about: dict, metrics: dict) -> str:
    """What people look at first; 95% intervals in brackets."""
    from .reports.tables import with_interval

    if about["task"] == "translation":
        lines = {"BLEU": with_interval(metrics, "bleu"), "chrF": f"{metrics['chrf']:.1f}"}
    else:
        shares = {"solved": "pass_at_1", "tests passed": "tests_passed_rate", "parses": "parses_rate"}
        lines = {title: with_interval(metrics, key) for title, key in shares.items()}
    lines["perplexity"] = f"{metrics['perplexity']:.2f}"
    head = f"{about['task']}: {about['model']}, {about['rows']} rows ({about['rows_of']})"
    return "\n".join([head, *(f"  {title:<12} {value}" for title, value in lines.items())])


def _predictions(task, rows: list[dict], answers: list[dict]) -> list[dict]:
    """A record a row: prompt, question, reference, and what is true of the answer `text`."""
    from .scoring.evaluation import merge_predictions

    known = merge_predictions(rows, {})
    return [{"prompt": task.prompt(row)} | one | answer for row, one, answer in zip(rows, known, answers, strict=True)]
