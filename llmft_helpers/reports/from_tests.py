"""What notebook 05 says: sampled answers, what passes of them, and what training on these was worth.

`rounds`, `kept`, `p_values` and `other_texts` are what its metrics.json holds.
"""

import pandas

from ..profiles import FromTestsSettings
from .sentences import code_verdict, points
from .tables import ARM_NAMES, counted, holm, p_text, with_interval

ARMS = ("base", "references", "own", "both")
EQUAL = "the same number"
ANSWERED_BY = {"references": "the model tuned on references", "base": "the untuned base"}


def arms(metrics: dict) -> list[str]:
    """Those that were scored; nothing is trained on own answers where none passed."""
    return [arm for arm in ARMS if arm in metrics]


def settings(profile) -> pandas.DataFrame:
    asked = profile.from_tests
    chosen = {
        "training problems asked": asked.problems or "all",
        "answered by": ANSWERED_BY[asked.answered_by],
        "answers to each": asked.samples,
        "temperature, top-p": f"{asked.temperature}, {asked.top_p}",
        "kept of a problem at most": asked.kept,
        "rounds": asked.rounds,
        "learning rate": profile.leetcode.train.learning_rate,
        "seed": profile.seed,
    }
    return pandas.Series(chosen).to_frame("value")


def rounds_table(rounds: list[dict]) -> pandas.DataFrame:
    """A row a round of sampling."""
    rows = {
        f"round {number}": {
            "problems": scores["problems"],
            "answers to each": scores["samples"],
            "pass@1": with_interval(scores, "pass_at_1"),
            f"pass@{scores['samples']}": with_interval(scores, "pass_at_k"),
            "solved at least once": scores["solved_problems"],
            "different answers": f"{scores['different_rate']:.0%}",
        }
        for number, scores in enumerate(rounds, 1)
    }
    return pandas.DataFrame.from_dict(rows, orient="index")


def sampling(scores: dict) -> str:
    """What one round of sampling found."""
    every, count = scores["problems"] * scores["samples"], scores["samples"]
    others = ", ".join(f"{n} {verdict}" for verdict, n in scores["verdicts"].items() if verdict != "passed")
    others = f" ({others})" if others else ""
    text = f"Of {every:,} answers to {scores['problems']} training problems **{scores['passed']}** passed every test"
    if not scores["passed"]:
        return f"{text}{others}: in this round there is nothing to learn from."
    return (
        f"{text}{others}. pass@1 is **{with_interval(scores, 'pass_at_1')}**, pass@{count} "
        f"**{with_interval(scores, 'pass_at_k')}**: {counted(scores['solved_problems'], 'problem is', 'problems are')} "
        f"solved at least once in {count} answers. If equal answers to one problem are counted once, "
        f"{scores['different_rate']:.0%} of the answers are left."
    )


def kept(counts: dict[str, int], asked: FromTestsSettings) -> str:
    """What is trained on: problems with an own answer each, and how many of these are the reference."""
    if not counts["answers"]:
        return (
            "**No answer was kept, so that there is nothing to train on:** none passed, or none that an end token "
            "ended and that holds what was asked for alone. What follows shows the models that were there before. A "
            "larger model, easier problems or more answers a problem would be needed."
        )
    by_base_alone = asked.answered_by == "base" and asked.rounds == 1
    why = (
        "the base, which was not shown it, came to the same"
        if by_base_alone
        else "a model that was tuned on it may remember it, and learns nothing new from it"
    )
    known = (
        f"The reference solution as it stands: **{counts['as_reference']}** of them; {why}."
        if counts["as_reference"]
        else "None of them is the reference solution as it stands."
    )
    return (
        f"Kept: **{counted(counts['answers'], 'passing answer', 'passing answers')}** to "
        f"**{counted(counts['problems'], 'problem', 'problems')}**, at most {asked.kept} to each, no two with the same "
        f"syntax tree; left out are those that no end token ended or that hold more than was asked for. {known}"
    )


def training(trained: dict[str, dict]) -> str:
    """Each arm's loss on what was watched instead of trained on."""
    if not trained:
        return "No answer was kept, nothing was trained."
    return "\n".join(_trained(arm, of) for arm, of in trained.items())


def _trained(arm: str, trained: dict) -> str:
    losses = {entry["step"]: entry["validation_loss"] for entry in trained["history"] if "validation_loss" in entry}
    first, kept, last = min(losses), trained["kept_step"], max(losses)
    problems = trained["watched_problems"]
    watched = (
        f"the watched answers to {counted(problems, 'problem', 'problems')}"
        if problems
        else "references of the validation problems, as too few problems have an answer that is kept"
    )
    left_out = trained["rows_too_long"]
    return (
        f"- {ARM_NAMES[arm]}: {counted(trained['steps'], 'step', 'steps')} in {trained['seconds']:.0f} s. Loss on "
        f"{watched}: {losses[first]:.2f} at step {first} and {losses[last]:.2f} at step {last}, the last; kept are the "
        f"weights of step {kept} (**{losses[kept]:.2f}**)."
        + (f" Longer than `max_length` and left out: {counted(left_out, 'answer', 'answers')}." if left_out else "")
    )


def comparison(metrics: dict) -> str:
    """Problems solved and tests passed by each new arm, against those that were there before."""
    if not metrics["p_values"]:
        return "No answer was kept, nothing was trained: there is no new model to compare."
    lines = [_compared(metrics, arm, p_values) for arm, p_values in adjusted(metrics["p_values"]).items()]
    return "\n".join([*lines, "", "By McNemar's test; p is adjusted for the number of new models (Holm)."])


def adjusted(p_values: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """McNemar's p of each new arm against each earlier one, adjusted for the number of new arms (Holm)."""
    return {
        arm: {other: holm([p[other] for p in p_values.values()])[place] for other in by_other}
        for place, (arm, by_other) in enumerate(p_values.items())
    }


def _compared(metrics: dict, arm: str, p_values: dict[str, float]) -> str:
    new, references = metrics[arm], metrics["references"]

    def against(before: str) -> str:
        gained, p = new["pass_at_1"] - metrics[before]["pass_at_1"], p_values[before]
        return (
            f"{ARM_NAMES[before]} {metrics[before]['pass_at_1']:.1%} ({points(gained)}; {p_text(p)}): "
            f"{code_verdict(gained, p, EQUAL)}"
        )

    return (
        f"- {ARM_NAMES[arm]}: **{new['pass_at_1']:.1%}** of the unseen problems solved; {against('references')}; "
        f"{against('base')}. Against {ARM_NAMES['references']}, tests passed {references['tests_passed_rate']:.1%} → "
        f"{new['tests_passed_rate']:.1%}, code only {references['code_only_rate']:.0%} → {new['code_only_rate']:.0%}."
    )


def warm_up(metrics: dict) -> str:
    """Problems of the easiest tier solved, by arm."""
    solved = {arm: metrics[arm]["per_difficulty"].get("Warm-up") for arm in arms(metrics)}
    if not all(solved.values()):
        return "No test problem is of the tier Warm-up."
    p_values = adjusted(metrics["warm_up_p_values"])
    shown = ", ".join(f"{ARM_NAMES[arm]} {with_interval(part, 'pass_at_1')}" for arm, part in solved.items())
    tests = "; ".join(
        f"{ARM_NAMES[arm]} " + ", ".join(f"against {ARM_NAMES[other]} {p_text(p)}" for other, p in by_other.items())
        for arm, by_other in p_values.items()
    )
    tests = f" McNemar, adjusted for the number of new models: {tests}." if tests else ""
    return f"Of {solved['base']['problems']} unseen Warm-up problems solved: {shown}.{tests}"


def forgotten(other_texts: dict[str, dict[str, float]]) -> str:
    """Change of bits per byte against the base on text that no arm was trained on, by arm."""
    base = other_texts["base"]
    changes = {
        arm: {kind: bits / base[kind] - 1 for kind, bits in row.items() if kind != "solutions"}
        for arm, row in other_texts.items()
        if arm != "base"
    }
    lines = [
        f"- {ARM_NAMES[arm]}: " + ", ".join(f"{kind} {change:+.1%}" for kind, change in row.items())
        for arm, row in changes.items()
    ]
    if "own" in changes:
        less = sum(abs(changes["own"][kind]) < abs(change) for kind, change in changes["references"].items())
        lines.append(
            "- Training on own answers is said to forget less: it changes less than training on references on "
            f"**{less}** of {len(changes['own'])} kinds of text."
        )
    return "\n".join(lines)


def lessons(metrics: dict, seconds: dict[str, float]) -> str:
    """The last words."""
    first, last = metrics["rounds"][0], metrics["rounds"][-1]
    lines = [
        f"- Sampling {first['samples']} answers solves {first['pass_at_k']:.1%} of the training problems where one "
        f"answer solves {first['pass_at_1']:.1%}.",
    ]
    if len(metrics["rounds"]) > 1:
        lines.append(
            f"- From the first round to the last pass@1 on the training problems went from {first['pass_at_1']:.1%} to "
            f"{last['pass_at_1']:.1%}; that is no measure of unseen ones."
        )
    if metrics["p_values"]:
        lines.append(_unseen(metrics))
    else:
        lines.append("- No answer was kept: a model cannot learn from solutions that it does not find.")
    took = f"{sum(seconds.values()) / 60:.1f} minutes"
    lines.append(f"- The timed stages of this run took {took}; what an earlier run had finished is not in them.")
    return "\n".join(lines)


def _unseen(metrics: dict) -> str:
    """Each new model against references."""
    before = metrics["references"]["pass_at_1"]

    def of(arm: str, p: float) -> str:
        share = metrics[arm]["pass_at_1"]
        return f"{ARM_NAMES[arm]} **{share:.1%}** ({p_text(p)}: {code_verdict(share - before, p, EQUAL)})"

    new = "; ".join(of(arm, p["references"]) for arm, p in adjusted(metrics["p_values"]).items())
    return (
        f"- Of the unseen problems the untuned base solves {metrics['base']['pass_at_1']:.1%} and the model tuned on "
        f"references {before:.1%}. Against the latter: {new}."
    )
