"""Notebook 01's GPT against nanoGPT: same text, threads and wall-clock, same evaluation.

    git clone https://github.com/karpathy/nanoGPT /elsewhere/nanoGPT
    python benchmarks/char_gpt.py --nanogpt /elsewhere/nanoGPT --seconds 300 --seeds 1,2,3
    python benchmarks/char_gpt.py --text tinyshakespeare.txt [--nanogpt ...] --json shakespeare.json

nanoGPT is trained by its own train.py, in a temporary copy of the checkout, by two recipes: `cpu`, the one its
README gives for a laptop (float32, not compiled, no dropout), and `gpu`, the shape and dropout of its Shakespeare
recipe scaled down to such a budget. The first seed tries the recipes, the others use the one that was better on
validation. nanoGPT's number of iterations is set from a short calibration, so that its learning rate decays within
the budget, and ours then gets the seconds that it really took. Neither clock counts validation or saving. Both read the
same text in the same alphabet, both keep the weights of their best validation check, as both do by themselves, and both
are scored on whole texts, every character once, with at least HISTORY of a context (the model's own) before it; the
curves are drawn with half a context. Another corpus: a profile with other sources (see docs/local-corpora.toml).

`--text` reads one file instead, split and given an alphabet as nanoGPT's prepare.py does it: its first 90% to train on,
the rest for validation. The yardstick is tiny Shakespeare (`data/tinyshakespeare/input.txt` in the repository
karpathy/char-rnn), on which nanoGPT's README publishes 1.4697 nats. That number is made by another rule, which is
always computed too: random windows, the mean over all their positions, so that characters with little before them
count as well. Without `--nanogpt` only ours is trained, for `--seconds`.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import pandas
from char_gpt_runs import CURVE_POINTS, read_texts, train_ours
from lifting import lift
from nanogpt import train_nanogpt

from llmft_helpers.device import device_description
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import load_profile
from llmft_helpers.reports.character_sentences import PUBLISHED
from llmft_helpers.runs import git_commit
from llmft_helpers.storage import fingerprint, write_json


def seconds_to_reach(curve: list[tuple[float, float]], bits: float) -> float | None:
    """When the curve first falls to `bits`, between its points on a straight line; None if it never does."""
    for (before, high), (after, low) in zip(curve[:1] + curve, curve, strict=False):  # the first with itself
        if low <= bits:
            return before if high <= bits else before + (after - before) * (high - bits) / (high - low)
    return None


def seconds_to_published(result: dict) -> float | None:
    """When the published loss was reached by nanoGPT's rule: the curve follows another one, so that it is moved by what
    the two differ in at the end."""
    difference = result["random_windows"]["val_loss"] / math.log(2) - min(bits for _, bits in result["curve"])
    return seconds_to_reach(result["curve"], PUBLISHED / math.log(2) - difference)


def compare(theirs: dict, ours: dict) -> dict:
    reached = seconds_to_reach(ours["curve"], min(bits for _, bits in theirs["curve"]))
    test = [one["test"]["bits_per_char"] for one in (ours, theirs) if "test" in one]
    return {
        "seed": ours["seed"],
        "against": theirs["name"],
        "bits_ratio": ours["bits_per_char"] / theirs["bits_per_char"],
        **({"test_bits_ratio": test[0] / test[1]} if test else {}),
        "seconds_to_their_loss": reached,
        "time_ratio": None if reached is None else reached / theirs["seconds"],
    }


def show(results: list[dict], comparisons: list[dict]) -> None:
    shown = [
        {"": r["name"], **{key: r[key] for key in ("seed", "parameters", "seconds", "steps")},
         "bits/char": r["bits_per_char"], "perplexity": r["perplexity"],
         "nats": r["val_loss"], "nats, random windows": r["random_windows"]["val_loss"]}
        | ({"test": r["test"]["bits_per_char"]} if "test" in r else {})
        | {domain: part["bits_per_char"] for domain, part in r["per_domain"].items()}
        for r in results
    ]  # fmt: skip
    print(pandas.DataFrame(shown).set_index("").round(3).to_string())
    for c in comparisons:
        reached = "never reached their loss"
        if c["time_ratio"] is not None:
            reached = f"their best loss after {c['seconds_to_their_loss']:.0f} s ({c['time_ratio']:.2f} of their time)"
        test = f" (test: {1 - c['test_bits_ratio']:.1%})" if "test_bits_ratio" in c else ""
        gains = f"{1 - c['bits_ratio']:.1%} fewer bits than {c['against']}{test}"
        print(f"seed {c['seed']}: {gains}; {reached}")
    for key, name in (("bits_ratio", "validation"), ("test_bits_ratio", "test")):
        gains = [1 - c[key] for c in comparisons if key in c]
        if gains:
            print(f"fewer bits over {len(gains)} seed(s), {name}: {min(gains):.1%} to {max(gains):.1%}")


def plot(results: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    names = sorted({r["name"] for r in results}, reverse=True)
    for r in results:
        kind = names.index(r["name"])
        label = f"{r['name']}, {r['parameters'] / 1e6:.1f}M" if r["seed"] == results[0]["seed"] else None
        axes.plot(*zip(*r["curve"], strict=True), ("-", "--", ":")[kind], color=f"C{kind}", label=label)
    axes.set(xlabel="seconds of training", ylabel="validation bits a character")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, help="train on this file instead of the profile's corpora")
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, each (default 300)")
    parser.add_argument("--profile", help="whose shape and corpora to use (default: LLMFT_PROFILE, or by device)")
    parser.add_argument("--recipes", default="cpu,gpu", help="nanoGPT's, comma-separated (default cpu,gpu)")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated (default 1,2,3)")
    parser.add_argument("--json", type=Path, help="write what is printed, and the curves, after every seed")
    parser.add_argument("--plot", type=Path, help="write the curves as a PNG, after every seed")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.nanogpt and not (options.nanogpt / "train.py").is_file():
        raise UserError(f"--nanogpt {options.nanogpt}: no train.py there; point it to a checkout of nanoGPT")
    if not options.nanogpt and not options.text:
        raise UserError("nothing to compare with: give --nanogpt, or --text for the published yardstick")
    gpt = lift("01_char_gpt")
    gpt.CHECKS = CURVE_POINTS
    gpt.Linear.compute = gpt.choose_device()[1]
    profile = load_profile(options.profile)
    texts = read_texts(options.text, profile)
    settings = replace(profile.char_gpt, max_steps=10**9)
    characters = sum(len(text) for _, text in texts["train"])
    print(f"{device_description()['device']}; {characters:,} characters of training text, smaller domains repeated")
    about = {
        "setting": f"{options.seconds:g} s of training each, {device_description()['device']}",
        "characters": characters,
        "data": {split: fingerprint(texts[split]) for split in texts if split != "alphabet"},
        "git_commit": git_commit(),
    }
    recipes, results, comparisons = options.recipes.split(",") if options.nanogpt else [], [], []
    for seed in map(int, options.seeds.split(",")):
        theirs = [train_nanogpt(gpt, options.nanogpt, name, options.seconds, seed, texts) for name in recipes]
        best = min(theirs, key=lambda result: result["bits_per_char"], default=None)
        recipes = [recipes[theirs.index(best)]] if best else []
        seconds = best["seconds"] if best else options.seconds
        ours = train_ours(gpt, replace(settings, seconds=seconds), seed, texts)
        results += [*theirs, ours]
        comparisons += [compare(best, ours)] if best else []
        if options.text:
            ours["seconds_to_published"] = seconds_to_published(ours)
            print(
                f"seed {seed}: {ours['random_windows']}, {PUBLISHED} after {ours['seconds_to_published']} s", flush=True
            )
        if options.json:
            write_json(options.json, about | {"results": results, "comparisons": comparisons})
        if options.plot:
            plot(results, options.plot)
    show(results, comparisons)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
