"""Write the README's table from results.json of outputs/demo and outputs/long (between its two `results` marks)."""

import argparse
import json
import re
import sys
from pathlib import Path

from llmft_helpers.reporting import p_text

ROOT = Path(__file__).resolve().parents[1]
NANOGPT = {
    "nanogpt.json": "the shipped text without the vocabulary pairs",
    "nanogpt_5mb.json": "Tatoeba, Python's documentation and LeetCode, which are not shipped",
}
MARKS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)


def interval(values: list[float], scale: float = 1) -> str:
    return f"{values[0] * scale:.1f} to {values[1] * scale:.1f}"


def table(results: dict, longer: dict | None = None) -> str:
    """Markdown: one line a measure, one column an arm, the tuned one of `longer`, the same with more training, last."""
    arms = {"base": "base", "base_few_shot": "base, few-shot", "tuned": "tuned"}
    title = [*arms.values(), *(["tuned, profile `long`"] if longer else [])]
    lines = [f"| | {' | '.join(title)} |", "|---" * (len(title) + 1) + "|"]

    def add(title: str, task: str, show) -> None:
        columns = [results[task][arm] for arm in arms] + ([longer[task]["tuned"]] if longer else [])
        lines.append(f"| {title} | {' | '.join(show(column) for column in columns)} |")

    add("translation: BLEU (95% interval)", "translation", lambda m: f"{m['bleu']:.1f} ({interval(m['bleu_ci95'])})")
    add("translation: chrF", "translation", lambda m: f"{m['chrf']:.1f}")
    add("translation: perplexity", "translation", lambda m: f"{m['perplexity']:.2f}")
    add("code: problems solved (95% interval)", "leetcode",
        lambda m: f"{m['pass_at_1']:.0%} ({interval(m['pass_at_1_ci95'], 100)}%)")  # fmt: skip
    add("code: tests passed", "leetcode", lambda m: f"{m['tests_passed_rate']:.1%}")
    add("code: answer is code only", "leetcode", lambda m: f"{m['code_only_rate']:.0%}")
    add("code: answer is typed", "leetcode", lambda m: f"{m['type_hints_rate']:.0%}")
    add("code: restates its prompt", "leetcode", lambda m: f"{m['prompt_echo_rate']:.0%}")
    translation, code = results["translation"], results["leetcode"]
    share = code.get("best_constant_share")
    lucky = "" if share is None else f"The luckiest constant of each problem would pass {share:.1%} of its tests. "
    notes = (
        f"Tested on {translation['rows']['test']} pairs and {code['rows']['test']} problems that training did not see. "
        f"BLEU tuned against base: {p_text(translation['bleu_p_value'])} (paired bootstrap); problems solved: "
        f"{p_text(code['pass_p_value'])} (McNemar). {lucky}"
        f"The character GPT from scratch reaches perplexity {results['char_gpt']['perplexity']:.2f} a character."
    )
    return "\n".join([*lines, "", notes, cost("demo", results), *([cost("long", longer)] if longer else []), ""])


def cost(name: str, results: dict) -> str:
    """What a run trained on and took, in a sentence."""
    translation, code = results["translation"], results["leetcode"]
    provenance = translation["provenance"]
    seconds = sum(sum(results[task]["provenance"]["seconds"].values()) for task in results)
    memory = max(results[task]["provenance"]["peak_memory_gb"]["host"] for task in results)
    passes = [
        f"{task['provenance']['profile'][key]['train']['epochs']:g} pass(es) over {task['rows']['train']:,} {rows}"
        for key, task, rows in (("translation", translation, "pairs"), ("leetcode", code, "problems"))
    ]
    was = provenance["profile"]["name"]
    integers = ", products of training in 8-bit integers" if translation["training"].get("int8_products") else ""
    commit = f"commit {provenance['git_commit']}" + ("" if was == name else f", when it was called `{was}`")
    return (
        f"`{name}` ({commit}): {' and '.join(passes)}; all stages together took {seconds / 60:.0f} minutes, and the "
        f"largest notebook held {memory:.1f} GB, on: {provenance['device']}, in {provenance['dtype']}{integers}."
    )


def nanogpt(measured: dict, text: str) -> str:
    """Our character GPT against nanoGPT on one text, over seeds."""
    seeds = measured["comparisons"]
    fewer = [100 * (1 - seed["bits_ratio"]) for seed in seeds]
    shares = ", ".join("never" if s["time_ratio"] is None else f"{s['time_ratio']:.0%}" for s in seeds)
    return (
        f"The character GPT against nanoGPT on {text} (`benchmarks/char_gpt.py`, "
        f"{measured['characters']:,} characters, {measured['setting']}): {interval([min(fewer), max(fewer)])}% fewer "
        f"bits a character over {len(seeds)} seed(s); nanoGPT's best loss is reached after this share of its time: "
        f"{shares}."
    )


def ways_to_begin(ablations: dict) -> str | None:
    """What it is worth to leave some layers unrounded and to begin at the rounding error; None until it is measured."""
    names = {"reference": "as in the demo", "4 bits everywhere": "4 bits everywhere",
             "begins at zero": "the adapter beginning at zero", "16-bit base": "the whole base unrounded"}  # fmt: skip
    runs = {row["name"]: row for row in ablations["rows"] if row["name"] in names}
    if len(runs) < len(names):
        return None
    told = "; ".join(
        f"{names[name]} {row['validation_loss']:.3f} and {row['bleu']:.1f} ({interval(row['bleu_ci95'])})"
        for name, row in runs.items()
    )
    return (
        "The demo leaves the layers unrounded that rounding hurts most (`benchmarks/rounding.py`) and begins where the "
        f"adapter gives back part of the error of the others. On {runs['reference']['train_rows']:,} pairs, "
        f"{runs['reference']['batch_size']} rows a step, one seed (`make ablations`), validation loss and BLEU: {told}."
    )


def throughput(measured: dict) -> str:
    """Our training and generation against the vendor's settings."""
    table, run = measured["table"], measured["rounds"][0]
    ours, integers = table["ours / vendor"], table["int8 / vendor"]
    faster, loss = f"{ours['tokens_per_second']:.1f} times as fast", f"{ours['validation_loss'] - 1:+.1%}"
    speeds = f"{table['ours']['tokens_per_second']:.0f}"
    if run["int8"]["int8_products"]:
        faster += f", {integers['tokens_per_second']:.1f} times with products in 8-bit integers"
        speeds += f" and {table['int8']['tokens_per_second']:.0f}"
        loss += f", in integers {integers['validation_loss'] - 1:+.1%}"
    return (
        "Against the settings of Unsloth's own notebooks (`benchmarks/lora_throughput.py`; both on "
        f"{measured['device']}, theirs in {run['vendor']['dtype']}, ours in {run['ours']['dtype']}, commit "
        f"{measured['git_commit']}): training at the same 8 rows a step {faster} "
        f"({speeds} real tokens a second), generation {ours['generated_tokens_per_second']:.1f} times; validation loss "
        f"{loss}."
    )


def elsewhere(folder: Path) -> list[str]:
    """What the adapters of a run score on rows of others."""
    sentences = []
    if (path := folder / "translation" / "tatoeba.json").is_file():
        other = json.loads(path.read_text(encoding="utf-8"))
        tuned = other["tuned"]
        sentences.append(
            f"`{folder.name}`'s translation adapter on {other['rows']:,} random Tatoeba sentences, which nobody tuned "
            f"to (`benchmarks/other_corpus.py`): BLEU {tuned['bleu']:.1f} ({interval(tuned['bleu_ci95'])})."
        )
    if (path := folder / "leetcode" / "humaneval.json").is_file():
        measured = json.loads(path.read_text(encoding="utf-8"))
        arms = ("base", "base, few-shot", "base, as published", "tuned")
        solved = "; ".join(f"{arm} {measured['arms'][arm]['pass_at_1']:.1%}" for arm in arms)
        sentences.append(
            f"HumanEval, the first {measured['rows']} problems, which nobody tuned to (`benchmarks/humaneval.py`), "
            f"solved with `{folder.name}`'s adapter: {solved}; {measured['arms']['tuned']['parses_rate']:.0%} of the "
            "tuned answers parse."
        )
    return sentences


def beside(folder: Path) -> str:
    """A sentence for each benchmark whose file stands beside the results."""
    sentences = elsewhere(folder) + elsewhere(folder.parent / "long")
    if (path := folder / "translation" / "throughput.json").is_file():
        sentences.append(throughput(json.loads(path.read_text(encoding="utf-8"))))
    if (path := folder / "ablations" / "ablations.json").is_file():
        told = ways_to_begin(json.loads(path.read_text(encoding="utf-8")))
        sentences += [told] if told else []
    for name, text in NANOGPT.items():
        if (path := folder / "char_gpt" / name).is_file():
            sentences.append(nanogpt(json.loads(path.read_text(encoding="utf-8")), text))
    if (path := folder / "gpu_full.json").is_file():
        measured = json.loads(path.read_text(encoding="utf-8"))
        ours = measured["table"]["ours"]
        sentences.append(
            f"A random model of Llama 3.2 1B's shape on one {measured['device']} (`benchmarks/gpu_full.py`): training "
            f"{ours['tokens_per_second']:,.0f} tokens a second, {ours['speed_against_plain']:.1f} times plain TRL, in "
            f"{ours['memory_against_plain']:.0%} of its memory."
        )
    return "\n".join([*sentences, ""]) if sentences else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "outputs" / "demo" / "results.json")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args()
    text = options.readme.read_text(encoding="utf-8")
    if not MARKS.search(text):
        sys.exit(f"{options.readme} has no results marks")
    folder = options.results.parent
    longer = folder.parent / "long" / "results.json"
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in (options.results, longer) if path.is_file()]
    written = table(*runs) + "\n" + beside(folder)
    options.readme.write_text(MARKS.sub(lambda m: m[1] + written + m[2], text), encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
