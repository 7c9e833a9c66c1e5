"""Score one model on one task: the same code, rows and precision for base, few-shot base and tuned."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from tqdm import tqdm

from ..data.cleaning import language_of, normalise
from ..data.prompts import LeetcodeTask, Task, TranslationTask, few_shot_prompt
from ..errors import UserError
from ..grading.execution import grade
from ..grading.problems import reference
from ..models.generation import Generated, Timer, generate, tokens_per_second
from ..processes import spread
from ..profiles import TaskSettings
from .answers import describe_code, extract_code
from .metrics import (
    Bleu,
    bleu_p_value,
    bootstrap_ci95,
    completion_nats,
    mcnemar_p_value,
    sentence_scores,
    share_ci95,
    total,
    translation_scores,
)

TIERS = ("Warm-up", "Easy", "Medium", "Hard")
CODE_TRAITS = ("parses", "defines_entry_point", "type_hints", "code_only", "prompt_echo")


def evaluate_task(
    model,
    tokenizer,
    task: Task,
    rows: list[dict],
    settings: TaskSettings,
    shots: Sequence[dict] = (),
    label: str = "",
) -> tuple[dict, list[dict]]:
    """(metrics, one answer a row) of `model` on `rows`; `shots` are training rows shown before each question."""
    prompts = [few_shot_prompt(task, row, list(shots)) for row in rows]
    scored = [{"prompt": prompt, "completion": task.completion(row)} for prompt, row in zip(prompts, rows, strict=True)]
    batch_size = settings.evaluation_batch_size
    nats = spread(scored, lambda part: completion_nats(model, tokenizer, part, batch_size))
    with Timer() as timer, tqdm(desc=f"{label} answers", file=sys.stdout) as bar:
        generated = answer_rows(model, tokenizer, task, rows, settings, shots, bar)
    metrics = {
        "perplexity": total(nats).perplexity,
        "bits_per_byte": total(nats).bits_per_byte,
        "eos_rate": _mean([g.ended for g in generated]),
        "generated_tokens_per_second": tokens_per_second(generated, timer.seconds),
    }
    scores, answers = score_answers(task, rows, generated)
    return metrics | scores, answers


def answer_rows(
    model,
    tokenizer,
    task: Task,
    rows: list[dict],
    settings: TaskSettings,
    shots: Sequence[dict] = (),
    bar: tqdm | None = None,
) -> list[Generated]:
    """What `model` writes after each row's prompt; every process answers its share."""

    def answers_to(part: list[str]) -> list[Generated]:
        if bar is not None:
            bar.reset(len(part))
        progress = None if bar is None else _advance(bar)
        batch_size = settings.evaluation_batch_size
        return generate(model, tokenizer, part, settings.max_new_tokens, task.stop, batch_size, progress)

    return spread([few_shot_prompt(task, row, list(shots)) for row in rows], answers_to)


def score_answers(task: Task, rows: list[dict], generated: list[Generated]) -> tuple[dict, list[dict]]:
    """(scores, one answer a row) of what was written."""
    score = _score_translations if isinstance(task, TranslationTask) else _score_code
    return score(task, rows, generated)


def _advance(bar: tqdm) -> Callable[[int, int], None]:
    return lambda done, _: bar.update(done - bar.n)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _score_translations(task: TranslationTask, rows: list[dict], generated: list[Generated]) -> tuple[dict, list[dict]]:
    answers = [task.answer(g.text) for g in generated]
    references = [row[task.target] for row in rows]
    per_row = sentence_scores(answers, references)
    scores = translation_scores(answers, references)
    scores["prompt_echo_rate"] = _mean(
        [echoes(row[task.source], answer) for row, answer in zip(rows, answers, strict=True)]
    )
    scores["answer_language"] = language_shares(task, answers)
    scores["per_source"] = {}
    for source in sorted({row["source"] for row in rows}):
        chosen = [i for i, row in enumerate(rows) if row["source"] == source]
        part = translation_scores([answers[i] for i in chosen], [references[i] for i in chosen])
        scores["per_source"][source] = {
            "rows": len(chosen),
            **{k: part[k] for k in ("bleu", "bleu_ci95", "chrf")},
        }
    return scores, [{"text": text, "chrf": chrf} for text, chrf in zip(answers, per_row, strict=True)]


def language_shares(task: TranslationTask, texts: list[str]) -> dict[str, float]:
    """Shares of texts in the target language, in the source language, and in neither or too short to tell."""
    found = Counter(language_of(text) for text in texts)
    languages = {"target": task.target, "source": task.source, "other": "other"}
    return {name: found[language] / len(texts) for name, language in languages.items()}


def echoes(source: str, answer: str) -> bool:
    """Whether a translation restates its source sentence instead of translating it."""
    return normalise(source) in normalise(answer)


def _score_code(task: LeetcodeTask, rows: list[dict], generated: list[Generated]) -> tuple[dict, list[dict]]:
    raw = [task.program(row, g.text) for row, g in zip(rows, generated, strict=True)]
    code = [extract_code(answer, row["entry_point"]) for answer, row in zip(raw, rows, strict=True)]
    traits = [describe_code(answer, task.prompt(row), row) for answer, row in zip(raw, rows, strict=True)]
    graded = spread(list(zip(code, rows, strict=True)), lambda part: grade(*map(list, zip(*part, strict=True))))
    scores = {
        "bleu": code_bleu(raw, [row["completion"] for row in rows]),
        **work_scores(graded),
        **{f"{name}_rate": _mean([trait[name] for trait in traits]) for name in CODE_TRAITS},
        **{f"{name}_ci95": share_ci95([trait[name] for trait in traits]) for name in CODE_TRAITS},
        "verdicts": dict(Counter(g["verdict"] for g in graded)),
        "per_difficulty": _per_difficulty(rows, graded),
    }
    keep = ("passed", "verdict", "tests_passed", "tests_total", "detail")
    return scores, [
        {"text": text, **{k: g[k] for k in keep}, "failure": failure_class(g), **t}
        for text, g, t in zip(raw, graded, traits, strict=True)
    ]


def code_bleu(answers: list[str], references: list[str]) -> float:
    """BLEU of code against the reference: kept because the study reported it, not because it grades code."""
    return Bleu().compute(predictions=answers, references=references)["score"]


def work_scores(graded: list[dict]) -> dict:
    """Problems solved and tests passed, with 95% intervals over problems, of rows of `execution.grade`."""
    shares = [g["tests_passed"] / g["tests_total"] for g in graded]
    return {
        "pass_at_1": _mean([g["passed"] for g in graded]),
        "pass_at_1_ci95": share_ci95([g["passed"] for g in graded]),
        "tests_passed_rate": _mean(shares),
        "tests_passed_ci95": bootstrap_ci95(shares),
    }


def failure_class(graded: dict) -> str:
    """How an answer failed: wrong, timeout, memory, unsafe, the error's type or a missing method; "" if it passed."""
    if graded["passed"]:
        return ""
    if graded["verdict"] != "error":
        return graded["verdict"]
    missing = "the code defines no" in graded["detail"]
    return "method not defined" if missing else graded["detail"].split(":")[0]


def _per_difficulty(rows: list[dict], graded: list[dict]) -> dict:
    table = {}
    for level in TIERS:
        part = [g for row, g in zip(rows, graded, strict=True) if row.get("difficulty") == level]
        if part:
            table[level] = {"problems": len(part), **work_scores(part)}
    return table


def paired_translation_p_value(base: list[dict], tuned: list[dict], references: list[str], test: str = "bs") -> float:
    """p of the difference in BLEU: paired bootstrap (Koehn 2004) "bs", randomisation (Riezler 2005) "ar"."""
    return bleu_p_value([a["text"] for a in base], [a["text"] for a in tuned], references, test)


def drop_broken_problems(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """(problems whose reference passes its own tests, gradings of the others): no answer could pass those.

    UserError if no problem is left.
    """
    graded = grade([reference(row) for row in rows], rows)
    kept = [row for row, one in zip(rows, graded, strict=True) if one["passed"]]
    if not kept:
        raise UserError(f"none of the {len(rows)} test problems' references passes its tests: {graded[0]['detail']}")
    return kept, [one for one in graded if not one["passed"]]


def best_constant_share(rows: list[dict]) -> float | None:
    """Mean share of a problem's tests that the luckiest constant would pass: what a share of tests passed is worth.

    None for problems whose tests are code, where the wanted values cannot be counted.
    """
    if not all(isinstance(test, dict) for row in rows for test in row.get("tests") or [None]):
        return None
    wanted = [Counter(json.dumps(test["expected"]) for test in row["tests"]) for row in rows]
    return _mean([max(counts.values()) / counts.total() for counts in wanted])


def paired_code_p_value(base: list[dict], tuned: list[dict]) -> float:
    """McNemar's exact test over the problems that exactly one of the two arms solved."""
    return mcnemar_p_value([a["passed"] for a in base], [a["passed"] for a in tuned])


def merge_predictions(rows: list[dict], arms: dict[str, list[dict]]) -> list[dict]:
    """One record a row: what was asked, the reference and every arm's answer."""
    keys = ("id", "task_id", "source", "es", "en", "title", "difficulty", "problem_description", "starter_code",
            "entry_point", "completion")  # fmt: skip
    return [
        {key: row[key] for key in keys if key in row} | {name: answers[i] for name, answers in arms.items()}
        for i, row in enumerate(rows)
    ]
