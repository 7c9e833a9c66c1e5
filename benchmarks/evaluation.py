"""How much faster many translations are generated in batches than one at a time, and whether the texts stay the same.

    python benchmarks/evaluation.py [--adapter outputs/demo/translation/adapter] [--rows 60] [--json FILE]

The batched arm translates --count sentences, the single arm the first --rows of them (a random order, so that they
are like the rest); the ratio is of seconds a sentence. Both start after a warm-up. Greedy decoding takes the larger of
two logits however close they are, and in bfloat16 a sum over padded rows is rounded otherwise than over one row: the
share of equal answers (text, number of tokens, ending) is printed, and --float32 repeats the comparison with
unquantised float32 weights.
"""

import argparse
import os
import random
from dataclasses import replace
from pathlib import Path

import pandas

from llmft_helpers import runs
from llmft_helpers.data import corpora
from llmft_helpers.data.prompts import TranslationTask
from llmft_helpers.models.generation import Generated, Timer, generate, tokens_per_second
from llmft_helpers.models.loading import load_for_inference, read_adapter_note
from llmft_helpers.models.notes import noted_profile
from llmft_helpers.profiles import Profile, load_profile


def draw_prompts(profile: Profile, task: TranslationTask, count: int) -> list[str]:
    """Prompts of `count` of the profile's sentences, of all splits: nothing is scored here."""
    rows = [row for part in corpora.load_pairs(profile).splits.values() for row in part]
    return [task.prompt(row) for row in random.Random(profile.seed).sample(rows, min(count, len(rows)))]


def timed(model, tokenizer, prompts: list[str], profile: Profile, batch_size: int) -> tuple[list[Generated], float]:
    """(answers, seconds)."""
    with Timer() as timer:
        answers = generate(
            model, tokenizer, prompts, profile.translation.max_new_tokens, TranslationTask.stop, batch_size
        )
    return answers, timer.seconds


def compare(model, tokenizer, prompts: list[str], rows: int, profile: Profile) -> dict:
    """Seconds a sentence in batches and one at a time, their ratio, and the share of equal answers."""
    size = profile.translation.evaluation_batch_size
    timed(model, tokenizer, prompts[:2], profile, 2)
    batched, batched_seconds = timed(model, tokenizer, prompts, profile, size)
    single, single_seconds = timed(model, tokenizer, prompts[:rows], profile, 1)
    rates = {"batched": batched_seconds / len(prompts), "one at a time": single_seconds / len(single)}
    return {
        "sentences": {"batched": len(batched), "one at a time": len(single)},
        "batch_size": size,
        "milliseconds_a_sentence": {name: 1000 * seconds for name, seconds in rates.items()},
        "tokens_a_second": {
            "batched": tokens_per_second(batched, batched_seconds),
            "one at a time": tokens_per_second(single, single_seconds),
        },
        "ratio": rates["one at a time"] / rates["batched"],
        "equal_share": sum(a == b for a, b in zip(batched, single, strict=False)) / len(single),
        "different": [[a.text, b.text] for a, b in zip(batched, single, strict=False) if a != b][:5],
    }


def in_float32(profile: Profile) -> Profile:
    return replace(profile, model=replace(profile.model, load_in_4bit=False))


def show(results: dict) -> None:
    keys = ("sentences", "milliseconds_a_sentence", "tokens_a_second")
    for precision, measured in results.items():
        print(f"\n{precision}, batches of {measured['batch_size']}")
        print(pandas.DataFrame({key: measured[key] for key in keys}).round(1).to_string())
        print(f"{measured['ratio']:.1f} times as fast; {measured['equal_share']:.1%} of the answers are equal")
        for batched, single in measured["different"]:
            print(f"  batched: {batched!r}\n  single:  {single!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="a translation adapter; without it the untuned model answers")
    parser.add_argument("--profile", help="default: the adapter's own")
    parser.add_argument("--count", type=int, default=500, help="sentences of the batched arm (default 500)")
    parser.add_argument("--rows", type=int, default=500, help="of these, sentences of the single arm (default 500)")
    parser.add_argument("--float32", action="store_true", help="compare in float32 too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.adapter and not options.profile:
        profile = noted_profile(read_adapter_note(options.adapter), options.adapter)
    else:
        profile = load_profile(options.profile)
    prompts = draw_prompts(profile, TranslationTask(profile.translation.direction), options.count)
    model, tokenizer = load_for_inference(profile, options.adapter)
    results = {"as evaluated": compare(model, tokenizer, prompts, options.rows, profile)}
    if options.float32:
        model, tokenizer = load_for_inference(in_float32(profile), options.adapter)
        # only as many as both arms answer: this run is about the texts
        results["float32"] = compare(model.float(), tokenizer, prompts[: options.rows], options.rows, profile)
    show(results)
    if options.json:
        runs.write_json(options.json, results)


if __name__ == "__main__":
    main()
