"""Write the results of outputs/demo and outputs/long: one table into README.md, all of them into docs/results.md.

What was not measured is left out. So is a run (or a score on rows of others) of another base or other test rows than
the first run's: one column of the untuned base stands for all.
"""

import argparse
import re
import sys
from pathlib import Path

from llmft_helpers.models.embedded import EMBEDDED, present_name
from llmft_helpers.reports import character_sentences
from llmft_helpers.reports.tables import ARM_NAMES, markdown, p_text, with_interval
from llmft_helpers.runs import TASKS, read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
OTHERS = {  # a file of a run's folder, what its line says, and the score
    "translation/tatoeba.json": ("translation: BLEU on {rows:,} random Tatoeba pairs", "bleu"),
    "leetcode/humaneval.json": ("code: solved of HumanEval's first {rows}", "pass_at_1"),
}
IN_SHORT = re.compile(  # the README's lines of those on our own rows
    r"translation: (BLEU|perplexity)|code: (problems solved|solved of \d+ Warm-up|answer is code only)"
)
RECIPES = {
    "vendor": "Unsloth's notebooks",
    "ours": "this suite",
    "int8": "this suite, `int8_products`",
}
BEGINNINGS = {
    "reference": "as in the profile",
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
PAGE = """# Results

`make figures` writes this page and the README's table from the files that the runs and the benchmarks left in
`outputs/demo` and `outputs/long`; what has not been measured is left out. The executed notebooks stand in
[outputs/demo/reports](../outputs/demo/reports). The terms are explained in the
[README](../README.md#what-the-numbers-mean).
"""


def read(path: Path) -> dict | None:
    return read_json(path) if path.is_file() else None


def base_of(results: dict) -> str:
    return present_name(results["translation"]["provenance"]["profile"]["model"]["name"])


def base_noted(measured: dict) -> str:
    """The base of a benchmark's file; those written before it was noted are of the one then called "embedded"."""
    return present_name(measured.get("model", "embedded"))


def title_of(model: str) -> str:
    """A model's name as people write it."""
    return EMBEDDED[model].title if model in EMBEDDED else model


def tested_on(results: dict) -> tuple:
    """What two runs must share for one untuned column: the base, and the fingerprints of the test rows."""
    return base_of(results), *(results[task]["provenance"]["data"]["test"] for task in ("translation", "leetcode"))


def comparable_runs(folders: dict[str, Path]) -> dict[str, dict]:
    """The results of the first complete run, and of those that ask the same rows of the same base."""
    found = {name: read(folder / "results.json") for name, folder in folders.items()}
    complete = {name: results for name, results in found.items() if results and set(TASKS) <= set(results)}
    return {name: one for name, one in complete.items() if tested_on(one) == tested_on(next(iter(complete.values())))}


def measured_elsewhere(folders: dict[str, Path], runs: dict[str, dict]) -> dict[str, dict[str, dict]]:
    """File of OTHERS -> run -> its scores, arm by arm; of the base and the number of rows that the first run has."""
    measured = {}
    for file in OTHERS:
        found = {name: read(folders[name] / file) for name in runs}
        own = {name: one for name, one in found.items() if one and base_noted(one) == base_of(runs[name])}
        rows = next((one["rows"] for one in own.values()), 0)
        alike = {name: one.get("arms", one) | {"rows": rows} for name, one in own.items() if one["rows"] == rows}
        measured |= {file: alike} if alike else {}
    return measured


def line(title: str, runs: dict[str, dict], task: str, show) -> dict:
    """One measure: the untuned arms of the first run, and every run's tuned arm."""
    first = next(iter(runs.values()))
    untuned = {ARM_NAMES[arm]: show(first[task][arm]) for arm in ("base", "base_few_shot")}
    return {"": title} | untuned | {f"tuned, `{name}`": show(run[task]["tuned"]) for name, run in runs.items()}


def line_elsewhere(file: str, scores: dict[str, dict], runs: dict[str, dict], arms: tuple[str, ...]) -> dict:
    """A set of others: `arms` of the untuned base, of the first run that asked it, and tuned arms; "–": no score."""
    title, key = OTHERS[file]
    asked = {arm: score for one in reversed(scores.values()) for arm, score in one.items()}

    def show(one: dict, arm: str) -> str:
        return with_interval(one[arm], key) if arm in one else "–"

    untuned = {arm: show(asked, arm) for arm in arms}
    tuned = {f"tuned, `{name}`": show(scores.get(name, {}), "tuned") for name in runs}
    return {"": title.format(rows=asked["rows"])} | untuned | tuned


def own_lines(runs: dict[str, dict]) -> list[dict]:
    """Every measure that the suite takes on its own test rows, of problems by difficulty too where they say it."""
    tiers = next(iter(runs.values()))["leetcode"]["tuned"]["per_difficulty"]

    def tier_line(tier: str, title: str, key: str) -> dict:
        return line(title, runs, "leetcode", lambda m: with_interval(m["per_difficulty"][tier], key))

    return [
        line("translation: BLEU", runs, "translation", lambda m: with_interval(m, "bleu")),
        line("translation: chrF", runs, "translation", lambda m: f"{m['chrf']:.1f}"),
        line("translation: perplexity", runs, "translation", lambda m: f"{m['perplexity']:.2f}"),
        line("code: problems solved", runs, "leetcode", lambda m: with_interval(m, "pass_at_1")),
        *(tier_line(t, f"code: solved of {part['problems']} {t}", "pass_at_1") for t, part in tiers.items()),
        line("code: tests passed", runs, "leetcode", lambda m: with_interval(m, "tests_passed_rate")),
        *(tier_line(t, f"code: tests passed, {t}", "tests_passed_rate") for t in tiers),
        line("code: answer is code only", runs, "leetcode", lambda m: f"{m['code_only_rate']:.0%}"),
        line("code: answer parses", runs, "leetcode", lambda m: f"{m['parses_rate']:.0%}"),
        line("code: answer is typed", runs, "leetcode", lambda m: f"{m['type_hints_rate']:.0%}"),
        line("code: restates its prompt", runs, "leetcode", lambda m: f"{m['prompt_echo_rate']:.0%}"),
    ]


def summary(runs: dict[str, dict], elsewhere: dict[str, dict[str, dict]]) -> str:
    """The README's one table."""
    lines = [one for one in own_lines(runs) if IN_SHORT.fullmatch(one[""])]
    lines += [line_elsewhere(file, scores, runs, ("base", "base, few-shot")) for file, scores in elsewhere.items()]
    lines.sort(key=lambda one: one[""].startswith("code"))
    first = next(iter(runs.values()))
    translation, code = first["translation"], first["leetcode"]
    notes = (
        f"The base is {title_of(base_of(first))}; 95% intervals in brackets; {translation['rows']['test']} pairs and "
        f"{code['rows']['test']} problems that training did not see. Tuned (`{next(iter(runs))}`) against base: BLEU "
        f"{p_text(translation['bleu_p_value'])} (paired bootstrap), problems solved {p_text(code['pass_p_value'])} "
        f"(McNemar). The character GPT reaches perplexity {first['char_gpt']['perplexity']:.2f}, per character."
    )
    return f"{markdown(lines)}\n\n{notes}"


def gains(runs: dict[str, dict]) -> str:
    """All own measures, and what a share of tests passed is to be read against."""
    share = next(iter(runs.values()))["leetcode"].get("best_constant_share")
    lucky = "" if share is None else f"\n\nThe luckiest constant of each problem would pass {share:.1%} of its tests."
    return markdown(own_lines(runs)) + lucky


def beyond(runs: dict[str, dict], elsewhere: dict[str, dict[str, dict]]) -> str | None:
    """The same adapters on rows of others; None if nothing was measured."""
    if not elsewhere:
        return None
    asked = {arm for scores in elsewhere.values() for one in scores.values() for arm in one}
    arms = tuple(arm for arm in ("base", "base, few-shot", "base, as published") if arm in asked)
    lines = [line_elsewhere(file, scores, runs, arms) for file, scores in elsewhere.items()]
    notes = "Nobody tuned to either (`benchmarks/other_corpus.py`, `benchmarks/humaneval.py`)."
    if "base, as published" in arms:
        notes += " The base is asked HumanEval in our prompt, and once continues HumanEval's own, as published."
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
        "commit": ", ".join(dict.fromkeys(part["provenance"]["git_commit"] or "unknown" for part in results.values())),
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
        f"{title_of(base_noted(measured))}, the same 8 rows a step in every line; medians of {len(measured['rounds'])} "
        f"alternating rounds (`benchmarks/lora_throughput.py`, {measured['device']}, commit {measured['git_commit']})."
    )
    return f"{markdown([line(name) for name in names])}\n\n{notes}"


def beginnings(ablations: dict) -> str | None:
    """What rounding costs and what is done about it is worth; None until more than the reference is measured."""
    runs = {row["name"]: row for row in ablations["rows"] if row["name"] in BEGINNINGS}
    if "reference" not in runs or len(runs) == 1:
        return None
    lines = [
        {
            "rounding": title,
            "validation loss": f"{runs[name]['validation_loss']:.3f}",
            "BLEU (95% interval)": with_interval(runs[name], "bleu"),
        }
        for name, title in BEGINNINGS.items()
        if name in runs
    ]
    kept = "The profile leaves the layers unrounded that rounding hurts most (`benchmarks/rounding.py`). "
    reference, profile = runs["reference"], ablations["provenance"]["profile"]
    notes = (
        f"{title_of(present_name(profile['model']['name']))}, profile `{profile['name']}`. "
        f"{kept if profile['model']['keep_16bit'] else ''}{reference['train_rows']:,} pairs, "
        f"{reference['batch_size']} rows a step, one seed (`make ablations`); [ablations](ablations.md) has the rest."
    )
    return f"{markdown(lines)}\n\n{notes}"


def harness(measured: dict[str, dict]) -> str:
    """Exported models by lm-evaluation-harness and by `evaluate`, on the same rows."""
    shown = {
        "translation": ("translation: BLEU", "bleu", "{:.2f}"),
        "leetcode": ("code: tests passed", "tests_passed_rate", "{:.1%}"),
    }
    lines = []
    for task, one in measured.items():
        title, key, form = shown[task]
        scores = {"this suite": form.format(one["ours"][key]), "lm-eval": form.format(one["lm_eval"][key])}
        lines.append({"": title} | scores | {"answers alike": f"{one['same_answers']} of {one['rows']}"})
    first = next(iter(measured.values()))
    notes = (
        f"Adapters of `{first['profile']}` merged into their base, read by plain transformers in lm-evaluation-harness "
        f"{first['lm_eval_version']}, and by `evaluate --model`; {first['dtype']} (`benchmarks/lm_eval_check.py`, "
        f"[docs/lm-eval](lm-eval/README.md), commit {first['git_commit']})."
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


def page(folder: Path, runs: dict[str, dict], elsewhere: dict[str, dict[str, dict]]) -> str:
    """docs/results.md; a section whose file is missing is left out. `folder`: where the benchmarks' files lie."""

    def shown(file: str, show) -> str | None:
        measured = read(folder / file)
        return show(measured) if measured else None

    sections = {
        f"Base and tuned: {title_of(base_of(next(iter(runs.values()))))}": gains(runs),
        "On rows of others": beyond(runs, elsewhere),
        "By another harness": shown("lm_eval.json", harness),
        "What the runs took": costs(runs),
        "Speed on a CPU, against the vendor's settings": shown("translation/throughput.json", throughput),
        "Rounding and where the adapter begins": shown("ablations/ablations.json", beginnings),
        "Speed on a GPU": shown("gpu_full.json", gpu_full),
        "The character GPT against nanoGPT": nanogpt(folder / "char_gpt"),
        "The character GPT on the public yardstick": shown("char_gpt/shakespeare.json", character_sentences.yardstick),
    }
    return "\n".join([PAGE, *(f"## {title}\n\n{text}\n" for title, text in sections.items() if text)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md")
    options = parser.parse_args()
    text = options.readme.read_text(encoding="utf-8")
    if not MARKS.search(text):
        sys.exit(f"{options.readme} has no results marks")
    folders = {name: options.outputs / name for name in ("demo", "long")}
    runs = comparable_runs(folders)
    if not runs:
        sys.exit(f"{options.outputs} holds no run of all four notebooks: make run")
    elsewhere = measured_elsewhere(folders, runs)
    table = summary(runs, elsewhere)
    write_text(options.readme, MARKS.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text))
    write_text(options.page, page(folders["demo"], runs, elsewhere))
    print(table)
    for name in folders.keys() - runs.keys():
        print(f"left out: {name}, which is not complete, or of another base or other test rows", file=sys.stderr)


if __name__ == "__main__":
    main()
