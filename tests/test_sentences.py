"""Sentences about runs: every branch says what its numbers mean."""

import pandas
import pytest

from llmft_helpers.profiles import LoraSettings
from llmft_helpers.reports import comparisons, failures_table, selection, sentences, shown

ARM = {"bleu": 10.0, "bleu_01": 0.1, "bleu_ci95": [8.0, 12.0], "chrf": 30.0, "perplexity": 9.0, "eos_rate": 0.5,
       "prompt_echo_rate": 0.25, "answer_language": {"target": 0.5}, "bleu_signature": "nrefs:1"}  # fmt: skip
CODE = {"code_only_rate": 0.5, "tests_passed_rate": 0.1, "tests_passed_ci95": [0.05, 0.2], "pass_at_1": 0.0,
        "type_hints_rate": 0.5, "parses_rate": 0.75, "prompt_echo_rate": 0.25, "bleu": 10.0,
        "perplexity": 3.0}  # fmt: skip


def translation(few_p=0.01, **tuned):
    parts = {"everyday": {"bleu": 20.0, "bleu_ci95": [15.0, 25.0], "rows": 7}}
    arms = {"base": ARM, "base_few_shot": ARM | {"bleu": 15.0}, "tuned": ARM | {"bleu": 30.0} | tuned}
    return {name: arm | {"per_source": parts} for name, arm in arms.items()} | {
        "bleu_p_value": 0.001, "bleu_p_value_ar": 0.002, "bleu_p_value_few_shot": few_p,
        "rows": {"train": 2900, "test": 120},
    }  # fmt: skip


def leetcode(**tuned):
    level = {"Easy": {"pass_at_1": 0.25, "problems": 8}}
    arms = {"base": CODE, "base_few_shot": CODE | {"pass_at_1": 0.05}, "tuned": CODE | {"code_only_rate": 1.0} | tuned}
    return {name: arm | {"per_difficulty": level} for name, arm in arms.items()} | {
        "pass_p_value": 0.03, "best_constant_share": 0.2, "rows": {"train": 268, "test": 40},
    }  # fmt: skip


def trained(**changes):
    history = [{"step": 1, "loss": 3.0}, {"step": 5, "validation_loss": 2.0}, {"step": 10, "validation_loss": 1.5}]
    facts = {"steps": 10, "kept_step": 10, "resumed_from": 0, "seconds": 60.0, "tokens_per_second": 400.0}
    return {"history": history, "rows_too_long": 3} | facts | changes


def test_rows_left_out_are_explained_where_there_are_any():
    rows = {"train": 2900, "validation": 100, "test": 120}
    assert sentences.translation_rows(rows, 0) == (
        "We train on **2,900** pairs, watch the loss on 100 and test on **120**."
    )
    assert sentences.translation_rows(rows, 5).endswith("published split of the profile.")


def test_problems_left_out_are_named_and_the_cutoff_only_where_it_is_known():
    rows = {"train": 9, "validation": 2, "test": 4}
    assert "newer" not in sentences.problem_rows(rows, [])
    text = sentences.problem_rows(rows, [{"task_id": "two-sum", "detail": "no numpy"}], 3, "2023-12-31")
    assert text.startswith("left out: `two-sum`: no numpy") and "1 were left out" in text
    assert text.endswith(" 3 test problems are newer than the model (2023-12-31).")


def test_a_loaded_model_is_described_by_its_shares():
    text = sentences.model_loaded(0.93, LoraSettings(rank=8, alpha=8, target_modules=("q_proj", "v_proj")), 25, 1000)
    assert (
        "**93.0%**" in text and "rank 8 beside q_proj, v_proj" in text and "**25** of 1,000 parameters (2.5%)" in text
    )
    assert sentences.special_tokens("</s>", "<pad>").startswith("End token `</s>`, pad token `<pad>`")


@pytest.mark.parametrize(("few", "words"), [(15.0, "examples help)"), (5.0, "examples do not help)")])
def test_shown_examples_help_or_not(few, words):
    assert words in sentences.untuned_translation(ARM, ARM | {"bleu": few})


def test_untuned_code_names_form_and_tests():
    text = sentences.untuned_code(CODE, CODE | {"code_only_rate": 0.75}, 2)
    assert "**50%** of the answers are code only, 75% after 2 solved" in text and "**10.0%** and 10.0%" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "to **1.50** at step 10, the last one, whose adapter is kept. Left out: 3 training rows of more than 512"),
     ({"kept_step": 5}, "to **2.00** at step 5, and to 1.50 at step 10: the adapter of step 5 is kept."),
     ({"resumed_from": 4}, "10 steps in 60 s, going on from step 4 of an interrupted run, 400 real tokens")],
)  # fmt: skip
def test_training_says_which_adapter_is_kept_and_where_it_went_on(changes, words):
    assert words in sentences.training(trained(**changes), 512)


@pytest.mark.parametrize(
    ("name", "scores", "words"),
    [("bleu", (20.04, 31.26), "BLEU 20.0, then 31.3"), ("tests_passed", (0.1, 0.125), "10.0% of tests, then 12.5%")],
)
def test_training_says_how_the_answers_became_better_and_what_asking_took(name, scores, words):
    looks = [{"step": 5, "samples": [], "seconds": 1.0}, {"step": 10, "samples": [], "seconds": 2.0}]
    run = trained(samples=looks)
    run["history"] += [{"step": 5, name: scores[0]}, {"step": 10, name: scores[1]}]
    expected = f" The validation rows that were answered at the checks: {words}; answering took 5.0% of the time."
    assert sentences.training(run, 512).endswith(expected)


@pytest.mark.parametrize(("p", "words"), [(0.01, "more than chance explains"), (0.2, "within what chance explains")])
def test_bleu_change_against_either_base(p, words):
    text = sentences.bleu_change(translation(few_p=p), 3)
    assert "from 10.0 to **30.0** (+20.0; paired bootstrap p ≤ 0.001" in text and f"is +15.0 (p = {p}): {words}" in text
    assert "English to Spanish" not in text
    both = sentences.bleu_change(translation() | {"tuned_en_es": {"bleu": 12.34}}, 3)
    assert both.endswith("English to Spanish, which it learned as well: BLEU **12.3**.")


def test_chrf_is_compared_row_by_row():
    rows = [{"base": {"chrf": 1}, "base_few_shot": {"chrf": 9}, "tuned": {"chrf": chrf}} for chrf in (0, 5, 5, 10)]
    assert "**75%** of the test sentences" in sentences.chrf_higher(rows)
    assert "**25%** against few-shot" in sentences.chrf_higher(rows)


@pytest.mark.parametrize(
    ("difference", "p", "says"),
    [(0.0, 1.0, "base and tuned solve equally many"), (0.1, 0.2, "a difference within what chance explains"),
     (0.1, 0.01, "a gain beyond what chance explains"), (-0.1, 0.01, "a loss beyond what chance explains")],
)  # fmt: skip
def test_verdict_on_problems_solved(difference, p, says):
    assert sentences.code_verdict(difference, p) == says


def test_code_change_mentions_the_luckiest_constant_where_it_can_be_counted():
    assert "would pass 20.0%" in sentences.code_change(leetcode())
    text = sentences.code_change(leetcode(pass_at_1=0.1) | {"best_constant_share": None})
    assert "from 50% to **100%** (+50.0 points). Problems solved" in text
    assert "luckiest" not in text and "(+10.0 points; McNemar p = 0.03): a gain beyond what chance" in text


def test_failures_tell_what_never_ran_from_what_broke():
    ran, missing = {"defines_entry_point": True}, {"defines_entry_point": False, "verdict": "error"}
    answers = {"base": [missing] * 4, "base_few_shot": [missing, ran | {"verdict": "wrong"}],
               "tuned": [ran | {"verdict": v} for v in ("passed", "wrong", "error", "timeout")]}  # fmt: skip
    text = sentences.failures(answers, 1)
    assert "**100%** of the base's answers, 50% with 1 solved" in text and "**0%** after tuning" in text
    assert "1 solved, 1 with a wrong value, 1 error, 1 timeout; 1 of the errors came while" in text


def test_reload_names_the_score_of_the_task():
    assert "BLEU 10.00 and 30.00; 20 of 20 answers" in sentences.reloaded(ARM, ARM | {"bleu": 30.0}, 20, 20)
    assert "problems solved 0.0% and 0.0%" in sentences.reloaded(CODE, CODE, 10, 10)


def test_lessons_end_with_the_time():
    text = sentences.translation_lessons(translation(), 3, {"data": 30.0, "training": 90.0})
    assert "worth +5.0 BLEU, training on 2,900 pairs +20.0" in text and "everyday: BLEU 20.0 on 7 rows" in text
    assert text.endswith("took 2.0 minutes: data 30 s, training 90 s.")
    text = sentences.code_lessons(leetcode(pass_at_1=0.1), 1, {"data": 60.0})
    assert "4 of 40 problems solved, 0 before and 2 with 1 solved" in text


def test_headline_and_gains_by_part():
    text = comparisons.headline(translation(), leetcode())
    assert "BLEU 10.0 → **30.0** (few-shot base 15.0)" in text and "solved 0.0% → **0.0%** (few-shot base 5.0%)" in text
    sources = {"everyday": {"rows_out": {"train": 2000}}}
    text = comparisons.gains_by_part(translation(), leetcode(), sources)
    assert text == "Gain in BLEU: everyday **+0.0** (2,000 rows). Problems solved after tuning: Easy 25% of 8."
    unrated = {"tuned": {"per_difficulty": {}}}
    assert comparisons.gains_by_part(translation(), unrated, sources).endswith("No problem says how difficult it is.")


def test_problem_by_problem_counts_arms_and_rows():
    grid = pandas.DataFrame({"base": [0.0, 0.5, 1.0], "base_few_shot": [0.0, 0.0, 0.0], "tuned": [0.0, 1.0, 0.5]})
    assert comparisons.problem_by_problem(grid) == (
        "Solved: base 1, base, few-shot 0, tuned 1. Of 3 problems no arm passes a single test on 1; the tuned model "
        "passes more tests than the base on **1** and fewer on **1**."
    )
    assert comparisons.best_problem("two-sum", "Add.").endswith("is `two-sum`: Add.")


def test_bits_and_changes():
    bits = {"character GPT": {"code": 1.0}, "base": {"code": 2.0}, "leetcode adapter": {"code": 1.5}}
    assert comparisons.fewest_bits(bits, {"code": ["año"]}) == (
        "On 4 bytes, the fewest bits: code **character GPT** (1.00). Untuned base against character GPT: code 2.00 "
        "against 1.00."
    )
    table = pandas.DataFrame({"code": [2.0, 1.0, 4.0], "prose": [1.0, 1.5, 1.0]},
                             index=["base", "translation adapter", "leetcode adapter"])  # fmt: skip
    changes = comparisons.changes_against_base(table)
    assert changes.loc["translation adapter"].to_dict() == {"code": -0.5, "prose": 0.5}
    perplexity = {name: {"solutions": 3.0, "translations": 4.0} for name in table.index}
    text = comparisons.forgotten(changes, perplexity)
    assert "translation adapter: **-50%** bits per byte on code, its best, and **+50%** on prose" in text
    assert "better than the base on 1 of 2 kinds of text" in text and "solutions 3.00 → 3.00" in text
    text = comparisons.loss_elsewhere(
        "leetcode adapter", changes.loc["leetcode adapter"], changes.loc["leetcode adapter"]
    )
    assert "worse than the base on **1** of 2" in text and "code **+100%**, prose **+0%**" in text


def test_tone_is_measured_or_said_not_to_be():
    assert comparisons.tone(None, "ablations.json").startswith("not measured in this profile")
    assert comparisons.tone({"difference": -0.35, "ci95": [-0.47, -0.23]}, "").endswith("-35% (95%: -47% to -23%)")


def test_the_earlier_study_stands_beside_what_was_measured():
    rows = comparisons.earlier_study({"perplexity": 3.2, "bits_per_char": 1.7}, translation(), leetcode(), "a tone")
    assert rows[0]["measured"] == "3.20 a character on our text (1.70 bits)" and rows[-1]["measured"] == "a tone"
    assert "BLEU 0.100 → 0.100 (95%: 0.080 to 0.120)" in rows[1]["measured"] and len(rows) == 5


def test_last_lessons_with_and_without_a_constant():
    elsewhere = {"leetcode adapter": pandas.Series({"prose": 0.5, "Spanish": -0.1})}
    text = comparisons.lessons(translation(), leetcode(), elsewhere)
    assert "worth **+15.0** BLEU" in text and "constants would pass 20.0%" in text
    assert (
        "The leetcode adapter is worse than the base on 1 of 2 other kinds of text (bits a byte -10% to +50%)" in text
    )
    assert "constants" not in comparisons.lessons(translation(), leetcode() | {"best_constant_share": None}, {})


def test_register_findings_wait_for_every_register_and_use_intervals():
    def scores(everyday, formal, width=1.0):
        return {name: {"bleu": bleu, "bleu_ci95": [bleu - width, bleu + width]}
                for name, bleu in (("everyday", everyday), ("formal", formal))}  # fmt: skip

    assert comparisons.register_findings({}) == ""
    assert "not every register is trained yet" in comparisons.register_findings({"everyday only": scores(20, 5)})
    both = {"everyday only": scores(20, 5), "formal only": scores(8, 15), "merged": scores(18, 14)}
    lines = comparisons.register_findings(both).split("\n\n")
    assert lines[0].startswith(
        "BLEU on everyday text, by what was trained on: everyday **20.0**, formal **8.0**, merged"
    )
    assert all("lies above" in line for line in lines)
    both["formal only"] = scores(8, 15, width=11.0)
    assert "does not lie above" in comparisons.register_findings(both).split("\n\n")[0]


def test_rows_to_show():
    rows = [{"base": {"chrf": 0.0}, "tuned": {"chrf": float(chrf)}} for chrf in range(12)]
    ordered = selection.by_gain(rows)
    assert [row["gain"] for row in ordered] == [float(gain) for gain in reversed(range(12))]
    assert [row["gain"] for row in selection.best_middle_worst(ordered, 2)] == [11, 10, 6, 5, 1, 0]
    assert selection.best_middle_worst(ordered[:3], 4) == ordered[:3]
    solved = [{"task_id": i, "tuned": {"passed": passed}} for i, passed in enumerate((False, True, True, False, False))]
    assert [row["task_id"] for row in selection.solved_then_failed(solved, 2)] == [1, 2, 0, 3]


def test_changed_settings_are_named():
    then = {"model": {"name": "a"}, "lora": {"rank": 8}, "translation": {"train": {"batch_size": 4}}}
    now = {"model": {"name": "b"}, "lora": {"rank": 8, "loftq": True}, "translation": {"train": {"batch_size": 8}}}
    assert selection.changed_settings(now, then) == ["model.name", "lora.loftq", "train.batch_size"]
    assert selection.changed_settings(then, then) == []
    said = comparisons.older_settings(["model.name", "lora.loftq"])
    assert said.startswith("Measured before the profile changed its `model.name`, `lora.loftq`: these scores do not")


def test_rows_with_a_slur_are_counted_and_not_shown():
    clean, foul = {"text": "A good day, Scunthorpe."}, {"text": "What a load of SHIT!"}
    rows = [{"id": i, "base": answer, "tuned": clean} for i, answer in enumerate((clean, foul))]
    assert [row["id"] for row in shown(rows)] == [0]
    assert sentences.not_shown(rows, rows[:1]).startswith("1 of 2 rows hold")
    assert sentences.not_shown(rows, rows) == "Every answer may be shown."


def test_the_example_of_a_failure_is_not_shown_either():
    answer = {"failure": "wrong", "detail": "", "text": "# shit\nreturn 1"}
    assert failures_table({"base": [answer]})[0]["example"] == "(not shown)"
    assert failures_table({"base": [answer | {"text": "return 1"}]})[0]["example"] == "return 1"
