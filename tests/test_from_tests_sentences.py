"""Sentences of notebook 05: every branch says what its numbers mean."""

from dataclasses import replace

import pytest

from llmft_helpers.profiles import FromTestsSettings, load_profile
from llmft_helpers.reports import from_tests, tables

TIER = {"problems": 40, "pass_at_1": 0.05, "pass_at_1_ci95": [0.01, 0.17]}
ARM = {"pass_at_1": 0.025, "tests_passed_rate": 0.1, "code_only_rate": 0.95, "per_difficulty": {"Warm-up": TIER}}
ROUND = {
    "problems": 20, "samples": 8, "passed": 4, "solved_problems": 3, "different_rate": 0.75,
    "verdicts": {"wrong": 91, "error": 65, "passed": 4}, "pass_at_1": 0.025, "pass_at_1_ci95": [0.0, 0.05],
    "pass_at_k": 0.15, "pass_at_k_ci95": [0.0, 0.3],
}  # fmt: skip
NOTHING = ROUND | {"passed": 0, "solved_problems": 0, "verdicts": {"wrong": 160}, "pass_at_1": 0.0, "pass_at_k": 0.0}


def metrics(p=0.03, rounds=(ROUND,), **both):
    arms = {"base": ARM, "references": ARM, "both": ARM | {"pass_at_1": 0.1} | both, "own": ARM}
    p_values = {"both": {"base": 0.01, "references": p}, "own": {"base": 1.0, "references": 1.0}}
    of_warm_up = {"both": {"base": 0.04, "references": 0.3}, "own": {"base": 1.0, "references": 0.5}}
    return arms | {"p_values": p_values, "warm_up_p_values": of_warm_up, "rounds": list(rounds)}


def untrained():
    return {"base": ARM, "references": ARM, "p_values": {}, "rounds": [NOTHING]}


def test_what_sampling_found():
    text = from_tests.sampling(ROUND)
    assert "Of 160 answers to 20 training problems **4** passed every test (91 wrong, 65 error)" in text
    assert "pass@1 is **2.5% (0.0 to 5.0%)**, pass@8 **15.0% (0.0 to 30.0%)**: 3 problems are solved" in text
    assert text.endswith("If equal answers to one problem are counted once, 75% of the answers are left.")
    assert "1 problem is solved at least once" in from_tests.sampling(ROUND | {"solved_problems": 1})
    assert from_tests.sampling(NOTHING).endswith(
        "**0** passed every test (160 wrong): in this round there is nothing to learn from."
    )
    all_pass = ROUND | {"passed": 160, "verdicts": {"passed": 160}}
    assert "**160** passed every test. pass@1" in from_tests.sampling(all_pass)
    table = from_tests.rounds_table([ROUND, NOTHING])
    assert list(table.index) == ["round 1", "round 2"] and table.loc["round 1", "pass@8"] == "15.0% (0.0 to 30.0%)"


def test_what_is_kept_or_that_nothing_is():
    counts = {"answers": 3, "problems": 2, "as_reference": 1}
    asked = FromTestsSettings(kept=2)
    text = from_tests.kept(counts, asked)
    assert text.startswith("Kept: **3 passing answers** to **2 problems**, at most 2 to each")
    assert "The reference solution as it stands: **1** of them; a model that was tuned on it may remember it" in text
    by_base = replace(asked, answered_by="base")
    assert "**1** of them; the base, which was not shown it, came to the same." in from_tests.kept(counts, by_base)
    assert "tuned on it may remember" in from_tests.kept(counts, replace(by_base, rounds=2))
    assert "**1 passing answer** to **1 problem**" in from_tests.kept(counts | {"answers": 1, "problems": 1}, asked)
    assert from_tests.kept(counts | {"as_reference": 0}, asked).endswith(
        "None of them is the reference solution as it stands."
    )
    assert "No answer was kept, so that there is nothing to train on" in from_tests.kept(counts | {"answers": 0}, asked)


def test_what_the_watched_answers_say_of_training():
    history = [{"step": 3, "validation_loss": 0.5}, {"step": 6, "loss": 0.1}, {"step": 9, "validation_loss": 0.75}]
    trained = {"history": history, "steps": 9, "kept_step": 3, "seconds": 40.6, "watched_problems": 5}
    trained["rows_too_long"] = 0
    assert from_tests.training({"both": trained}) == (
        "- on both: 9 steps in 41 s. Loss on the watched answers to 5 problems: 0.50 at step 3 and 0.75 at step 9, the "
        "last; kept are the weights of step 3 (**0.50**)."
    )
    few = from_tests.training({"own": trained | {"watched_problems": 0, "rows_too_long": 2}})
    assert "Loss on references of the validation problems, as too few problems have an answer that is kept: 0.50" in few
    assert few.endswith(" Longer than `max_length` and left out: 2 answers.")
    assert from_tests.training({}) == "No answer was kept, nothing was trained."


def test_the_new_models_against_those_before():
    both, own, _, how = from_tests.comparison(metrics(p=0.02)).splitlines()
    assert both.startswith(
        "- on both: **10.0%** of the unseen problems solved; tuned on references 2.5% (+7.5 points; p = 0.04): "
        "a gain beyond what chance explains; base 2.5% (+7.5 points; p = 0.02): a gain beyond"
    )
    assert how == "By McNemar's test; p is adjusted for the number of new models (Holm)."
    assert own.count("the same number") == 2
    assert "within what chance explains" in from_tests.comparison(metrics(p=0.5))
    assert "within what chance explains" in from_tests.comparison(metrics(p=0.03))  # 0.06 of two
    assert "(-2.5 points; p = 0.02): a loss beyond what" in from_tests.comparison(metrics(p=0.01, pass_at_1=0.0))
    assert "there is no new model to compare" in from_tests.comparison(untrained())
    assert from_tests.arms(metrics()) == ["base", "references", "own", "both"]
    assert from_tests.arms(untrained()) == ["base", "references"]


def test_problems_of_a_tier():
    text = from_tests.warm_up(metrics())
    assert text.startswith("Of 40 unseen Warm-up problems solved: base 5.0% (1.0 to 17.0%), tuned on references 5.0%")
    assert "McNemar, adjusted for the number of new models: on both against base p = 0.08, against tuned on" in text
    assert text.endswith("on own answers against base p = 1, against tuned on references p = 0.6.")
    assert "McNemar" not in from_tests.warm_up(untrained() | {"warm_up_p_values": {}})
    assert from_tests.warm_up(metrics(per_difficulty={})) == "No test problem is of the tier Warm-up."


def test_what_was_forgotten():
    bits = {"base": {"English": 1.0, "solutions": 2.0}, "references": {"English": 1.1, "solutions": 1.0}}
    assert from_tests.forgotten(bits) == "- tuned on references: English +10.0%"
    text = from_tests.forgotten(bits | {"own": {"English": 1.05, "solutions": 1.5}})
    assert (
        "- on own answers: English +5.0%" in text
        and "changes less than training on references on **1** of 1 kinds of text" in text
    )
    better = {"base": {"English": 1.0}, "references": {"English": 0.8}, "own": {"English": 0.95}}
    assert "on **1** of 1 kinds" in from_tests.forgotten(better)  # a gain elsewhere is a change too


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.02, "(p = 0.04: a gain beyond what chance explains)"),
        (0.03, "(p = 0.06: a difference within what chance explains)"),  # of two new models
    ],
)
def test_last_words(p, words):
    text = from_tests.lessons(metrics(p=p, rounds=(ROUND, ROUND | {"pass_at_1": 0.05})), {"data": 60.0})
    assert "8 answers solves 15.0% of the training problems where one answer solves 2.5%" in text
    assert "from 2.5% to 5.0%" in text
    assert "the untuned base solves 2.5% and the model tuned on references 2.5%." in text
    assert f"on both **10.0%** {words}; on own answers **2.5%** (p = 1: the same number)." in text
    assert "took 1.0 minutes" in text
    none = from_tests.lessons(untrained(), {"data": 60.0})
    assert "No answer was kept: a model cannot learn" in none and "first round" not in none


def test_settings_and_names():
    shown = from_tests.settings(load_profile("demo"))["value"]
    assert shown["training problems asked"] == 96 and shown["temperature, top-p"] == "0.8, 0.95"
    assert shown["answered by"] == "the model tuned on references"
    assert from_tests.settings(load_profile("coder"))["value"]["answered by"] == "the untuned base"
    assert set(from_tests.ARMS) <= set(tables.ARM_NAMES)
