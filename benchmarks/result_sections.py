"""The sections of docs/results.md that have one file behind them; readme_table.py writes the page."""

import statistics
from pathlib import Path

from llmft_helpers.models.embedded import EMBEDDED, present_name
from llmft_helpers.profiles import FromTestsSettings
from llmft_helpers.reports import from_tests
from llmft_helpers.reports.tables import ARM_NAMES, markdown, p_text, with_interval
from llmft_helpers.storage import read_json

RECIPES = {
    "vendor": "Unsloth's notebooks",
    "library": "this suite without `llmft_helpers.cpu`",
    "ours": "this suite",
    "int8": "this suite, `int8_products`",
}
BEGINNINGS = {
    "reference": "as in the profile then",
    "16-bit base": "the whole base unrounded",
    "4 bits everywhere": "4 bits everywhere",
    "begins at zero": "the adapter begins at zero",
    "not in 8-bit integers": "training's products not in 8-bit integers",
}
IN_WORDS = {
    "base": "untuned base",
    "references": "tuned on references",
    "own": "tuned on own answers that pass",
    "again": "tuned on references, then again on references",
    "both": "tuned on references, then on own answers that pass",
}
NANOGPT = {
    "nanogpt.json": "what ships, without the vocabulary pairs",
    "nanogpt_5mb.json": "Tatoeba, Python's documentation and LeetCode, which do not ship",
}


def read(path: Path) -> dict | None:
    return read_json(path) if path.is_file() else None


def base_noted(measured: dict) -> str:
    """The base of a benchmark's file; those written before it was noted are of the one then called "embedded"."""
    return present_name(measured.get("model", "embedded"))


def title_of(model: str) -> str:
    """A model's name as people write it."""
    return EMBEDDED[model].title if model in EMBEDDED else model


def line(title: str, runs: dict[str, dict], show) -> dict:
    """One measure of a task: the untuned arms of the first run, and every run's tuned arm."""
    first = next(iter(runs.values()))
    untuned = {ARM_NAMES[arm]: show(first[arm]) for arm in ("base", "base_few_shot")}
    return {"": title} | untuned | {f"tuned, `{name}`": show(run["tuned"]) for name, run in runs.items()}


def code_lines(runs: dict[str, dict]) -> list[dict]:
    """Every measure of notebook 03, of problems by difficulty too where they say it."""
    tiers = next(iter(runs.values()))["tuned"]["per_difficulty"]

    def tier_line(tier: str, title: str, key: str) -> dict:
        return line(title, runs, lambda m: with_interval(m["per_difficulty"][tier], key))

    return [
        line("code: problems solved", runs, lambda m: with_interval(m, "pass_at_1")),
        *(tier_line(t, f"code: solved of {part['problems']} {t}", "pass_at_1") for t, part in tiers.items()),
        line("code: tests passed", runs, lambda m: with_interval(m, "tests_passed_rate")),
        *(tier_line(t, f"code: tests passed, {t}", "tests_passed_rate") for t in tiers),
        line("code: perplexity of solutions", runs, lambda m: f"{m['perplexity']:.2f}"),
        line("code: answer is code only", runs, lambda m: f"{m['code_only_rate']:.0%}"),
        line("code: answer parses", runs, lambda m: f"{m['parses_rate']:.0%}"),
        line("code: answer is typed", runs, lambda m: f"{m['type_hints_rate']:.0%}"),
        line("code: restates its prompt", runs, lambda m: f"{m['prompt_echo_rate']:.0%}"),
    ]


def own_lines(runs: dict[str, dict]) -> list[dict]:
    """Every measure that the suite takes on its own test rows."""
    translation = {name: run["translation"] for name, run in runs.items()}
    return [
        line("translation: BLEU", translation, lambda m: with_interval(m, "bleu")),
        line("translation: chrF", translation, lambda m: f"{m['chrf']:.1f}"),
        line("translation: perplexity", translation, lambda m: f"{m['perplexity']:.2f}"),
        *code_lines({name: run["leetcode"] for name, run in runs.items()}),
    ]


def about_coder(code: dict) -> str:
    """What stands below the table of the profile coder."""
    provenance = code["provenance"]
    seconds = sum(provenance["seconds"].values())
    return (
        f"The base of the profile `coder` is {title_of(present_name(provenance['profile']['model']['name']))}; "
        f"{code['rows']['test']} problems that training did not see, tuned on {code['rows']['train']}. Tuned against "
        f"base: problems solved {p_text(code['pass_p_value'])} (McNemar). The stages of notebook 03 took "
        f"{seconds / 60:.0f} minutes ({provenance['device']}, {provenance['dtype']}, commit "
        f"{provenance['git_commit'] or 'unknown'})."
    )


def coder(results: dict) -> str:
    """The run of notebook 03 with a model that solves problems."""
    code = results["leetcode"]
    return f"{markdown(code_lines({'coder': code}))}\n\n{about_coder(code)}"


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

    names = [name for name in RECIPES if name in table and (name != "int8" or one_round["int8"]["int8_products"])]
    notes = (
        f"{title_of(base_noted(measured))}, the same 8 rows a step in every line; medians of {len(measured['rounds'])} "
        f"alternating rounds (`benchmarks/lora_throughput.py`, {measured['device']}, commit {measured['git_commit']})."
    )
    return f"{markdown([line(name) for name in names])}\n\n{notes}{_our_part(measured['rounds'])}"


def _our_part(rounds: list[dict]) -> str:
    """How much of the speed is our own code's."""
    if "library" not in rounds[0]:
        return ""
    training, generation = (
        statistics.median(one["ours"][key] / one["library"][key] for one in rounds)
        for key in ("tokens_per_second", "generated_tokens_per_second")
    )
    return f" `llmft_helpers.cpu` alone makes training {training:.1f} and generation {generation:.1f} times as fast."


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
    kept = "Then it left the layers unrounded that rounding hurts most (`benchmarks/rounding.py`). "
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


def every_weight(measured: dict) -> str:
    """Adapters against training all weights, each at the rate that its validation loss chose."""
    best = measured["best"]
    lines = [
        {
            "trained": one["arm"],
            "weights": f"{one['trainable_parameters']:,}",
            "learning rate": f"{one['learning_rate']:.3g}",
            "validation loss": f"{one['validation_loss']:.3f}",
            "BLEU (95% interval)": with_interval(one, "bleu"),
            "training": f"{one['seconds']:.0f} s",
            "peak memory": f"{one['memory_gb']:.1f} GB",
        }
        for one in best
    ]
    rates = {one["arm"]: [run["learning_rate"] for run in measured["runs"] if run["arm"] == one["arm"]] for one in best}
    tried = max(map(len, rates.values()))
    edge = [one["arm"] for one in best if one["learning_rate"] in (min(rates[one["arm"]]), max(rates[one["arm"]]))]
    further = f" At the edge of what was tried: {'; '.join(edge)}. A better rate may lie beyond." if edge else ""
    notes = (
        f"{title_of(base_noted(measured))}, {measured['rows']:,} pairs, one pass; the best of {tried} learning rates "
        f"each, by the validation rows (`benchmarks/full_fine_tuning.py`, {measured['device']}, commit "
        f"{measured['git_commit']}). The adapters' base is rounded to 4 bits and trains with `llmft_helpers.cpu`, "
        f"whose faster code is for frozen weights alone; all weights train unrounded, in plain PyTorch.{further}"
    )
    picture = "![BLEU against memory and seconds](../outputs/demo/full_fine_tuning.png)"
    return f"{markdown(lines)}\n\n{notes}\n\n{picture}"


def own_answers(measured: dict) -> str:
    """Notebook 05's table and what it says."""
    names = from_tests.arms(measured)
    columns = {
        "problems solved": lambda one: with_interval(one, "pass_at_1"),
        "of them Warm-up": lambda one: with_interval(one["per_difficulty"]["Warm-up"], "pass_at_1"),
        "tests passed": lambda one: with_interval(one, "tests_passed_rate"),
        "answer is code only": lambda one: f"{one['code_only_rate']:.0%}",
    }
    lines = [{"": ARM_NAMES[arm]} | {title: show(measured[arm]) for title, show in columns.items()} for arm in names]
    kept = from_tests.kept(measured["kept"], _asked(measured))
    said = [from_tests.sampling(measured["rounds"][-1]), kept, from_tests.comparison(measured)]
    return "\n\n".join([markdown(lines), *said])


def _asked(measured: dict) -> FromTestsSettings:
    return FromTestsSettings(**measured["provenance"]["profile"]["from_tests"])


def own_in_short(measured: dict, more: dict | None) -> str:
    """What the README says of notebook 05; `more`: the same models on more problems."""
    asked, first = _asked(measured), measured["rounds"][0]
    begin = (
        f"Notebook 05 goes on from there: {from_tests.ANSWERED_BY[asked.answered_by]} answers {first['problems']} "
        f"training problems {asked.samples} times each, {first['passed']} answers pass their tests, and "
        f"{measured['kept']['answers']} of these, all different, are what it learns from."
    )
    if more is None:
        return f"{begin}\n\n{from_tests.comparison(measured)}"
    counts, earlier = more["problems"], ("references", "base")
    lines = [
        {
            "": title,
            f"solved of the {counts['test']} test problems": with_interval(more["arms"][arm]["test"], "pass_at_1"),
            f"solved of all {counts['all']} unseen ones": with_interval(more["arms"][arm]["all"], "pass_at_1"),
        }
        for arm, title in IN_WORDS.items()
        if arm in more["arms"]
    ]
    pairs = {frozenset(one["models"]): one["p"] for one in more["p_values"]}
    new = {arm: {other: pairs[frozenset((arm, other))] for other in earlier} for arm in ("both", "own")}
    tests = "; ".join(
        ", ".join([IN_WORDS[arm], *(f"against {IN_WORDS[other]} {p_text(p)}" for other, p in by_other.items())])
        for arm, by_other in from_tests.adjusted(new).items()
    )
    return (
        f"{begin}\n\n{markdown(lines)}\n\n{counts['left over']} of the unseen problems are those that the splits leave "
        f"over. On all {counts['all']}, by McNemar's test, adjusted for the number of new models: {tests}."
        f"{_against_control(pairs)}"
    )


def _against_control(pairs: dict[frozenset, float]) -> str:
    """Whether it is the own answers, or only the further steps."""
    if (p := pairs.get(frozenset(("again", "both")))) is None:
        return ""
    text = "A control was trained on with references of the same problems, by the same rules; the last model against it"
    return f" {text}: {p_text(p)}."


def more_problems(measured: dict) -> str:
    """Notebook 05's models on the test problems and on those that the splits leave over."""
    counts = measured["problems"]
    titles = {
        "test": f"of the {counts['test']} test problems",
        "left over": f"of {counts['left over']} others",
        "all": f"of all {counts['all']}",
    }
    lines = [
        {"solved": IN_WORDS[arm]} | {title: with_interval(sets[name], "pass_at_1") for name, title in titles.items()}
        for arm, sets in measured["arms"].items()
    ]
    pairs = [_solved_by_one(one) for one in measured["p_values"]]
    notes = (
        f"`train_rows` leaves {counts['left over']} problems over that are in no group of a training or validation "
        "problem; they are asked and graded as the test problems (`benchmarks/more_problems.py`, "
        f"{measured['device']}, commit {measured['git_commit']}). McNemar's exact test on all {counts['all']}, "
        f"{len(pairs)} comparisons, p not corrected for their number:"
    )
    return "\n\n".join([markdown(lines), notes, "\n".join(pairs)])


def _solved_by_one(pair: dict) -> str:
    first, second = (IN_WORDS[arm] for arm in pair["models"])
    return (
        f"- {first} / {second}: the first alone solves {pair['only_first']}, the second alone "
        f"{pair['only_second']}, {p_text(pair['p'])}."
    )
