"""Write the README's tables from the files of outputs/demo and outputs/long (between its two `results` marks)."""

import argparse
import re
import sys
from pathlib import Path

from llmft_helpers.reports.tables import ARM_NAMES, markdown, p_text, with_interval
from llmft_helpers.runs import read_json

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {
    "vendor": "Unsloth's notebooks",
    "ours": "this suite",
    "int8": "this suite, `int8_products`",
}
BEGINNINGS = {
    "reference": "as in the demo",
    "16-bit base": "the whole base unrounded",
    "4 bits everywhere": "4 bits everywhere",
    "begins at zero": "the adapter begins at zero",
    "not in 8-bit integers": "training's products not in 8-bit integers",
}
NANOGPT = {
    "nanogpt.json": "what ships, without the vocabulary pairs",
    "nanogpt_5mb.json": "Tatoeba, Python's documentation and LeetCode, which do not ship",
}
MARKS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)


def read(path: Path) -> dict | None:
    return read_json(path) if path.is_file() else None


def gains(runs: dict[str, dict]) -> str:
    """One line a measure; the untuned arms of the first run, and every run's tuned arm."""
    first = next(iter(runs.values()))

    def line(title: str, task: str, show) -> dict:
        untuned = {ARM_NAMES[arm]: show(first[task][arm]) for arm in ("base", "base_few_shot")}
        return {"": title} | untuned | {f"tuned, `{name}`": show(run[task]["tuned"]) for name, run in runs.items()}

    lines = [
        line("translation: BLEU (95% interval)", "translation", lambda m: with_interval(m, "bleu")),
        line("translation: chrF", "translation", lambda m: f"{m['chrf']:.1f}"),
        line("translation: perplexity", "translation", lambda m: f"{m['perplexity']:.2f}"),
        line("code: problems solved (95% interval)", "leetcode", lambda m: with_interval(m, "pass_at_1")),
        line("code: tests passed", "leetcode", lambda m: f"{m['tests_passed_rate']:.1%}"),
        line("code: answer is code only", "leetcode", lambda m: f"{m['code_only_rate']:.0%}"),
        line("code: answer is typed", "leetcode", lambda m: f"{m['type_hints_rate']:.0%}"),
        line("code: restates its prompt", "leetcode", lambda m: f"{m['prompt_echo_rate']:.0%}"),
    ]
    translation, code = first["translation"], first["leetcode"]
    share = code.get("best_constant_share")
    lucky = "" if share is None else f"The luckiest constant of each problem would pass {share:.1%} of its tests. "
    notes = (
        f"Tested on {translation['rows']['test']} pairs and {code['rows']['test']} problems that training did not see. "
        f"BLEU tuned against base: {p_text(translation['bleu_p_value'])} (paired bootstrap); problems solved: "
        f"{p_text(code['pass_p_value'])} (McNemar). {lucky}"
        f"The character GPT from scratch reaches perplexity {first['char_gpt']['perplexity']:.2f} a character."
    )
    return f"{markdown(lines)}\n\n{notes}"


def elsewhere(folders: dict[str, Path]) -> str | None:
    """The same adapters on rows of others: a line a set, a column an arm; None until every one is measured."""
    tatoeba = {name: read(folder / "translation" / "tatoeba.json") for name, folder in folders.items()}
    humaneval = {name: read(folder / "leetcode" / "humaneval.json") for name, folder in folders.items()}
    if any(one is None for one in (*tatoeba.values(), *humaneval.values())):
        return None
    pairs, problems = next(iter(tatoeba.values())), next(iter(humaneval.values()))
    untuned = {
        arm: with_interval(problems["arms"][arm], "pass_at_1")
        for arm in ("base", "base, few-shot", "base, as published")
    }
    lines = [
        {"on rows of others": f"{pairs['rows']:,} random Tatoeba pairs: BLEU"}
        | {arm: with_interval(pairs[arm], "bleu") if arm in pairs else "–" for arm in untuned}
        | {f"tuned, `{name}`": with_interval(one["tuned"], "bleu") for name, one in tatoeba.items()},
        {"on rows of others": f"HumanEval, its first {problems['rows']}: problems solved"}
        | untuned
        | {f"tuned, `{name}`": with_interval(one["arms"]["tuned"], "pass_at_1") for name, one in humaneval.items()},
    ]
    parse = ", ".join(f"{one['arms']['tuned']['parses_rate']:.0%} of `{name}`'s" for name, one in humaneval.items())
    notes = (
        "Nobody tuned to either (`benchmarks/other_corpus.py`, `benchmarks/humaneval.py`). The base is asked HumanEval "
        f"in our prompt, and once continues HumanEval's own, as published. Of the tuned answers {parse} parse."
    )
    return f"{markdown(lines)}\n\n{notes}"


def costs(runs: dict[str, dict]) -> str:
    """What each run trained on and took."""
    return markdown([cost(name, results) for name, results in runs.items()])


def cost(name: str, results: dict) -> dict:
    translation, code = results["translation"], results["leetcode"]
    provenance = translation["provenance"]
    seconds = sum(sum(part["provenance"]["seconds"].values()) for part in results.values())
    memory = max(part["provenance"]["peak_memory_gb"]["host"] for part in results.values())
    passes = [
        f"{task['provenance']['profile'][key]['train']['epochs']:g} x {task['rows']['train']:,} {rows}"
        for key, task, rows in (("translation", translation, "pairs"), ("leetcode", code, "problems"))
    ]
    integers = ", training in 8-bit integers" if translation["training"].get("int8_products") else ""
    return {
        "profile": f"`{name}`",
        "trained on": ", ".join(passes),
        "all stages": f"{seconds / 60:.0f} minutes",
        "largest notebook": f"{memory:.1f} GB",
        "computed in": provenance["dtype"] + integers,
        "on": provenance["device"],
        "commit": ", ".join(dict.fromkeys(part["provenance"]["git_commit"] for part in results.values())),
    }


def throughput(measured: dict) -> str:
    """Training and generation against the vendor's settings."""
    table, one_round = measured["table"], measured["rounds"][0]

    def against(name: str, key: str, show, ratio: str = "{:.1f}x") -> str:
        own = show(table[name][key])
        return own if name == "vendor" else f"{own} ({ratio.format(table[f'{name} / vendor'][key])})"

    def line(name: str) -> dict:
        return {
            "settings": RECIPES[name],
            "computed in": one_round[name]["dtype"],
            "training, real tokens a second": against(name, "tokens_per_second", "{:.0f}".format),
            "generation, tokens a second": against(name, "generated_tokens_per_second", "{:.0f}".format),
            "memory": against(name, "peak_memory_gb", "{:.1f} GB".format),
            "validation loss": against(name, "validation_loss", "{:.3f}".format, "{:.3f}x"),
        }

    names = [name for name in RECIPES if name != "int8" or one_round["int8"]["int8_products"]]
    notes = (
        f"The same 8 rows a step in every line; medians of {len(measured['rounds'])} alternating rounds "
        f"(`benchmarks/lora_throughput.py`, {measured['device']}, commit {measured['git_commit']})."
    )
    return f"{markdown([line(name) for name in names])}\n\n{notes}"


def beginnings(ablations: dict) -> str | None:
    """What rounding costs and what is done about it is worth; None until it is measured."""
    runs = {row["name"]: row for row in ablations["rows"] if row["name"] in BEGINNINGS}
    if len(runs) < len(BEGINNINGS):
        return None
    reference = runs["reference"]
    lines = [
        {
            "rounding": title,
            "validation loss": f"{run['validation_loss']:.3f}",
            "BLEU (95% interval)": with_interval(run, "bleu"),
        }
        for title, run in ((title, runs[name]) for name, title in BEGINNINGS.items())
    ]
    notes = (
        "The demo leaves the layers unrounded that rounding hurts most (`benchmarks/rounding.py`) and begins where the "
        f"adapter gives back part of the error of the others. {reference['train_rows']:,} pairs, "
        f"{reference['batch_size']} rows a step, one seed (`make ablations`)."
    )
    return f"{markdown(lines)}\n\n{notes}"


def nanogpt(folder: Path) -> str | None:
    """Our character GPT against nanoGPT on each text, over seeds."""
    lines = []
    for name, text in NANOGPT.items():
        if not (measured := read(folder / name)):
            continue
        seeds = measured["comparisons"]
        shares = ("never" if seed["time_ratio"] is None else f"{seed['time_ratio']:.0%}" for seed in seeds)
        fewer = [100 * (1 - seed["bits_ratio"]) for seed in seeds]
        lines.append(
            {
                "character GPT against nanoGPT": f"{text}: {measured['characters']:,} characters",
                "seeds": len(seeds),
                "fewer bits a character": f"{min(fewer):.1f} to {max(fewer):.1f}%",
                "nanoGPT's best loss reached after": f"{', '.join(shares)} of its time",
                "setting": f"{measured['setting']} (`benchmarks/char_gpt.py`)",
            }
        )
    return markdown(lines) if lines else None


def gpu_full(measured: dict) -> str:
    ours = measured["table"]["ours"]
    return (
        f"A random model of Llama 3.2 1B's shape on one {measured['device']} (`benchmarks/gpu_full.py`): training "
        f"{ours['tokens_per_second']:,.0f} tokens a second, {ours['speed_against_plain']:.1f} times plain TRL, in "
        f"{ours['memory_against_plain']:.0%} of its memory, both with activations kept."
    )


def written(folders: dict[str, Path]) -> str:
    """All of it, blocks apart; a benchmark whose file is missing is left out."""
    folder = folders["demo"]
    runs = {name: read_json(place / "results.json") for name, place in folders.items()}
    blocks = [gains(runs), elsewhere(folders), costs(runs)]
    for path, show in (
        (folder / "translation" / "throughput.json", throughput),
        (folder / "ablations" / "ablations.json", beginnings),
        (folder / "gpu_full.json", gpu_full),
    ):
        measured = read(path)
        blocks.append(show(measured) if measured else None)
    blocks.append(nanogpt(folder / "char_gpt"))
    return "\n\n".join(block for block in blocks if block) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options = parser.parse_args()
    text = options.readme.read_text(encoding="utf-8")
    if not MARKS.search(text):
        sys.exit(f"{options.readme} has no results marks")
    folders = {name: options.outputs / name for name in ("demo", "long")}
    tables = written({name: folder for name, folder in folders.items() if (folder / "results.json").is_file()})
    options.readme.write_text(MARKS.sub(lambda m: m[1] + tables + m[2], text), encoding="utf-8")
    print(tables)


if __name__ == "__main__":
    main()
