"""Write the README's table of results from outputs/demo/results.json (between its two `results` marks)."""

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
SECOND_RUN = "results_second_run.json"  # kept by hand: the results.json of an earlier run
MARKS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)


def interval(values: list[float], scale: float = 1) -> str:
    return f"{values[0] * scale:.1f} to {values[1] * scale:.1f}"


def table(results: dict) -> str:
    """Markdown: one line a measure, one column an arm."""
    translation, code, character = results["translation"], results["leetcode"], results["char_gpt"]
    arms = ("base", "base_few_shot", "tuned")
    lines = ["| | base | base, few-shot | tuned |", "|---|---|---|---|"]

    def add(title: str, task: dict, show) -> None:
        lines.append(f"| {title} | " + " | ".join(show(task[arm]) for arm in arms) + " |")

    add("translation: BLEU (95% interval)", translation, lambda m: f"{m['bleu']:.1f} ({interval(m['bleu_ci95'])})")
    add("translation: chrF", translation, lambda m: f"{m['chrf']:.1f}")
    add("translation: perplexity", translation, lambda m: f"{m['perplexity']:.2f}")
    add("code: problems solved (95% interval)", code,
        lambda m: f"{m['pass_at_1']:.0%} ({interval(m['pass_at_1_ci95'], 100)}%)")  # fmt: skip
    add("code: tests passed", code, lambda m: f"{m['tests_passed_rate']:.1%}")
    add("code: answer is code only", code, lambda m: f"{m['code_only_rate']:.0%}")
    add("code: answer is typed", code, lambda m: f"{m['type_hints_rate']:.0%}")
    add("code: restates its prompt", code, lambda m: f"{m['prompt_echo_rate']:.0%}")
    seconds = sum(sum(results[task]["provenance"]["seconds"].values()) for task in results)
    memory = max(results[task]["provenance"]["peak_memory_gb"]["host"] for task in results)
    provenance = translation["provenance"]
    share = code.get("best_constant_share")
    lucky = "" if share is None else f"The luckiest constant of each problem would pass {share:.1%} of its tests. "
    notes = (
        f"Trained on {translation['rows']['train']:,} pairs and {code['rows']['train']} problems, tested on "
        f"{translation['rows']['test']} and {code['rows']['test']} others. BLEU tuned against "
        f"base: {p_text(translation['bleu_p_value'])} (paired bootstrap); problems solved: "
        f"{p_text(code['pass_p_value'])} (McNemar). {lucky}"
        f"The character GPT from scratch reaches perplexity {character['perplexity']:.2f} a character. "
        f"All stages together took {seconds / 60:.0f} minutes, and the largest notebook held {memory:.1f} GB, on: "
        f"{provenance['device']}, in {provenance['dtype']}."
    )
    return "\n".join([*lines, "", notes, ""])


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


def second_run(results: dict) -> str:
    """What an earlier run of the notebooks gave, in a sentence."""
    translation, code = results["translation"], results["leetcode"]
    profile = code["provenance"]["profile"]
    pairs, problems = (profile[name]["train"]["epochs"] for name in ("translation", "leetcode"))
    return (
        f"An earlier run with other settings, on {code['provenance']['device']} "
        f"([{SECOND_RUN}](outputs/demo/{SECOND_RUN}), commit {code['provenance']['git_commit']}), "
        f"{pairs:g} pass(es) over {translation['rows']['train']:,} pairs and {problems:g} over the problems, gave BLEU "
        f"{translation['tuned']['bleu']:.1f}, {code['tuned']['code_only_rate']:.0%} code only and "
        f"{code['tuned']['tests_passed_rate']:.1%} of the tests."
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
        f"adapter gives back part of the error of the others. On {runs['reference']['train_rows']:,} pairs, one seed "
        f"(`make ablations`), validation loss and BLEU: {told}."
    )


def beside(folder: Path) -> str:
    """A sentence for each benchmark whose file stands beside the results."""
    sentences = []
    if (path := folder / SECOND_RUN).is_file():
        sentences.append(second_run(json.loads(path.read_text(encoding="utf-8"))))
    if (path := folder / "translation" / "tatoeba.json").is_file():
        other = json.loads(path.read_text(encoding="utf-8"))
        tuned = other["tuned"]
        sentences.append(
            f"The table's translation adapter on {other['rows']:,} random Tatoeba sentences, which nobody tuned to "
            f"(`benchmarks/other_corpus.py`): BLEU {tuned['bleu']:.1f} ({interval(tuned['bleu_ci95'])})."
        )
    if (path := folder / "leetcode" / "humaneval.json").is_file():
        measured = json.loads(path.read_text(encoding="utf-8"))
        arms = ("base", "base, few-shot", "base, as published", "tuned")
        solved = "; ".join(f"{arm} {measured['arms'][arm]['pass_at_1']:.1%}" for arm in arms)
        sentences.append(
            f"HumanEval, the first {measured['rows']} problems, which nobody tuned to (`benchmarks/humaneval.py`), "
            f"solved: {solved}; {measured['arms']['tuned']['parses_rate']:.0%} of the tuned answers parse."
        )
    if (path := folder / "translation" / "throughput.json").is_file():
        measured = json.loads(path.read_text(encoding="utf-8"))
        ratio, ours = measured["table"]["ratio"], measured["table"]["ours"]
        sentences.append(
            f"Against the settings of Unsloth's own notebooks (`benchmarks/lora_throughput.py`; both on "
            f"{measured['device']}, in {measured['dtype']}, commit {measured['git_commit']}): "
            f"training {ratio['tokens_per_second']:.1f} times as fast at the same 8 rows a step "
            f"({ours['tokens_per_second']:.0f} real tokens a second), "
            f"{ratio['tokens_per_second_16']:.1f} times if ours takes the demo's 16, generation "
            f"{ratio['generated_tokens_per_second']:.1f} times; validation loss {ratio['validation_loss'] - 1:+.1%}."
        )
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
    written = table(json.loads(options.results.read_text(encoding="utf-8"))) + "\n" + beside(options.results.parent)
    options.readme.write_text(MARKS.sub(lambda m: m[1] + written + m[2], text), encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
