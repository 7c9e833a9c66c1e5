"""Scores of whole arms, with generation replaced by known answers."""

import pytest

from llmft_helpers.data.prompts import LeetcodeTask, TranslationTask
from llmft_helpers.errors import UserError
from llmft_helpers.models.generation import Generated
from llmft_helpers.profiles import load_profile
from llmft_helpers.scoring import evaluation
from llmft_helpers.scoring.metrics import bootstrap_ci95

PROBLEM = {
    "task_id": "double-it", "difficulty": "Easy", "problem_description": "Return twice n.", "source": "code",
    "starter_code": "class Solution:\n    def double(self, n: int) -> int:", "entry_point": "double",
    "completion": "class Solution:\n    def double(self, n: int) -> int:\n        return 2 * n\n",
    "tests": [{"args": [1], "expected": 2}, {"args": [0], "expected": 0}, {"args": [-3], "expected": -6}],
}  # fmt: skip
RIGHT = PROBLEM["completion"]
HALF = RIGHT.replace("2 * n", "n * n + n")  # right for 0 and 1
CHATTY = f"Sure! Here is the code:\n```python\n{RIGHT}```\nIt doubles."
CUT = "class Solution:\n    def double(self, n: int) -> int:\n        return (2 *"


def answering(monkeypatch, texts):
    monkeypatch.setattr(evaluation, "generate", lambda *_, **__: [Generated(text, 5, True) for text in texts])


def test_translation_arm(base, pairs, monkeypatch, profile):
    perfect = [row["en"] for row in pairs]
    answering(monkeypatch, perfect[:4] + [pairs[4]["es"]])  # the last one restates its source
    metrics, answers = evaluation.evaluate_task(*base, TranslationTask(), pairs, profile.translation)
    assert metrics["prompt_echo_rate"] == pytest.approx(1 / 5) and metrics["eos_rate"] == 1.0
    assert [answer["chrf"] for answer in answers[:4]] == pytest.approx([100.0] * 4)
    per_source = metrics["per_source"]
    assert per_source["formal"]["rows"] == 2 and per_source["formal"]["bleu"] == pytest.approx(100)
    assert per_source["everyday"]["bleu"] < metrics["bleu"] < 100  # the wrong one is an everyday row
    # "Hello." and "No quiero ir sin ti." have no function word of one language alone
    assert metrics["answer_language"] == pytest.approx({"target": 3 / 5, "source": 0, "other": 2 / 5})
    assert metrics["bleu_01"] == pytest.approx(metrics["bleu"] / 100)
    words = sum(len(text.split()) for text in [*perfect[:4], pairs[4]["es"]])
    assert metrics["length_ratio"] == pytest.approx(words / sum(len(text.split()) for text in perfect))


def test_language_of_answers_depends_on_the_direction():
    texts = ["Where is the key?", "It is here.", "¿Dónde está la llave?", "Hm."]
    shares = {"target": 0.5, "source": 0.25, "other": 0.25}
    assert evaluation.language_shares(TranslationTask("es-en"), texts) == shares
    assert evaluation.language_shares(TranslationTask("en-es"), texts) == shares | {"target": 0.25, "source": 0.5}


def test_code_arm_counts_work_and_form_apart(base, monkeypatch):
    rows = [PROBLEM | {"task_id": f"p{i}"} for i in range(4)]
    answering(monkeypatch, [RIGHT, HALF, CHATTY, CUT])
    metrics, answers = evaluation.evaluate_task(*base, LeetcodeTask(), rows, load_profile("tiny").leetcode)
    assert [answer["passed"] for answer in answers] == [True, False, True, False]
    assert [answer["tests_passed"] for answer in answers] == [3, 2, 3, 0]
    assert metrics["pass_at_1"] == 0.5
    assert metrics["tests_passed_rate"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert metrics["code_only_rate"] == 0.5 and metrics["parses_rate"] == 0.75 and metrics["type_hints_rate"] == 0.75
    assert [answer["failure"] for answer in answers] == ["", "wrong", "", "SyntaxError"]
    easy = metrics["per_difficulty"]["Easy"]
    assert easy["problems"] == 4 and easy["pass_at_1"] == 0.5
    assert easy["pass_at_1_ci95"] == pytest.approx([0.0676, 0.9324], abs=1e-4)  # Clopper-Pearson, of a table
    assert easy["tests_passed_ci95"] == bootstrap_ci95([1, 2 / 3, 1, 0]) != easy["pass_at_1_ci95"]
    assert sum(metrics["verdicts"].values()) == 4 and metrics["verdicts"]["passed"] == 2


def test_a_tier_has_its_own_problems(base, monkeypatch):
    rows = [PROBLEM | {"task_id": f"p{i}", "difficulty": tier} for i, tier in enumerate(("Easy", "Hard", "Hard"))]
    answering(monkeypatch, [RIGHT, CUT, CUT])
    metrics, _ = evaluation.evaluate_task(*base, LeetcodeTask(), rows, load_profile("tiny").leetcode)
    tiers = {tier: (part["problems"], part["pass_at_1"]) for tier, part in metrics["per_difficulty"].items()}
    assert tiers == {"Easy": (1, 1.0), "Hard": (2, 0.0)}


def test_an_echo_holds_its_whole_source():
    assert evaluation.echoes("Hola, Ana.", "Hola Ana: hello")
    assert not evaluation.echoes("Hola, Ana.", "") and not evaluation.echoes("Hola, Ana.", "Hola")


@pytest.mark.parametrize(
    ("verdict", "detail", "name"),
    [
        ("error", "TypeError: 'int' object is not iterable (line 3)", "TypeError"),
        ("error", "NameError: the code defines no Solution.double", "method not defined"),
        ("error", "NameError: name 'first' is not defined (line 3)", "NameError"),
        ("timeout", "5 s of CPU time", "timeout"),
        ("wrong", "expected 2, got 3", "wrong"),
    ],
)
def test_failure_classes(verdict, detail, name):
    assert evaluation.failure_class({"passed": False, "verdict": verdict, "detail": detail}) == name


def test_few_shot_prompts_reach_the_model(base, pairs, monkeypatch, profile):
    seen, scored, completion_nats = [], [], evaluation.completion_nats

    def score(model, tokenizer, rows, *rest):
        scored.extend(row["prompt"] for row in rows)
        return completion_nats(model, tokenizer, rows, *rest)

    monkeypatch.setattr(evaluation, "completion_nats", score)

    def spy(model, tokenizer, prompts, *_, **__):
        seen.extend(prompts)
        return [Generated("x", 1, False) for _ in prompts]

    monkeypatch.setattr(evaluation, "generate", spy)
    evaluation.evaluate_task(*base, TranslationTask(), pairs[:2], profile.translation, shots=pairs[3:4])
    assert all(prompt.startswith("Spanish: Llueve.\nEnglish: It is raining.\n\nSpanish: ") for prompt in seen)
    assert scored == seen and len(seen) == 2


def test_records_hold_question_reference_and_every_arm(pairs):
    arms = {arm: [{"text": f"{arm} {i}"} for i in range(2)] for arm in ("base", "tuned")}
    records = evaluation.merge_predictions(pairs[:2], arms)
    assert [row["en"] for row in records] == [row["en"] for row in pairs[:2]]
    texts = [(row["base"]["text"], row["tuned"]["text"]) for row in records]
    assert texts == [("base 0", "tuned 0"), ("base 1", "tuned 1")]


def test_two_arms_are_compared_with_each_other_by_the_test_that_is_named(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluation, "bleu_p_value", lambda *arguments: asked.append(arguments))
    evaluation.paired_translation_p_value([{"text": "b"}], [{"text": "t"}], ["r"], "ar")
    assert asked == [(["b"], ["t"], ["r"], "ar")]
    base, tuned = ([{"passed": one == "1"} for one in some] for some in ("100000", "011111"))
    assert evaluation.paired_code_p_value(base, tuned) == pytest.approx(14 / 64)


def test_problems_whose_reference_fails_are_left_out():
    imports = PROBLEM | {"task_id": "imports-a-package", "completion": f"import requests\n{RIGHT}"}
    kept, broken = evaluation.drop_broken_problems([imports, PROBLEM])
    assert kept == [PROBLEM]
    assert [(one["task_id"], one["passed"]) for one in broken] == [("imports-a-package", False)]
    assert "requests" in broken[0]["detail"]
    with pytest.raises(UserError, match="none of the 1 test problems"):
        evaluation.drop_broken_problems([imports])


def test_the_luckiest_constant_passes_the_tests_of_its_value():
    rows = [
        {"tests": [{"expected": 1}, {"expected": 1}, {"expected": True}, {"expected": [0]}]},
        {"tests": [{"expected": "a"}, {"expected": "b"}, {"expected": "c"}, {"expected": "d"}]},
    ]
    assert evaluation.best_constant_share(rows) == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert evaluation.best_constant_share([{"test": "def check(candidate): ..."}]) is None
