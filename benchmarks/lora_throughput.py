"""Training and generation speed on this machine: the vendor notebook's settings against ours, alternating.

    python benchmarks/lora_throughput.py --json outputs/demo/translation/throughput.json
    python benchmarks/lora_throughput.py --model smollm2-135m-instruct --recipes library ours   # our speed-ups alone

An embedded model in 4-bit, rank 64 on all projections, learning rate 2e-4, 8 rows a step (the vendor's notebook: in
four parts of 2) and the same shipped sentence pairs, each recipe in a process of its own, each round with its own
seed. Each computes in the type that it chooses by itself; `library` is ours without `llmft_helpers.cpu`, `int8` ours
with `lora.int8_products`, which changes nothing on a processor where that does not pay. Tokens are real ones, without
padding; the first steps, which make kernels, are not timed. The validation loss is measured by one code for all.
Beside the JSON goes a plot of the losses over the tokens trained on.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas
from gpu_full import in_own_process, rows_of

from llmft_helpers.device import device_description
from llmft_helpers.models.embedded import EMBEDDED
from llmft_helpers.profiles import load_profile
from llmft_helpers.runs import cache_dir, git_commit
from llmft_helpers.storage import write_json

RECIPES = ("vendor", "ours", "int8")
STYLES = {"vendor": ("#E69F00", "--"), "library": ("#D55E00", "-."), "ours": ("#0072B2", "-"), "int8": ("#009E73", ":")}
SIZES = {"timed_from": 4, "new_tokens": 24, "rank": 64, "log_every": 2}
HELD_OUT, PROMPTS, BATCH = 60, 40, 8
MEDIANS = ("tokens_per_second", "generated_tokens_per_second", "validation_loss", "peak_memory_gb", "seconds_per_epoch")


def split_rows(count: int) -> tuple[list[dict], list[dict]]:
    """(training rows, rows held out): the latter at equal distances, so that both corpora are in both."""
    rows = rows_of(count + HELD_OUT)
    places = {number * len(rows) // HELD_OUT for number in range(HELD_OUT)}
    return [row for i, row in enumerate(rows) if i not in places], [rows[i] for i in sorted(places)]


def measure(recipe: str, model: str, count: int, seed: int) -> dict:
    """One recipe in this process."""
    import recipes

    from llmft_helpers.models.embedded import embedded_model

    rows, held_out = split_rows(count)
    run = recipes.Recipe(recipe, embedded_model(model, cache_dir()), SIZES, seed)
    result = device_description() | {"dtype": str(run.model.dtype).removeprefix("torch.")} | run.train(rows, BATCH)
    result["int8_products"] = getattr(run.model, "int8_products", False)
    result["validation_loss"] = run.validation_loss(held_out)
    result["generated_tokens_per_second"] = run.generation_speed([row["prompt"] for row in held_out[-PROMPTS:]])
    tokens = sum(len(run.tokenizer(row["prompt"] + row["completion"]).input_ids) + 1 for row in rows)
    return result | {"tokens": tokens, "seconds_per_epoch": tokens / result["tokens_per_second"]}


def summary(rounds: list[dict]) -> dict:
    """Medians by recipe, and the median over the rounds of each recipe's ratio to the first one's."""
    first, *others = sorted(rounds[0], key=list(STYLES).index)
    table = {
        recipe: {key: statistics.median(results[recipe][key] for results in rounds) for key in MEDIANS}
        for recipe in (first, *others)
    }
    for recipe in others:
        table[f"{recipe} / {first}"] = {
            key: statistics.median(results[recipe][key] / results[first][key] for results in rounds) for key in MEDIANS
        }
    return table


def plot(results: dict, path: Path) -> None:
    """Training loss of the recipes over the tokens seen (steps times their mean), last round."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    for recipe, run in results.items():
        colour, style = STYLES[recipe]
        tokens = [step * run["tokens"] / run["steps"] for step, _ in run["losses"]]
        axes.plot(tokens, [loss for _, loss in run["losses"]], style, color=colour, label=recipe)
    axes.set(xlabel="tokens trained on", ylabel="loss (nats a token)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", choices=EMBEDDED, default=load_profile("demo").model.name)
    parser.add_argument("--recipes", nargs="+", choices=STYLES, default=RECIPES)
    parser.add_argument("--recipe", choices=STYLES, help="one recipe in this process")
    parser.add_argument("--seed", type=int, default=0, help="of --recipe; the rounds take 0, 1, ...")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.recipe:
        write_json(options.json, measure(options.recipe, options.model, options.rows, options.seed))
        return
    rounds = []
    for number in range(options.rounds):
        order = options.recipes if number % 2 == 0 else options.recipes[::-1]
        flags = ["--model", options.model, "--rows", str(options.rows), "--seed", str(number)]
        rounds.append({recipe: in_own_process(__file__, recipe, flags) for recipe in order})
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    table = summary(rounds)
    described = device_description()
    print(f"{described['device']}, {described['dtype']}; medians of {len(rounds)} rounds")
    print(pandas.DataFrame.from_dict(table, orient="index").round(3).to_string())
    if options.json:
        about = described | {"model": options.model, "rows": options.rows, "git_commit": git_commit()}
        write_json(options.json, about | {"table": table, "rounds": rounds})
        plot(rounds[-1], options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
