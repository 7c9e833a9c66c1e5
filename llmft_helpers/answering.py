"""Answers from the model that a command line names (the untuned one, an adapter, or a merged model) with the profile
that goes with it.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace

from .errors import UserError
from .profiles import Profile, TaskSettings, is_local, load_profile
from .storage import read_jsonl, write_jsonl
from .streams import read_text, refuse_closed_output, refuse_columns, refuse_overwriting, split_lines, write_answers

LONGEST = 4096  # tokens of a prompt: its attention takes 2 GB in SmolLM2, and four times that at twice the length


def translate_lines(options: Namespace) -> int:
    """A line out for every line in. Status 2 if a line was too long; the others are answered."""
    from .data.cleaning import tidy
    from .data.prompts import TranslationTask

    refuse_closed_output(options.output)
    lines = [tidy(line) for line in split_lines(read_text(options.input))]
    refuse_overwriting(options.output, options.input)
    refuse_other_task(options, "translation")
    task = TranslationTask(direction(options))  # before minutes of loading
    profile, model, tokenizer = load(options)
    prompts = {f"line {n}": task.prompt({task.source: line}) for n, line in enumerate(lines, 1) if line}
    texts = _generate(model, tokenizer, prompts, task.stop, profile.translation)
    written = (task.answer(texts.get(f"line {n}", "")) + "\n" for n in range(1, len(lines) + 1))
    write_answers(options.output, "".join(written))
    return 0 if len(texts) == len(prompts) else 2


def solve_problems(options: Namespace) -> int:
    """A solution for every problem, an empty one and status 2 where the problem is too long."""
    from .data.prompts import LeetcodeTask
    from .scoring.answers import extract_code

    refuse_overwriting(options.output, options.input)
    problems = read_jsonl(options.input)
    refuse_columns(options.input, problems, "task_id", "problem_description", "starter_code")
    refuse_other_task(options, "leetcode")
    task = LeetcodeTask()
    profile, model, tokenizer = load(options)
    prompts = {f"row {n}": task.prompt(problem) for n, problem in enumerate(problems, 1)}
    texts = _generate(model, tokenizer, prompts, task.stop, profile.leetcode)
    rows = []
    for name, problem in zip(prompts, problems, strict=True):
        solution = extract_code(task.program(problem, texts[name]), problem.get("entry_point")) if name in texts else ""
        rows.append({"task_id": problem["task_id"], "solution": solution})
    write_jsonl(options.output, rows)
    return 0 if len(texts) == len(prompts) else 2


def _generate(
    model, tokenizer, prompts: dict[str, str], stop: tuple[str, ...], settings: TaskSettings
) -> dict[str, str]:
    """Texts by the prompts' names; a prompt that leaves no room for one is told on standard error and left out."""
    from .models.generation import generate

    if not prompts:
        return {}
    lengths = dict(zip(prompts, map(len, tokenizer(list(prompts.values())).input_ids), strict=True))
    fault = {name: too_long(model, length, settings) for name, length in lengths.items()}
    for name in filter(fault.get, fault):
        print(f"error: {name}: {fault[name]} (not answered)", file=sys.stderr)
    texts = {}
    for names in _batches({n: length for n, length in lengths.items() if not fault[n]}, settings):
        batch = [prompts[name] for name in names]
        generated = generate(model, tokenizer, batch, settings.max_new_tokens, stop, len(batch))
        texts |= {name: one.text for name, one in zip(names, generated, strict=True)}
    return texts


def too_long(model, length: int, settings: TaskSettings) -> str | None:
    """What is wrong with a prompt of that many tokens; None if it leaves room for an answer."""
    room = min(LONGEST, model.config.max_position_embeddings) - settings.max_new_tokens
    return f"{length:,} tokens, {room:,} fit: shorten it" if length > room else None


def _batches(lengths: dict[str, int], settings: TaskSettings) -> Iterator[list[str]]:
    """Names, longest first (memory fails early), in batches of no more attention than one prompt of LONGEST has."""
    order = sorted(lengths, key=lambda name: -lengths[name])
    while order:
        rows = min(settings.evaluation_batch_size, max(1, (LONGEST // lengths[order[0]]) ** 2))
        yield order[:rows]
        order = order[rows:]


def _note(options: Namespace) -> dict:
    """What the adapter or merged model says of its training; {} for the untuned model."""
    from .models.exporting import read_merged_note
    from .models.loading import read_adapter_note

    if getattr(options, "model", None) is not None:
        return read_merged_note(options.model)
    return read_adapter_note(options.adapter) if options.adapter is not None else {}


def trained_task(options: Namespace) -> str:
    """The task that adapter or merged model was trained for."""
    return _note(options).get("task", "translation")


def refuse_other_task(options: Namespace, task: str) -> None:
    """UserError if adapter or merged model was trained for another task than `task`."""
    trained = _note(options).get("task", task)
    if trained != task:
        raise UserError(f"{options.adapter or options.model} was trained for the task {trained}, not {task}")


def task_named(options: Namespace) -> str:
    """The task on the command line, else the one that was trained; UserError if they differ, or neither says it."""
    if options.task:
        refuse_other_task(options, options.task)
    task = options.task or _note(options).get("task")
    if not task:
        raise UserError("the untuned base has no task of its own: evaluate translation --base, or leetcode")
    return task


def trained_profile(options: Namespace) -> Profile:
    """The chosen profile, or the one that adapter or merged model was trained with."""
    from .models.notes import noted_profile

    note = {} if options.profile else _note(options)
    return noted_profile(note, options.adapter or options.model) if note else load_profile(options.profile)


def _profile_for(options: Namespace) -> Profile:
    """The profile to answer with; a merged model takes its model's place."""
    profile = trained_profile(options)
    if options.model is None:
        return profile
    merged = replace(profile.model, name=str(options.model), load_in_4bit=False, revision=None)
    return replace(profile, model=merged)


def stay_offline_if_local(profile: Profile) -> None:
    """Hub look-ups that cannot find anything cost seconds each."""
    if is_local(profile):
        os.environ["HF_HUB_OFFLINE"] = "1"


def load(options: Namespace):
    """(profile, model, tokenizer) to answer with; what libraries print goes to standard error."""
    from .models.loading import load_for_inference

    profile = _profile_for(options)
    stay_offline_if_local(profile)
    # Libraries greet on standard output, which belongs to the answers.
    saved, sys.stdout = sys.stdout, sys.stderr
    try:
        return profile, *load_for_inference(profile, options.adapter)
    finally:
        sys.stdout = saved


def direction(options: Namespace) -> str:
    """The direction asked for, else the one trained or the profile's; UserError if it was not trained."""
    trained = _note(options).get("direction")
    if trained and options.direction and trained not in (options.direction, "both"):
        raise UserError(
            f"{options.adapter or options.model} was trained {trained}, not {options.direction}: "
            f'leave --direction out, or train one with direction = "both"'
        )
    return options.direction or trained or load_profile(options.profile).translation.direction
