"""What notebook 04 says when base and tuned models stand side by side: each function makes one statement.

`translation`, `leetcode` and `character` are what the metrics.json of a task holds.
"""

import pandas

from .tables import ARM_NAMES, ARMS, p_text


def headline(translation: dict, leetcode: dict) -> str:
    base, few_shot, tuned = (translation[arm]["bleu"] for arm in ARMS)
    solved, coded = ([leetcode[arm][key] for arm in ARMS] for key in ("pass_at_1", "code_only_rate"))
    return (
        f"**Translation**: BLEU {base:.1f} → **{tuned:.1f}** (few-shot base {few_shot:.1f}), paired bootstrap "
        f"{p_text(translation['bleu_p_value'])}, approximate randomisation {p_text(translation['bleu_p_value_ar'])}, "
        f"on {translation['rows']['test']} sentences that training did not see.\n\n"
        f"**Code**: solved {solved[0]:.1%} → **{solved[2]:.1%}** (few-shot base {solved[1]:.1%}), McNemar "
        f"{p_text(leetcode['pass_p_value'])}, on {leetcode['rows']['test']} problems; code-only answers {coded[0]:.0%} "
        f"→ **{coded[2]:.0%}**."
    )


def gains_by_part(translation: dict, leetcode: dict, sources: dict) -> str:
    """Gain in BLEU by corpus with its training rows (`sources` of the manifest), problems solved by difficulty."""
    untuned, tuned = (translation[arm]["per_source"] for arm in ("base", "tuned"))
    gains = [
        f"{name} **{part['bleu'] - untuned[name]['bleu']:+.1f}** ({sources[name]['rows_out']['train']:,} rows)"
        for name, part in tuned.items()
    ]
    levels = leetcode["tuned"]["per_difficulty"]
    solved = ", ".join(f"{name} {part['pass_at_1']:.0%} of {part['problems']}" for name, part in levels.items())
    after = f"Problems solved after tuning: {solved}." if solved else "No problem says how difficult it is."
    return f"Gain in BLEU: {', '.join(gains)}. {after}"


def problem_by_problem(grid: pandas.DataFrame) -> str:
    """`grid`: share of tests passed, a row a problem, a column an arm."""
    solved = ", ".join(f"{ARM_NAMES[arm]} {(grid[arm] == 1).sum()}" for arm in ARMS)
    untouched, better, worse = (
        (grid == 0).all(axis=1).sum(),
        (grid["tuned"] > grid["base"]).sum(),
        (grid["tuned"] < grid["base"]).sum(),
    )
    return (
        f"Solved: {solved}. Of {len(grid)} problems no arm passes a single test on {untouched}; the tuned model passes "
        f"more tests than the base on **{better}** and fewer on **{worse}**."
    )


def best_problem(task_id: str, statement: str) -> str:
    return f"The tuned model's best, by tests passed, is `{task_id}`: {statement}"


def fewest_bits(bits: dict[str, dict[str, float]], texts: dict[str, list[str]]) -> str:
    """`bits`: bits per byte by model ("character GPT", "base", ...) and kind of text."""
    best = {kind: min(bits, key=lambda name: bits[name][kind]) for kind in texts}
    size = sum(len(text.encode()) for some in texts.values() for text in some)
    winners = "; ".join(f"{kind} **{name}** ({bits[name][kind]:.2f})" for kind, name in best.items())
    against = "; ".join(f"{kind} {bits['base'][kind]:.2f} against {bits['character GPT'][kind]:.2f}" for kind in texts)
    return f"On {size:,} bytes, the fewest bits: {winners}. Untuned base against character GPT: {against}."


def changes_against_base(bits: pandas.DataFrame) -> pandas.DataFrame:
    """Relative change of bits per byte, a row an adapter; `bits` has the untuned base in its first row."""
    return (bits / bits.iloc[0] - 1).iloc[1:]


def forgotten(changes: pandas.DataFrame, perplexity: dict[str, dict[str, float]]) -> str:
    """Best and worst text of each adapter; `perplexity`: of the other task's answers, by model and kind of text."""
    lines = [
        f"- {name}: **{row.min():+.0%}** bits per byte on {row.idxmin()}, its best, and **{row.max():+.0%}** on "
        f"{row.idxmax()}, its worst; better than the base on {(row < 0).sum()} of {len(row)} kinds of text."
        for name, row in changes.iterrows()
    ]
    base, translation, leetcode = (perplexity[name] for name in ("base", "translation adapter", "leetcode adapter"))
    lines.append(
        f"- Perplexity of the other task's answers: solutions {base['solutions']:.2f} → {translation['solutions']:.2f} "
        f"under the translation adapter, translations {base['translations']:.2f} → {leetcode['translations']:.2f} "
        "under the code adapter."
    )
    return "\n".join(lines)


def loss_elsewhere(name: str, elsewhere: pandas.Series, own_raw: pandas.Series) -> str:
    """Change in bits per byte of one adapter on other kinds of text, and on raw text of its own kind."""
    own = ", ".join(f"{text} **{change:+.0%}**" for text, change in own_raw.items())
    return (
        f"We expected the {name} to lose on other kinds of text: it is worse than the base on "
        f"**{(elsewhere > 0).sum()}** of {len(elsewhere)}. And little change on raw text of its own kind: {own}."
    )


def tone(difference: dict | None, file: str) -> str:
    """Whether the training register shows in answers; `difference`: in contractions, from `file`, None if not there."""
    if not difference:
        return f"not measured in this profile: make ablations writes {file}"
    low, high = difference["ci95"]
    return (
        "contractions (don't, it's) in answers to everyday sentences, trained on formal text alone against everyday "
        f"text alone: {difference['difference']:+.0%} (95%: {low:+.0%} to {high:+.0%})"
    )


def earlier_study(character: dict, translation: dict, leetcode: dict, tone_measured: str) -> list[dict]:
    """What a study of the same kind reported, and what was measured here: rows for `side_by_side`."""
    base, few_shot, tuned = (translation[arm] for arm in ARMS)
    before, after = leetcode["base"], leetcode["tuned"]
    low, high = (bound / 100 for bound in tuned["bleu_ci95"])
    measured = {
        "character GPT: perplexity 2.5": (
            f"{character['perplexity']:.2f} a character on our text ({character['bits_per_char']:.2f} bits)"
        ),
        "translation: perplexity 1.7, BLEU 0.146 → about 0.4": (
            f"perplexity {base['perplexity']:.1f} → {tuned['perplexity']:.1f}, BLEU {base['bleu_01']:.3f} → "
            f"{tuned['bleu_01']:.3f} (95%: {low:.3f} to {high:.3f}); few-shot base {few_shot['bleu_01']:.3f}"
        ),
        "code looked better, solved no more": (
            f"code only {before['code_only_rate']:.0%} → {after['code_only_rate']:.0%}; solved "
            f"{before['pass_at_1']:.1%} → {after['pass_at_1']:.1%} ({p_text(leetcode['pass_p_value'])})"
        ),
        "the code model restates its prompt": (
            f"prompt echo {before['prompt_echo_rate']:.0%} → {after['prompt_echo_rate']:.0%}"
        ),
        "trained on parliament's proceedings, everything is answered in parliament's tone": tone_measured,
    }
    return [{"said": said, "measured": text} for said, text in measured.items()]


def lessons(translation: dict, leetcode: dict, elsewhere: dict[str, pandas.Series]) -> str:
    """The last words: what tuning was worth, and what it cost; `elsewhere`: changes on other kinds of text."""
    few = translation["tuned"]["bleu"] - translation["base_few_shot"]["bleu"]
    before, after, constant = leetcode["base"], leetcode["tuned"], leetcode.get("best_constant_share")
    lucky = "" if constant is None else f" where the luckiest constants would pass {constant:.1%}"
    lines = [
        f"- Translation: tuning is worth **{few:+.1f}** BLEU over showing the base a few examples "
        f"({p_text(translation['bleu_p_value_few_shot'])}).",
        f"- Code: form {before['code_only_rate']:.0%} → {after['code_only_rate']:.0%} code only; substance "
        f"{before['pass_at_1']:.1%} → {after['pass_at_1']:.1%} solved, {after['tests_passed_rate']:.1%} of the tests "
        f"passed{lucky}.",
    ]
    for name, row in elsewhere.items():
        lines.append(
            f"- The {name} is worse than the base on {(row > 0).sum()} of {len(row)} other kinds of text (bits a byte "
            f"{row.min():+.0%} to {row.max():+.0%})."
        )
    return "\n".join(lines)


def older_settings(changed: list[str]) -> str:
    """Keys of the profile that changed since the ablations were run."""
    keys = f"`{'`, `'.join(changed)}`"
    return f"Measured before the profile changed its {keys}: these scores do not compare with those above."


def register_findings(registers: dict[str, dict[str, dict]]) -> str:
    """BLEU on each register by what was trained on, and whether training on it alone is beyond chance better there."""
    trained = {name.removesuffix(" only"): scores for name, scores in registers.items()}
    lines = []
    for source in next(iter(trained.values()), {}):
        scores = {name: of[source] for name, of in trained.items()}
        shown = ", ".join(f"{name} **{part['bleu']:.1f}**" for name, part in scores.items())
        lines.append(f"BLEU on {source} text, by what was trained on: {shown}; {_register_verdict(source, scores)}")
    return "\n\n".join(lines)


def _register_verdict(source: str, scores: dict[str, dict]) -> str:
    others = [part for name, part in scores.items() if name not in (source, "merged")]
    if source not in scores or not others:
        return "not every register is trained yet."
    if all(scores[source]["bleu_ci95"][0] > other["bleu_ci95"][1] for other in others):
        return "its own register's interval lies above the other's: the register of the training text matters."
    return "its own register's interval does not lie above the other's."
