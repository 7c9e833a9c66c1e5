"""How a trained translation adapter does on sentences that nobody tuned to: any local corpus of pairs.

    python benchmarks/other_corpus.py --adapter outputs/demo/translation/adapter --pairs tatoeba_en_es.parquet \\
        --es non_english --en english --rows 500

Rows are a seeded random sample of the cleaned corpus; rows that share a side with the adapter's own corpora are left
out. Prints BLEU with its 95% interval, chrF and the answers' length ratio; `--base` adds the untuned model, asked
without and with the solved examples of notebook 02. A whole file as it is: the command `evaluate --input`.
"""

import argparse
import os
import random
from pathlib import Path

import pandas

from llmft_helpers import runs, storage
from llmft_helpers.data import corpora
from llmft_helpers.data.cleaning import normalise, reason_to_drop
from llmft_helpers.data.prompts import TranslationTask, few_shot_rows
from llmft_helpers.data.sources import read_source
from llmft_helpers.models.loading import adapters_off, load_for_inference, read_adapter_note
from llmft_helpers.models.notes import noted_profile
from llmft_helpers.profiles import Source
from llmft_helpers.scoring.evaluation import evaluate_task

SEED = 0
COLUMNS = ("bleu", "bleu_ci95", "chrf", "length_ratio", "eos_rate", "perplexity", "bits_per_byte")


def unseen_rows(splits: dict[str, list[dict]], source: Source, count: int) -> list[dict]:
    """`count` random clean rows of `source` that share no side with a row of `splits`."""
    known = [row for part in splits.values() for row in part]
    seen = {normalise(row[side]) for row in known for side in ("es", "en")}
    rows = [row | {"source": source.name} for _, row in read_source(source, ("es", "en"))]
    rows = [row for row in rows if not reason_to_drop(row["es"], row["en"])]
    fresh = [row for row in rows if not {normalise(row["es"]), normalise(row["en"])} & seen]
    print(f"{len(rows):,} clean rows, {len(rows) - len(fresh)} of them share a side with the adapter's corpora")
    return random.Random(SEED).sample(fresh, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--es", default="es", help="column of the Spanish side")
    parser.add_argument("--en", default="en", help="column of the English side")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--base", action="store_true", help="also score the untuned model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    note = read_adapter_note(options.adapter)
    profile = noted_profile(note, options.adapter)
    source = Source(name="other", path=options.pairs, columns={"es": options.es, "en": options.en})
    corpus = corpora.load_pairs(profile)
    rows = unseen_rows(corpus.splits, source, options.rows)
    model, tokenizer = load_for_inference(profile, options.adapter)
    task = TranslationTask(note["direction"])
    results = {"tuned": evaluate_task(model, tokenizer, task, rows, profile.translation)[0]}
    if options.base:
        shots = few_shot_rows(task, corpus.train, profile.translation.shots)
        with adapters_off(model):
            results["base"] = evaluate_task(model, tokenizer, task, rows, profile.translation)[0]
            results["base, few-shot"] = evaluate_task(model, tokenizer, task, rows, profile.translation, shots)[0]
    shown = {arm: {name: metrics[name] for name in COLUMNS} for arm, metrics in results.items()}
    print(pandas.DataFrame.from_dict(shown, orient="index").to_string())
    if options.json:
        about = {"rows": len(rows), "corpus": Path(options.pairs).name, "seed": SEED, "git_commit": runs.git_commit()}
        about |= {"model": profile.model.name}
        storage.write_json(options.json, about | results)


if __name__ == "__main__":
    main()
