"""Write the results of outputs/demo, outputs/long and outputs/coder: tables into README.md, all into docs/results.md.

What was not measured is left out. So is a run (or a score on rows of others) of another base or other test rows than
the first run's: one column of the untuned base stands for all.
"""

import argparse
import re
import sys
from pathlib import Path

import result_sections as sections
from result_sections import base_noted, read, title_of

from llmft_helpers.models.embedded import present_name
from llmft_helpers.reports import character_sentences
from llmft_helpers.reports.tables import markdown, p_text, with_interval
from llmft_helpers.runs import TASKS
from llmft_helpers.storage import write_text

ROOT = Path(__file__).resolve().parents[1]
OTHERS = {  # a file of a run's folder, what its line says, and the score
    "translation/tatoeba.json": ("translation: BLEU on {rows:,} random Tatoeba pairs", "bleu"),
    "leetcode/humaneval.json": ("code: solved of HumanEval's first {rows}", "pass_at_1"),
    "leetcode/mbpp.json": ("code: solved of the first {rows} of MBPP's test", "pass_at_1"),
}
IN_SHORT = re.compile(  # the README's lines of those on our own rows
    r"translation: (BLEU|perplexity)|"
    r"code: (problems solved|solved of \d+ Warm-up|perplexity of solutions|answer is code only)"
)
MARKS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)
PAGE = """# Results

`make figures` writes this page and the README's tables from the files that the runs and the benchmarks left in
`outputs/demo`, `outputs/long` and `outputs/coder`; what has not been measured is left out. The executed notebooks stand
in [outputs/demo/reports](../outputs/demo/reports) and [outputs/coder/reports](../outputs/coder/reports). The terms are
explained in the [README](../README.md#what-the-numbers-mean).
"""


def base_of(results: dict) -> str:
    task = next(results[name] for name in ("translation", "leetcode") if name in results)
    return present_name(task["provenance"]["profile"]["model"]["name"])


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


def line_elsewhere(file: str, scores: dict[str, dict], runs: dict[str, dict], arms: tuple[str, ...]) -> dict:
    """A set of others: `arms` of the untuned base, of the first run that asked it, and tuned arms; "–": no score."""
    title, key = OTHERS[file]
    asked = {arm: score for one in reversed(scores.values()) for arm, score in one.items()}

    def show(one: dict, arm: str) -> str:
        return with_interval(one[arm], key) if arm in one else "–"

    untuned = {arm: show(asked, arm) for arm in arms}
    tuned = {f"tuned, `{name}`": show(scores.get(name, {}), "tuned") for name in runs}
    return {"": title.format(rows=asked["rows"])} | untuned | tuned


def summary(runs: dict[str, dict], elsewhere: dict[str, dict[str, dict]]) -> str:
    """The README's one table."""
    lines = [one for one in sections.own_lines(runs) if IN_SHORT.fullmatch(one[""])]
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
    return markdown(sections.own_lines(runs)) + lucky


def beyond(runs: dict[str, dict], elsewhere: dict[str, dict[str, dict]]) -> str | None:
    """The same adapters on rows of others; None if nothing was measured."""
    if not elsewhere:
        return None
    asked = {arm for scores in elsewhere.values() for one in scores.values() for arm in one}
    arms = tuple(arm for arm in ("base", "base, few-shot", "base, as published") if arm in asked)
    lines = [line_elsewhere(file, scores, runs, arms) for file, scores in elsewhere.items()]
    notes = "Nobody tuned to these rows (`benchmarks/other_corpus.py`, `benchmarks/humaneval.py`)."
    if "base, as published" in arms:
        notes += " The base is asked in our prompt, and once continues the prompt as it is published."
    return f"{markdown(lines)}\n\n{notes}"


def in_short_of_coder(folder: Path) -> str:
    """What the README says of the run with a model that solves problems, after its table; nothing without one."""
    code = (read(folder / "results.json") or {}).get("leetcode")
    if code is None:
        return ""
    runs = {"coder": {"leetcode": code}}
    lines = [one for one in sections.code_lines({"coder": code}) if IN_SHORT.fullmatch(one[""])]
    lines += [
        line_elsewhere(file, scores, runs, ("base", "base, few-shot"))
        for file, scores in measured_elsewhere({"coder": folder}, runs).items()
    ]
    own = read(folder / "from_tests/metrics.json")
    more = read(folder / "from_tests/more_problems.json")
    notes = sections.about_coder(code) + (f"\n\n{sections.own_in_short(own, more)}" if own else "")
    begin = "Notebook 03 with a larger base, which knows code (profile `coder`):"
    return f"\n\n{begin}\n\n{markdown(lines)}\n\n{notes}"


def costs(runs: dict[str, dict]) -> str:
    """What each run trained on and took."""
    return markdown([cost(name, results) for name, results in runs.items()])


def cost(name: str, results: dict) -> dict:
    translation, code = results["translation"], results["leetcode"]
    provenance = translation["provenance"]
    provenances = [results[task]["provenance"] for task in TASKS]  # notebook 05 runs on request
    seconds = sum(sum(one["seconds"].values()) for one in provenances)
    memory = max(one["peak_memory_gb"]["host"] for one in provenances)
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
        "commit": ", ".join(dict.fromkeys(one["git_commit"] or "unknown" for one in provenances)),
    }


def page(outputs: Path, runs: dict[str, dict], elsewhere: dict[str, dict[str, dict]]) -> str:
    """docs/results.md; a section whose file is missing is left out. Benchmarks leave theirs beside the demo's."""

    def shown(file: str, show, run: str = "demo") -> str | None:
        measured = read(outputs / run / file)
        return show(measured) if measured else None

    coder = {"coder": read(outputs / "coder" / "results.json")}
    of_coder = measured_elsewhere({"coder": outputs / "coder"}, coder) if coder["coder"] else {}
    parts = {
        f"Base and tuned: {title_of(base_of(next(iter(runs.values()))))}": gains(runs),
        "On rows of others": beyond(runs, elsewhere),
        "By another harness": shown("lm_eval.json", sections.harness),
        "A model that solves problems": shown("results.json", sections.coder, "coder"),
        "That model on rows of others": beyond(coder, of_coder),
        "Learning from answers that pass, by that model": shown(
            "from_tests/metrics.json", sections.own_answers, "coder"
        ),
        "The same models on more problems": shown("from_tests/more_problems.json", sections.more_problems, "coder"),
        "Learning from answers that pass": shown("from_tests/metrics.json", sections.own_answers),
        "An adapter or every weight": shown("full_fine_tuning.json", sections.every_weight),
        "What the runs took": costs(runs),
        "Speed on a CPU, against the vendor's settings": shown("translation/throughput.json", sections.throughput),
        "Rounding and where the adapter begins": shown("ablations/ablations.json", sections.beginnings),
        "Speed on a GPU": shown("gpu_full.json", sections.gpu_full),
        "The character GPT against nanoGPT": sections.nanogpt(outputs / "demo" / "char_gpt"),
        "The character GPT on the public yardstick": shown("char_gpt/shakespeare.json", character_sentences.yardstick),
    }
    return "\n".join([PAGE, *(f"## {title}\n\n{text}\n" for title, text in parts.items() if text)])


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
    table = summary(runs, elsewhere) + in_short_of_coder(options.outputs / "coder")
    write_text(options.readme, MARKS.sub(lambda m: f"{m[1]}{table}\n{m[2]}", text))
    write_text(options.page, page(options.outputs, runs, elsewhere))
    print(table)
    for name in folders.keys() - runs.keys():
        print(f"left out: {name}, which is not complete, or of another base or other test rows", file=sys.stderr)


if __name__ == "__main__":
    main()
