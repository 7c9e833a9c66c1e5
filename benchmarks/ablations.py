"""Which choices of the translation fine-tune matter: train it again and again with one choice changed.

    python benchmarks/ablations.py --profile demo --docs docs/ablations.md     # all, in several hours on 2 cores
    python benchmarks/ablations.py --only register,size --minutes 20           # some groups, a budget of time
    python benchmarks/ablations.py --only ""                                   # table, plot and page from what is there

Every run trains on `--rows` pairs, half of them from each corpus, and differs from the reference (the profile's own
settings) in one thing. The groups in SWEEPS are the sweep behind the profile's values: they are judged by validation
rows alone and never see a test row. A finished run is one line of outputs/<profile>/ablations/rows.jsonl,
written at once, and is not run again with the same settings and data; a killed one goes on from its checkpoint.
"""

import argparse
import gc
import itertools
import os
import random
import re
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ablation_report import write_page, write_plot, write_table

from llmft_helpers import runs, storage
from llmft_helpers.data import corpora
from llmft_helpers.data.prompts import TranslationTask, training_rows
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import LoraSettings, ModelSettings, Profile, Source, TrainSettings, is_local, load_profile

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
REFERENCE, PROMPTED = "reference", "prompt in the loss"
SWEEPS = ("learning_rate", "alpha", "batch", "dropout")
SCORES = ("bleu", "bleu_ci95", "chrf", "perplexity", "prompt_echo_rate", "eos_rate", "length_ratio", "per_source")
CONTRACTION = re.compile(
    r"n['’]t\b|\b(i|you|he|she|it|we|they|who|what|where|when|how|that|there|here|let)['’](m|s|re|ve|ll|d)\b", re.I
)


@dataclass(frozen=True)
class Run:
    name: str
    group: str
    model: ModelSettings
    lora: LoraSettings
    train: TrainSettings
    rows: tuple[int, ...]  # places in the pool of training rows


def interleaved(pool: list[dict]) -> list[int]:
    """Places of the pool's rows, one of each source in turn while it lasts: any beginning is evenly mixed."""
    by_source = [[i for i, row in enumerate(pool) if row["source"] == name] for name in sources(pool)]
    return [i for turn in itertools.zip_longest(*by_source) for i in turn if i is not None]


def sources(rows: list[dict]) -> list[str]:
    return sorted({row["source"] for row in rows})


def scored_sources(given: tuple[Source, ...]) -> list[Source]:
    """Without those that only train, beside others to draw test rows from: what is never scored is no register."""
    published = any(source.split == "test" for source in given)
    return [source for source in given if published or source.split is None]


def matched_alpha(lora: LoraSettings, rank: int) -> int:
    """The alpha that keeps the scale of the update, alpha / rank (alpha / sqrt(rank) in rsLoRA)."""
    return max(1, round(lora.alpha * (rank / lora.rank) ** (0.5 if lora.use_rslora else 1)))


def planned_runs(profile: Profile, pool: list[dict], count: int) -> list[Run]:
    """The reference first, then each group's runs; UserError if a corpus has fewer than `count` training rows."""
    lora, train, mixed = profile.lora, profile.translation.train, interleaved(pool)
    reference = Run(REFERENCE, REFERENCE, profile.model, lora, train, tuple(mixed[:count]))

    def changed(name: str, group: str, **changes) -> Run:
        return replace(reference, name=name, group=group, **changes)

    other_precision = replace(profile.model, load_in_4bit=not profile.model.load_in_4bit)
    low = max(1, lora.rank // 8)
    plan = [
        reference,
        changed(PROMPTED, "loss", train=replace(train, loss_on_prompt=True)),
        changed(f"rank {low}", "rank", lora=replace(lora, rank=low, alpha=matched_alpha(lora, low))),
        changed("attention only", "modules", lora=replace(lora, target_modules=ATTENTION)),
        changed("16-bit base" if profile.model.load_in_4bit else "4-bit base", "precision", model=other_precision),
    ]
    if profile.model.load_in_4bit and profile.model.keep_16bit:
        plan.append(changed("4 bits everywhere", "precision", model=replace(profile.model, keep_16bit=())))
    if lora.loftq:
        plan.append(changed("begins at zero", "start", lora=replace(lora, loftq=False)))
    if lora.int8_products:
        plan.append(changed("not in 8-bit integers", "products", lora=replace(lora, int8_products=False)))
    for name in sources(pool):
        own = [i for i in mixed if pool[i]["source"] == name]
        if len(own) < count:
            raise UserError(f"{name!r} has {len(own)} training rows: lower --rows from {count} to that or less")
        plan.append(changed(f"{name} only", "register", rows=tuple(own[:count])))
    for factor in (0.25, 0.5, 2.0):
        rate = train.learning_rate * factor
        plan.append(changed(f"learning rate {rate:g}", "learning_rate", train=replace(train, learning_rate=rate)))
    for factor in (0.5, 2):
        alpha = max(1, round(lora.alpha * factor))
        plan.append(changed(f"alpha {alpha}", "alpha", lora=replace(lora, alpha=alpha)))
    plan.append(
        changed("LoRA" if lora.use_rslora else "rsLoRA", "alpha", lora=replace(lora, use_rslora=not lora.use_rslora))
    )
    for factor in (0.5, 2):
        size = max(1, round(train.batch_size * factor))
        plan.append(changed(f"{size} rows a step", "batch", train=replace(train, batch_size=size)))
    plan.append(changed("dropout 0.05", "dropout", lora=replace(lora, dropout=0.05)))
    plan += [  # last, as all rows take the longest
        changed(f"{count // 4} rows", "size", rows=tuple(mixed[: count // 4])),
        changed(f"all {len(mixed):,} rows", "size", rows=tuple(mixed)),
    ]
    return plan


def run_key(run: Run, pool: list[dict], splits: dict, profile: Profile) -> str:
    """Changes with all that decides a run's figures."""
    settings = profile.translation
    held_out = [splits["validation"], splits["test"] if run.group not in SWEEPS else None]
    return storage.fingerprint([asdict(run.model), asdict(run.lora), asdict(run.train), [pool[i] for i in run.rows],
                             held_out, settings.direction, settings.max_new_tokens, profile.seed])  # fmt: skip


def measure(run: Run, profile: Profile, pool: list[dict], splits: dict, folder: Path) -> dict:
    """Train one run and score it; `answers` are the texts of the test rows, in order."""
    import unsloth  # noqa: F401, I001  before transformers, which scoring imports

    from llmft_helpers.training import delete_checkpoints
    from llmft_helpers.training import fine_tuning as training
    from llmft_helpers.scoring.evaluation import evaluate_task
    from llmft_helpers.models.loading import add_lora, load_base_model, trainable_parameters

    settings, task = profile.translation, TranslationTask(profile.translation.direction)
    model, tokenizer = load_base_model(run.model)
    model = add_lora(model, run.lora, profile.seed)
    rows = [pool[i] for i in run.rows]
    random.Random(profile.seed).shuffle(rows)
    validation = training_rows(task, splits["validation"])
    trainer = training.make_trainer(
        model, tokenizer, training_rows(task, rows), validation, run.train, profile.model.max_length,
        folder / "trainer", profile.seed,
    )  # fmt: skip
    trained = training.fine_tune(trainer)
    delete_checkpoints(trainer)
    result = {
        "train_rows": len(rows),
        "trainable_parameters": trainable_parameters(model)[0],
        **{name: trained[name] for name in ("steps", "kept_step", "seconds", "tokens_per_second")},
        "validation_loss": min(e["validation_loss"] for e in trained["history"] if "validation_loss" in e),
    }
    if run.group not in SWEEPS:
        metrics, answers = evaluate_task(model, tokenizer, task, splits["test"], settings, label=run.name)
        result |= {name: metrics[name] for name in SCORES} | {"answers": [answer["text"] for answer in answers]}
    return result


def tone(texts: list[str]) -> dict[str, float]:
    """Marks of everyday English: share of texts with a contraction; and of formal English: characters a word."""
    words = [word for text in texts for word in re.findall(r"\w+", text)]
    return {
        "contraction_rate": sum(map(contracted, texts)) / len(texts),
        "characters_per_word": sum(map(len, words)) / max(1, len(words)),
    }


def contracted(text: str) -> bool:
    return bool(CONTRACTION.search(text))


def paired_difference(first: list[bool], second: list[bool]) -> dict:
    """Rate of `first` minus rate of `second` over the same rows, with its 95% bootstrap interval."""
    from llmft_helpers.scoring.metrics import bootstrap_ci95

    difference = [a - b for a, b in zip(first, second, strict=True)]
    return {"difference": sum(difference) / len(difference), "ci95": bootstrap_ci95(difference)}


def summary(rows: list[dict], profile: Profile, test: list[dict]) -> dict:
    """What goes into ablations.json: rows without their answers, compared with the reference, and the tone effect."""
    from llmft_helpers.scoring.evaluation import echoes
    from llmft_helpers.scoring.metrics import bleu_p_value

    task = TranslationTask(profile.translation.direction)
    wanted = [row[task.target] for row in test]
    places = {name: [i for i, row in enumerate(test) if row["source"] == name] for name in sources(test)}
    answers = {row["name"]: row["answers"] for row in rows if "answers" in row}
    for row in rows:
        if row["name"] not in answers:
            continue
        if row["name"] != REFERENCE and REFERENCE in answers:
            row["p_against_reference"] = bleu_p_value(answers[REFERENCE], answers[row["name"]], wanted)
        for name, chosen in places.items():
            texts = [answers[row["name"]][i] for i in chosen]
            written, needed = (sum(len(text.split()) for text in side) for side in (texts, [wanted[i] for i in chosen]))
            row["per_source"][name] |= {"length_ratio": written / needed} | tone(texts)
    document = {
        "rows": [{key: value for key, value in row.items() if key != "answers"} for row in rows],
        "references": {name: tone([wanted[i] for i in chosen]) for name, chosen in places.items()},
    }
    if REFERENCE in answers and PROMPTED in answers:
        echoed = [[echoes(row[task.source], answers[name][i]) for i, row in enumerate(test)] for name in
                  (PROMPTED, REFERENCE)]  # fmt: skip
        document["prompt_echo_difference"] = paired_difference(*echoed)
    pair = [f"{name} only" for name in ("formal", "everyday")]
    if task.target == "en" and "everyday" in places and all(name in answers for name in pair):
        marked = [[contracted(answers[name][i]) for i in places["everyday"]] for name in pair]
        document["contraction_difference_on_everyday_rows"] = paired_difference(*marked)
    return document


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", help="default: LLMFT_PROFILE, or by device")
    parser.add_argument("--only", help="comma-separated groups; the reference always runs first")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="no run but the first is started after that (default 60)"
    )
    parser.add_argument("--rows", type=int, default=240, help="training rows of a run (default 240)")
    parser.add_argument("--json", type=Path, help="also write ablations.json here")
    parser.add_argument("--docs", type=Path, help="also write a page of Markdown here")
    return parser.parse_args(arguments)


def chosen_groups(plan: list[Run], only: str | None) -> list[str]:
    groups = list(dict.fromkeys(run.group for run in plan[1:]))
    if only is None:
        return [REFERENCE, *groups]
    asked = [name for name in only.split(",") if name]
    if unknown := set(asked) - set(groups):
        raise UserError(f"--only: no group {sorted(unknown)[0]!r}; there are: {', '.join(groups)}")
    return [REFERENCE, *asked] if asked else []


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    profile = load_profile(options.profile)
    if is_local(profile):
        os.environ["HF_HUB_OFFLINE"] = "1"
    registers = scored_sources(profile.translation.sources)
    whole_sources = tuple(replace(source, weight=1.0) for source in registers)
    whole = replace(profile.translation, train_rows=0, sources=whole_sources)
    corpus = corpora.load_pairs(replace(profile, translation=whole))
    plan = planned_runs(profile, corpus.train, options.rows)
    groups = chosen_groups(plan, options.only)
    folder = runs.run_dir(profile, "ablations")
    path = folder / "rows.jsonl"
    done = {row["key"]: row for row in storage.read_jsonl(path)} if path.is_file() else {}
    keys = {run: run_key(run, corpus.train, corpus.splits, profile) for run in plan}
    started = None
    for run in plan:
        if run.group not in groups or keys[run] in done:
            continue
        started = started or time.monotonic()
        if time.monotonic() - started > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over: run the command again to go on with {run.name!r}")
            break
        print(f"== {run.group}: {run.name}, {len(run.rows):,} rows", flush=True)
        head = {"name": run.name, "group": run.group, "key": keys[run], "learning_rate": run.train.learning_rate,
                "rank": run.lora.rank, "alpha": run.lora.alpha, "use_rslora": run.lora.use_rslora,
                "batch_size": run.train.batch_size, "dropout": run.lora.dropout}  # fmt: skip
        done[keys[run]] = head | measure(run, profile, corpus.train, corpus.splits, folder)
        storage.write_jsonl(path, done.values())
        gc.collect()
    rows = [done[keys[run]] for run in plan if keys[run] in done]
    if not rows:
        raise UserError(f"no run of this profile and data in {path}: run without --only first")
    stages = runs.Stages()
    stages.seconds = {row["name"]: round(row["seconds"], 1) for row in rows}
    document = summary(rows, profile, corpus.test) | {
        "missing": [run.name for run in plan if keys[run] not in done],
        "left_out": [source.name for source in profile.translation.sources if source not in registers],
        "splits": {name: len(part) for name, part in corpus.splits.items()},
        "provenance": runs.provenance(profile, stages, corpus.manifest["fingerprints"]),
    }
    for target in (folder / "ablations.json", options.json):
        if target:
            storage.write_json(target, document)
    write_table(document)
    write_plot(document, folder / "ablations.png")
    if options.docs:
        write_page(document, options.docs, folder / "ablations.png")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
