"""What notebooks 02 and 03 say of a run, as Markdown: each function makes one statement of the numbers it is given.

`metrics` is what metrics.json holds, an arm's part of it is named after the arm.
"""

from collections import Counter

from ..profiles import LoraSettings
from .tables import SIGNIFICANT, p_text


def translation_rows(rows: dict[str, int], unused: int) -> str:
    """How many pairs each split has; `unused`: rows that the profile leaves out."""
    text = f"We train on **{rows['train']:,}** pairs, watch the loss on {rows['validation']:,} and test on "
    text += f"**{rows['test']:,}**."
    if unused:
        text += ' "Not used" rows are left out by the row count, weights, limits or published split of the profile.'
    return text


def problem_rows(rows: dict[str, int], left_out: list[dict], newer: int = 0, cutoff: str | None = None) -> str:
    """How many problems each split has; `newer` of them appeared after the model's `cutoff`."""
    lines = [f"left out: `{one['task_id']}`: {one['detail']}\n\n" for one in left_out]
    text = (
        f"**{rows['train']}** problems to train on, {rows['validation']} to watch, **{rows['test']}** to test; their "
    )
    text += f"references pass all their tests; {len(left_out)} were left out because theirs do not."
    if cutoff:
        text += f" {newer} test problems are newer than the model ({cutoff})."
    return "".join(lines) + text


def model_loaded(share_in_4bit: float, lora: LoraSettings, trainable: int, every: int) -> str:
    """What is rounded, and how many of all parameters learn."""
    return (
        f"In 4 bits: **{share_in_4bit:.1%}** of the base's weights between embedding and head. LoRA of rank "
        f"{lora.rank} beside {', '.join(lora.target_modules)}. Trainable: **{trainable:,}** of {every:,} parameters "
        f"({trainable / every:.1%})."
    )


def special_tokens(end: str, pad: str) -> str:
    return f"End token `{end}`, pad token `{pad}`: they differ, so the end token is learned and not masked."


def untuned_translation(base: dict, few_shot: dict) -> str:
    helped = "help" if few_shot["bleu"] > base["bleu"] else "do not help"
    language = [arm["answer_language"]["target"] for arm in (base, few_shot)]
    return (
        f"Before training: BLEU **{base['bleu']:.1f}** zero-shot and **{few_shot['bleu']:.1f}** few-shot (shown "
        f"examples {helped}), perplexity {base['perplexity']:.1f} and {few_shot['perplexity']:.1f}; answers in the "
        f"target language {language[0]:.0%} and {language[1]:.0%}."
    )


def untuned_code(base: dict, few_shot: dict, shots: int) -> str:
    return (
        f"Before training: **{base['code_only_rate']:.0%}** of the answers are code only, "
        f"{few_shot['code_only_rate']:.0%} after {shots} solved in the prompt; tests passed "
        f"**{base['tests_passed_rate']:.1%}** and {few_shot['tests_passed_rate']:.1%}."
    )


def training(trained: dict, max_length: int) -> str:
    """Steps, speed, and the validation loss from its first check to the adapter that is kept."""
    losses = {entry["step"]: entry["validation_loss"] for entry in trained["history"] if "validation_loss" in entry}
    first, kept, last = min(losses), trained["kept_step"], trained["steps"]
    resumed = f", going on from step {trained['resumed_from']} of an interrupted run" if trained["resumed_from"] else ""
    end = "the last one, whose adapter is kept."
    if kept != last:
        end = f"and to {losses[last]:.2f} at step {last}: the adapter of step {kept} is kept."
    return (
        f"{last} steps in {trained['seconds']:.0f} s{resumed}, {trained['tokens_per_second']:.0f} real tokens a "
        f"second. The validation loss went from {losses[first]:.2f} at the first check to **{losses[kept]:.2f}** at "
        f"step {kept}, {end} Left out: {trained['rows_too_long']} training rows of more than {max_length} tokens."
        f"{_scores_on_the_way(trained)}"
    )


def _scores_on_the_way(trained: dict) -> str:
    """From the first check to the last, and what looking took."""
    bleu = [entry["bleu"] for entry in trained["history"] if "bleu" in entry]
    passed = [entry["tests_passed"] for entry in trained["history"] if "tests_passed" in entry]
    if not bleu and not passed:
        return ""
    way = f"BLEU {bleu[0]:.1f}, then {bleu[-1]:.1f}" if bleu else f"{passed[0]:.1%} of tests, then {passed[-1]:.1%}"
    share = sum(look["seconds"] for look in trained["samples"]) / trained["seconds"]
    return f" The validation rows that were answered at the checks: {way}; answering took {share:.1%} of the time."


def bleu_change(metrics: dict, shots: int) -> str:
    """Tuned against base and against the base that was shown examples, with p-values and BLEU's signature."""
    base, few_shot, tuned = metrics["base"], metrics["base_few_shot"], metrics["tuned"]
    p_few = metrics["bleu_p_value_few_shot"]
    judged = "more than chance explains" if p_few < SIGNIFICANT else "within what chance explains"
    text = (
        f"Fine-tuning moved BLEU from {base['bleu']:.1f} to **{tuned['bleu']:.1f}** "
        f"({tuned['bleu'] - base['bleu']:+.1f}; paired bootstrap {p_text(metrics['bleu_p_value'])}, approximate "
        f"randomisation {p_text(metrics['bleu_p_value_ar'])}). Against the base that was shown {shots} examples it is "
        f"{tuned['bleu'] - few_shot['bleu']:+.1f} ({p_text(p_few)}): {judged}. Perplexity went from "
        f"{base['perplexity']:.1f} to {tuned['perplexity']:.1f}, and the tuned model ends its answers by itself in "
        f"{tuned['eos_rate']:.0%} of the cases.\n\nSignature: `{tuned['bleu_signature']}`"
    )
    if "tuned_en_es" in metrics:
        text += f"\n\nEnglish to Spanish, which it learned as well: BLEU **{metrics['tuned_en_es']['bleu']:.1f}**."
    return text


def not_shown(rows: list[dict], shown: list[dict]) -> str:
    """How many rows are scored and not shown."""
    if len(rows) == len(shown):
        return "Every answer may be shown."
    hidden = len(rows) - len(shown)
    return f"{hidden} of {len(rows)} rows hold a slur or a curse in some arm's answer: scored, but not shown here."


def chrf_higher(predictions: list[dict]) -> str:
    """On how many rows the tuned answer is nearer to the reference than the base's."""

    def share(arm: str) -> float:
        return sum(row["tuned"]["chrf"] > row[arm]["chrf"] for row in predictions) / len(predictions)

    return (
        f"chrF is higher after tuning on **{share('base'):.0%}** of the test sentences against zero-shot and on "
        f"**{share('base_few_shot'):.0%}** against few-shot. Higher is not yet right: read the middle of the table."
    )


def code_verdict(difference: float, p: float, equal: str = "base and tuned solve equally many") -> str:
    """What a difference in the share of solved problems is worth."""
    if difference == 0:
        return equal
    if p >= SIGNIFICANT:
        return "a difference within what chance explains"
    return f"a {'gain' if difference > 0 else 'loss'} beyond what chance explains"


def points(difference: float) -> str:
    """A difference of two shares."""
    return f"{100 * difference:+.1f} points"


def code_change(metrics: dict) -> str:
    """Form, problems solved and tests passed, tuned against base."""
    base, few_shot, tuned = metrics["base"], metrics["base_few_shot"], metrics["tuned"]
    solves, p, constant = (
        tuned["pass_at_1"] - base["pass_at_1"],
        metrics["pass_p_value"],
        metrics["best_constant_share"],
    )
    form = tuned["code_only_rate"] - base["code_only_rate"]
    low, high = tuned["tests_passed_ci95"]
    lucky = "" if constant is None else f"; the luckiest constant of each problem would pass {constant:.1%}"
    return (
        f"Answers that are code and nothing else went from {base['code_only_rate']:.0%} to "
        f"**{tuned['code_only_rate']:.0%}** ({points(form)}). Problems solved "
        f"went from {base['pass_at_1']:.1%} to **{tuned['pass_at_1']:.1%}** ({points(solves)}; McNemar {p_text(p)}): "
        f"{code_verdict(solves, p)}. Tests passed went from {base['tests_passed_rate']:.1%} to "
        f"{tuned['tests_passed_rate']:.1%} (95%: {low:.1%} to {high:.1%}; few-shot base: "
        f"{few_shot['tests_passed_rate']:.1%}){lucky}."
    )


def verdicts(counts: dict[str, int]) -> str:
    """Counts of verdicts, solved first: "3 solved, 10 with a wrong value, 7 error"."""
    others = [f"{count} {verdict}" for verdict, count in counts.items() if verdict not in ("passed", "wrong")]
    return ", ".join([f"{counts.get('passed', 0)} solved", f"{counts.get('wrong', 0)} with a wrong value", *others])


def failures(answers: dict[str, list[dict]], shots: int) -> str:
    """How answers fail, by arm: before anything runs, or while it runs."""
    never = {arm: sum(not a["defines_entry_point"] for a in some) / len(some) for arm, some in answers.items()}
    tuned = answers["tuned"]
    counts = {arm: Counter(a["verdict"] for a in some) for arm, some in answers.items()}
    broke = sum(a["verdict"] == "error" and a["defines_entry_point"] for a in tuned)
    while_running = f"; {broke} of the errors came while the method ran" if counts["tuned"]["error"] else ""
    return (
        f"No method to call in **{never['base']:.0%}** of the base's answers, {never['base_few_shot']:.0%} with "
        f"{shots} solved in the prompt and **{never['tuned']:.0%}** after tuning. Of {len(tuned)} tuned answers: "
        f"{verdicts(counts['tuned'])}{while_running}. Of the base's: "
        f"{verdicts(counts['base'])}."
    )


def reloaded(before: dict, after: dict, same: int, rows: int) -> str:
    """The model in memory and the one that was saved and loaded again, on the same rows."""
    bleu = f"BLEU {before['bleu']:.2f} and {after['bleu']:.2f}"
    if "pass_at_1" in before:
        bleu = f"problems solved {before['pass_at_1']:.1%} and {after['pass_at_1']:.1%}"
    return (
        f"Perplexity {before['perplexity']:.4f} before and {after['perplexity']:.4f} after reloading; {bleu}; {same} "
        f"of {rows} answers are the same to the letter."
    )


def translation_lessons(metrics: dict, shots: int, seconds: dict[str, float]) -> str:
    base, few_shot, tuned = metrics["base"], metrics["base_few_shot"], metrics["tuned"]
    lines = [
        f"- Showing {shots} examples is worth {few_shot['bleu'] - base['bleu']:+.1f} BLEU, training on "
        f"{metrics['rows']['train']:,} pairs {tuned['bleu'] - base['bleu']:+.1f}.",
        f"- The tuned model restates its source in {tuned['prompt_echo_rate']:.0%} of the answers (zero-shot base: "
        f"{base['prompt_echo_rate']:.0%}).",
    ]
    for name, part in tuned["per_source"].items():
        low, high = part["bleu_ci95"]
        lines.append(f"- {name}: BLEU {part['bleu']:.1f} on {part['rows']} rows (95%: {low:.1f} to {high:.1f}).")
    return "\n".join([*lines, _time(seconds)])


def code_lessons(metrics: dict, shots: int, seconds: dict[str, float]) -> str:
    base, few_shot, tuned = metrics["base"], metrics["base_few_shot"], metrics["tuned"]
    problems = metrics["rows"]["test"]
    solved = [round(arm["pass_at_1"] * problems) for arm in (tuned, base, few_shot)]
    lines = [
        f"- Form: {tuned['type_hints_rate']:.0%} of the tuned answers are typed, {tuned['parses_rate']:.0%} parse, "
        f"{tuned['prompt_echo_rate']:.0%} restate their prompt (base: {base['type_hints_rate']:.0%}, "
        f"{base['parses_rate']:.0%}, {base['prompt_echo_rate']:.0%}).",
        f"- Work: {solved[0]} of {problems} problems solved, {solved[1]} before and {solved[2]} with {shots} solved in "
        "the prompt.",
        f"- BLEU says {base['bleu']:.1f} to {tuned['bleu']:.1f}: it rewards looking like the reference.",
        _time(seconds),
    ]
    return "\n".join(lines)


def _time(seconds: dict[str, float]) -> str:
    stages = ", ".join(f"{name} {spent:.0f} s" for name, spent in seconds.items())
    return f"- The timed stages took {sum(seconds.values()) / 60:.1f} minutes: {stages}."
