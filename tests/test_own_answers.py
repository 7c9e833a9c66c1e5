"""A model's own answers: sampled once whatever is killed, graded, told apart by syntax tree, and trained on."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmft_helpers.data.prompts import LeetcodeTask, training_rows
from llmft_helpers.errors import UserError
from llmft_helpers.models.generation import Generated
from llmft_helpers.models.sampling import Sampling
from llmft_helpers.profiles import load_profile
from llmft_helpers.runs import ROOT, run_dir
from llmft_helpers.storage import read_jsonl
from llmft_helpers.training import Experiment, FromTests, from_tests, grpo, own_answers

SETTINGS = load_profile("tiny").leetcode  # four answers a batch
SAMPLING = Sampling(temperature=0.8, answers=2, seed=5)
BODIES = ("return {} * n", "return n*{}  # as asked", "return n", "import os; os.system('true')", "return (")


def problem(number: int) -> dict:
    return {
        "task_id": f"times-{number}",
        "entry_point": "times",
        "problem_description": f"Return {number} times n.",
        "starter_code": "class Solution:\n    def times(self, n: int) -> int:",
        "completion": f"class Solution:\n    def times(self, n: int) -> int:\n        return {number} * n\n",
        "tests": [{"args": [n], "expected": number * n} for n in (0, 3, 5)],
    }


ROWS = [problem(number) for number in range(2, 9)]


def written(model, tokenizer, prompts, max_new_tokens, stop, batch_size, sampling) -> list[Generated]:
    """In a model's place: one of BODIES for each answer, drawn by the answer's own random number."""
    answers = []
    for prompt in prompts:
        number = prompt.partition("Return ")[2].split(" ")[0]
        for answer in range(sampling.answers):
            place = int(sampling.uniforms(prompt, answer, 1)[0] * len(BODIES))
            text = f"\n        {BODIES[place].format(number)}"
            answers.append(Generated(text, len(text), True))
    return answers


def sample(path: Path, rows=ROWS, sampling=SAMPLING, key="a model") -> list[list[dict]]:
    return own_answers.sample_answers(None, None, rows, sampling, SETTINGS, path, key)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many problems were asked, a batch at a time."""
    seen: list[int] = []

    def generate(model, tokenizer, prompts, *rest, **named):
        seen.append(len(prompts))
        return written(model, tokenizer, prompts, *rest, **named)

    monkeypatch.setattr(own_answers, "generate", generate)
    return seen


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_own_answers as tests

batches = []
def killed(*arguments, **named):
    batches.append(1)
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return tests.written(*arguments, **named)

tests.own_answers.generate = killed
tests.sample(Path(sys.argv[2]))
"""


def test_sampling_that_was_killed_goes_on_behind_the_last_whole_problem(asked, tmp_path, capsys):
    expected = sample(tmp_path / "whole.jsonl")
    assert asked == [2, 2, 2, 1]
    path = tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)]
    done = subprocess.run(
        command, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert len(read_jsonl(path)) == 4 * SAMPLING.answers
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:-9])  # the kill tore the last line
    asked.clear()
    assert sample(path) == expected and asked == [2, 2]
    whole = (tmp_path / "whole.jsonl").read_text(encoding="utf-8")
    assert sorted(path.read_text(encoding="utf-8").splitlines()) == sorted(whole.splitlines())
    asked.clear()
    capsys.readouterr()
    assert sample(path) == expected and asked == []
    assert f"{len(ROWS)} of {len(ROWS)} problems were answered by a run before this one" in capsys.readouterr().out


def test_answers_of_another_model_or_other_settings_are_not_taken(asked, tmp_path):
    path = tmp_path / "answers.jsonl"
    first = sample(path, ROWS[:2])
    for change in ({"key": "another"}, {"sampling": Sampling(temperature=0.7, answers=2, seed=5)},
                   {"rows": [row | {"tests": row["tests"][:1]} for row in ROWS[:2]]}):  # fmt: skip
        asked.clear()
        sample(path, **{"rows": ROWS[:2]} | change)
        assert asked == [2], change
    asked.clear()
    assert sample(path, ROWS[:2]) == first and asked == [2]  # the file holds one run


def test_each_answer_has_its_verdict(asked, tmp_path):
    answers = [answer for some in sample(tmp_path / "answers.jsonl") for answer in some]
    bodies = {answer["text"].strip().split(" ")[0] + str(answer["tests_passed"]) for answer in answers}
    assert bodies >= {"return3", "return1", "import0"}  # right; n itself, right for 0; unsafe
    verdicts = {answer["verdict"] for answer in answers}
    assert verdicts == {"passed", "wrong", "unsafe", "error"}
    assert all(answer["passed"] == (answer["verdict"] == "passed") for answer in answers)
    assert json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0]) == answers[0]


def test_each_answer_is_graded_against_its_own_problem(asked, tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    for row, some in zip(ROWS, sample(path), strict=True):
        number = row["task_id"].split("-")[1]
        right = [f"{number} * n" in one["text"] or f"n*{number}" in one["text"] for one in some]
        assert [one["passed"] for one in some] == right
    longer = dataclasses.replace(SETTINGS, max_new_tokens=SETTINGS.max_new_tokens + 1)
    monkeypatch.setattr(sys.modules[__name__], "SETTINGS", longer)
    asked.clear()
    sample(path, ROWS[:2])
    assert asked == [2]  # answers of another length are not taken


def answer(body: str, passed: bool = True) -> dict:
    return {"code": f"{ROWS[0]['starter_code']}\n{body}", "passed": passed, "ended": True}


def test_kept_are_passing_answers_that_differ_by_their_tree():
    some = [
        answer("        return n + n", passed=False),
        answer("        return 2 * n"),
        answer("        return (2*n)  # twice"),
        answer('        """Twice n."""\n        return 2 * n'),
        answer("        return n * 2"),
        answer("        return n << 1"),
        {  # another signature
            "code": "class Solution:\n    def times(self, k):\n        return k + k",
            "passed": True,
            "ended": True,
        },
    ]
    kept = own_answers.passing_rows(ROWS[:1], [some], 2)
    assert [row["completion"] for row in kept] == [some[1]["code"], some[4]["code"]]
    assert len(own_answers.passing_rows(ROWS[:1], [some], 9)) == 3
    prompt = LeetcodeTask().prompt(ROWS[0])
    assert training_rows(LeetcodeTask(), kept) == [
        {"prompt": prompt, "completion": f"\n        return {body}"} for body in ("2 * n", "n * 2")
    ]
    assert own_answers.passing_rows(ROWS[:1], [some[:1]], 9) == []
    # the first is the reference but for its layout
    assert own_answers.kept_counts(kept, ROWS) == {"answers": 2, "problems": 1, "as_reference": 1}
    assert own_answers.kept_counts([], ROWS) == {"answers": 0, "problems": 0, "as_reference": 0}


@pytest.mark.parametrize(
    ("code", "to_the_point"),
    [
        ("class Solution:\n    def times(self, n):\n        return 2 * n", True),
        ("import math\nclass Solution:\n    def times(self, n):\n        return math.prod((2, n))", True),
        ("class Solution:\n    def times(self, n):\n        return self.twice(n)\n    def twice(self, n):\n"
         "        return 2 * n", True),
        ("class Solution:\n    def times(self, n):\n        def twice(m):\n            return 2 * m\n"
         "        return twice(n)", True),
        ("TWO = 2\nclass Solution:\n    def times(self, n):\n        return TWO * n", True),
        ("class Solution:\n    def __init__(self):\n        self.two = 2\n    def times(self, n):\n"
         "        return self.two * n", True),
        ("class Solution:\n    def times(self, n):\n        return 2 * n\n    def thrice(self, n):\n"
         "        return 3 * n", False),
        ("class Solution:\n    def times(self, n):\n        return 2 * n\n    def power(self, n):\n"
         "        return n * self.power(n - 1)", False),  # used by itself alone
        ("class Solution:\n    def times(self, n):\n        a = [n]\n        a.reverse()\n        return 2 * a[0]\n"
         "    def reverse(self, a):\n        return a", False),  # a list's own method is another
        ("class Solution:\n    def times(self, n):\n        return n\n    def times(self, n):\n"
         "        return 2 * n", False),
        ("class Solution:\n    def times(self, n):\n        return 2 * n\nsolution = Solution()", False),
        ("class Solution:\n    def times(self, n):\n        return 2 * n\ndef main():\n    pass", False),
    ],
)  # fmt: skip
def test_an_answer_to_the_point_defines_what_was_asked_for_and_what_that_uses(code, to_the_point):
    assert own_answers.is_to_the_point(code, "times") is to_the_point
    row = problem(2) | {"starter_code": "class Solution:\n    def times(self, n):"}
    answer = {"code": code, "passed": True, "ended": True}
    assert len(own_answers.passing_rows([row], [[answer]], 2)) == to_the_point
    assert own_answers.passing_rows([row], [[answer | {"ended": False}]], 2) == []


def test_a_class_to_design_and_a_published_entry_point_are_to_the_point():
    designed = "class Cache:\n    def __init__(self):\n        self.a = {}\n    def get(self, key):\n        return 1\n"
    assert own_answers.is_to_the_point(designed, "Cache")
    assert not own_answers.is_to_the_point(designed + "class Other:\n    pass", "Cache")
    body = "class Solution:\n    def times(self, n):\n        return 2 * n\n"
    assert own_answers.is_to_the_point(body, "Solution().times")  # as LeetCodeDataset names it


def test_a_docstring_alone_stays_a_body():
    assert own_answers.syntax_tree('def f():\n    """a"""') != own_answers.syntax_tree('def f():\n    """b"""')
    assert own_answers.syntax_tree('"""a"""\nx = 1') == own_answers.syntax_tree("x=1 # b")
    assert own_answers.syntax_tree("x = 1") != own_answers.syntax_tree("y = 1")


def test_scores_of_samples_by_hand():
    def graded(*passed: bool) -> list[dict]:
        verdicts = {True: "passed", False: "wrong"}
        return [{"passed": p, "verdict": verdicts[p], "code": f"{p}"} for p in passed]

    scores = own_answers.sample_scores([graded(True, True, False, False), graded(False) * 4])
    assert (scores["pass_at_1"], scores["pass_at_k"], scores["solved_problems"], scores["passed"]) == (0.25, 0.5, 1, 2)
    assert scores["different_rate"] == 3 / 8 and scores["verdicts"] == {"passed": 2, "wrong": 6}
    assert scores["pass_at_k_ci95"] == pytest.approx([0.0126, 0.9874], abs=1e-4)  # exact, of 1 in 2: 1 - sqrt(0.975)


def test_some_problems_are_watched_and_not_trained_on():
    own = [row for row in ROWS for _ in range(2)]
    assert from_tests.watch_some(own) == (own, [])
    more = [problem(number) for number in range(20) for _ in range(3)]
    train, watched = from_tests.watch_some(more)
    assert {row["task_id"] for row in watched} == {"times-7", "times-15"} and len(watched) == 6
    assert sorted(map(str, train + watched)) == sorted(map(str, more))


# the stages of notebook 05, on what notebook 03 left


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine") / "learner.toml"
    text = (ROOT / "llmft_helpers" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    return load_profile(str(path))


@pytest.fixture(scope="module")
def tuned(profile):
    experiment = Experiment(profile, "leetcode")
    experiment.read_data()
    experiment.load_model()
    experiment.make_trainer()
    experiment.score_untuned()
    experiment.train()
    experiment.score_tuned()
    experiment.save()
    return experiment


def references(rows, seed: int):
    """In a model's place: the last answer of the first round, and all but the first of the second, are the reference
    with an end of its own."""
    task = LeetcodeTask()
    by_prompt = {task.prompt(row): task.completion(row) for row in rows}

    def write(model, tokenizer, prompts, max_new_tokens, stop, batch_size, sampling):
        right = range(sampling.answers)[seed - sampling.seed :]  # the last, the last two
        return [
            Generated(f"{by_prompt[prompt]}\n        x = {n}" if n in right else "\n        return", 9, True)
            for prompt in prompts
            for n in range(sampling.answers)
        ]

    return write


def steps(profile, monkeypatch) -> FromTests:
    learner = FromTests(profile)
    learner.read_data()
    learner.load_model()
    monkeypatch.setattr(own_answers, "generate", references(learner.rows, profile.seed))
    for _ in range(2):
        learner.sample()
        learner.train("both")
    learner.train("own")
    return learner


def weights(learner: FromTests, arm: str) -> dict[str, torch.Tensor]:
    return load_file(learner.adapters[arm] / "adapter_model.safetensors")


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_that_is_stopped_in_any_stage_goes_on_where_it_was(tuned, profile, monkeypatch):
    trained, stop_at = [], [3]
    fine_tune = from_tests.fine_tune

    def stopped(trainer):
        trained.append(trainer.args.output_dir)
        if len(trained) == stop_at[0]:
            raise KeyboardInterrupt
        return fine_tune(trainer)

    monkeypatch.setattr(from_tests, "fine_tune", stopped)
    with pytest.raises(KeyboardInterrupt):
        steps(profile, monkeypatch)
    assert [folder.split("/")[-4:-2] for folder in trained] == [
        ["round_1", "both"], ["round_2", "both"], ["round_2", "own"]]  # fmt: skip
    learner = steps(profile, monkeypatch)
    assert len(trained) == 4 and "own" in trained[3]
    assert len(learner.own) == 2 * len(learner.rows) and not list(learner.folder.glob("*/*/trainer"))
    again = steps(profile, monkeypatch)
    assert len(trained) == 4 and again.trained == learner.trained and again.rounds == learner.rounds

    # "own" begins at the base, whatever the model learned before
    own = weights(learner, "own")
    shutil.rmtree(learner.adapters["own"])
    alone = FromTests(profile)
    alone.read_data()
    alone.load_model()
    alone.rounds, alone.own = learner.rounds, learner.own
    alone.train("own")
    assert len(trained) == 5 and equal(weights(alone, "own"), own)
    assert not equal(own, weights(learner, "both"))


def test_each_round_draws_anew_and_adds_to_what_was_found_before(tuned, profile, monkeypatch):
    learner = steps(profile, monkeypatch)
    assert [scores["passed"] for scores in learner.rounds] == [len(learner.rows), 2 * len(learner.rows)]
    assert learner.own[0]["completion"].endswith("x = 2")  # found in the first round
    lengths = [len(LeetcodeTask().completion(row)) for row in learner.corpus.train]
    assert [len(LeetcodeTask().completion(row)) for row in learner.rows] == sorted(lengths)[: len(learner.rows)]


@pytest.mark.parametrize("answered_by", ["references", "base"])
def test_the_model_that_is_named_answers_the_first_round(tuned, profile, monkeypatch, answered_by):
    asked = dataclasses.replace(profile.from_tests, answered_by=answered_by)
    learner = FromTests(dataclasses.replace(profile, from_tests=asked))
    shutil.rmtree(learner.folder, ignore_errors=True)
    learner.read_data()
    learner.load_model()
    tokens, logits = torch.tensor([[1, 2, 3]]), []
    write = references(learner.rows, profile.seed)

    def asking(model, *rest, **named):
        with torch.no_grad():
            logits.append(model(input_ids=tokens).logits)
        return write(model, *rest, **named)

    monkeypatch.setattr(own_answers, "generate", asking)
    learner.sample()
    expected = {}
    for arm in ("references", "base"):
        with learner.using(arm), torch.no_grad():
            expected[arm] = learner.model(input_ids=tokens).logits
    assert not torch.equal(expected["references"], expected["base"])
    assert all(torch.equal(one, expected[answered_by]) for one in logits) and logits
    first = read_jsonl(learner.folder / "round_1" / "answers.jsonl")[0]["run"]
    other = dataclasses.replace(asked, answered_by={"base": "references", "references": "base"}[answered_by])
    learner.asked, learner.rounds = other, []
    learner.sampled = [[] for _ in learner.rows]
    learner.sample()
    assert read_jsonl(learner.folder / "round_1" / "answers.jsonl")[0]["run"] != first  # another's are not taken


def test_base_and_references_are_notebook_03s_and_own_arms_are_scored_alike(tuned, profile, monkeypatch):
    learner = steps(profile, monkeypatch)
    scores = learner.score()
    assert list(scores) == ["base", "references", "both", "own"]
    saved = json.loads((learner.before / "metrics.json").read_text(encoding="utf-8"))
    assert (scores["base"], scores["references"]) == (saved["base"], saved["tuned"])
    assert [a["text"] for a in learner.answers["references"]] == [a["text"] for a in tuned.answers["tuned"]]
    evaluate_task = from_tests.evaluation.evaluate_task
    monkeypatch.setattr(from_tests.evaluation, "evaluate_task", None)  # what is scored is not scored again
    assert steps(profile, monkeypatch).score() == scores
    monkeypatch.setattr(from_tests.evaluation, "evaluate_task", evaluate_task)
    with learner.using("references"):
        again, answers = from_tests.evaluation.evaluate_task(
            learner.model, learner.tokenizer, LeetcodeTask(), learner.corpus.test, learner.settings
        )
    assert again["perplexity"] == pytest.approx(tuned.metrics["tuned"]["perplexity"], rel=1e-4)
    assert [a["text"] for a in answers] == [a["text"] for a in tuned.answers["tuned"]]
    with learner.using("base"):
        again, _ = from_tests.evaluation.evaluate_task(
            learner.model, learner.tokenizer, LeetcodeTask(), learner.corpus.test, learner.settings
        )
    assert again["perplexity"] == pytest.approx(tuned.metrics["base"]["perplexity"], rel=1e-4)
    with learner.using("both"):
        again, _ = from_tests.evaluation.evaluate_task(
            learner.model, learner.tokenizer, LeetcodeTask(), learner.corpus.test, learner.settings
        )
    assert again["perplexity"] == pytest.approx(scores["both"]["perplexity"], rel=1e-4)
    assert scores["both"]["perplexity"] != scores["own"]["perplexity"]
    other = learner.score_other_texts()
    assert list(other) == list(scores) and all(len(row) == 4 for row in other.values())
    assert len({row["solutions"] for row in other.values()}) == 4  # four models
    monkeypatch.setattr(from_tests, "completion_nats", None)  # what is measured is not measured again
    assert learner.score_other_texts() == other
    metrics = learner.save()
    # each with an end of its own
    assert metrics["kept"] == {"answers": len(learner.own), "problems": len(learner.rows), "as_reference": 0}
    assert set(metrics["p_values"]) == {"both", "own"} and len(metrics["rounds"]) == 2
    assert all(trained["watched_problems"] == 0 for trained in metrics["training"].values())  # four are too few


def test_p_values_are_of_all_problems_and_of_one_tier(tuned, profile):
    learner = FromTests(profile)
    learner.read_data()
    tiers = ["Warm-up"] * 6 + ["Hard"] * 6
    learner.corpus.splits["test"] = [{"difficulty": tier} for tier in tiers]
    passed = {"base": "000000000000", "references": "000000111111", "own": "111111000000"}
    learner.answers = {arm: [{"passed": one == "1"} for one in some] for arm, some in passed.items()}
    assert learner._p_values("own") == {"base": 2 / 64, "references": 1.0}
    assert learner._p_values("own", "Warm-up") == {"base": 2 / 64, "references": 2 / 64}


def test_what_changed_is_trained_and_scored_again(tuned, profile, monkeypatch):
    learner, trained = steps(profile, monkeypatch), []
    learner.score()
    fine_tune = from_tests.fine_tune
    monkeypatch.setattr(from_tests, "fine_tune", lambda trainer: trained.append(1) or fine_tune(trainer))
    learner.own = learner.own[:-1]
    learner.train("own")
    assert trained == [1]
    monkeypatch.setattr(from_tests.evaluation, "evaluate_task", lambda *_, **__: ({"new": 1}, []))
    assert learner._scored("own")["metrics"] == {"new": 1} and learner._scored("both")["metrics"] != {"new": 1}


def test_where_nothing_passes_nothing_is_trained_and_the_rest_goes_on(tuned, profile, monkeypatch):
    learner = FromTests(profile)
    shutil.rmtree(learner.folder)
    learner.read_data()
    learner.load_model()
    scores = learner.sample()  # a random model
    assert scores["passed"] == 0 and scores["pass_at_k_ci95"][1] > 0
    assert learner.train("both") == {} and learner.train("own") == {}
    assert list(learner.score()) == ["base", "references"]
    learner.score_other_texts()
    assert learner.save()["p_values"] == {}


def test_grpo_goes_on_from_the_same_adapter_and_is_scored_before_and_after(tuned, profile):
    folder = grpo.train_grpo(profile)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["references"]["perplexity"] == pytest.approx(tuned.metrics["tuned"]["perplexity"], rel=1e-4)
    assert [one["step"] for one in metrics["rewards"]] == [1, 2] and metrics["pass_p_value"] == 1.0
    assert len(read_jsonl(folder / "predictions.jsonl")) == len(tuned.corpus.test)
    assert (folder / "adapter" / "llmft.json").is_file() and not list((folder / "trainer").glob("checkpoint-*"))


def test_results_of_other_problems_are_refused(tuned, profile):
    other = dataclasses.replace(profile, seed=2)
    with pytest.raises(UserError, match="is of other problems than this profile's: run notebook 03 again"):
        FromTests(other).read_data()
    # the data are seed 1's for GRPO too, where the adapter lies
    with pytest.raises(UserError, match="is of other problems than this profile's: run notebook 03 again"):
        grpo.train_grpo(other)


def test_results_of_another_adapter_or_of_shorter_answers_are_refused(tuned, profile):
    path = run_dir(profile, "leetcode") / "metrics.json"
    whole = path.read_text(encoding="utf-8")
    longer = dataclasses.replace(profile.leetcode, max_new_tokens=profile.leetcode.max_new_tokens + 1)
    with pytest.raises(UserError, match=r"answers of at most leetcode.max_new_tokens = 24, this profile says 25"):
        FromTests(dataclasses.replace(profile, leetcode=longer)).read_data()
    other = json.loads(whole)
    other["provenance"]["adapter"] = "of another"
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(UserError, match="is of another adapter than the one beside it: run notebook 03 again"):
        FromTests(profile).read_data()
    path.write_text(whole, encoding="utf-8")
    FromTests(profile).read_data()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 2}, r"adapter was trained with lora.rank = \d+, this profile says 2: run notebook 03 again"),
        ({"alpha": 3}, r"lora.alpha = \d+, this profile says 3"),
        ({"use_rslora": True}, "lora.use_rslora = False, this profile says True"),
        ({"target_modules": ("q_proj",)}, r"lora.target_modules = \[.*\], this profile says \['q_proj'\]"),
    ],
)
def test_an_adapter_of_another_lora_is_refused_and_kept(tuned, profile, changes, said):
    other = dataclasses.replace(profile, lora=dataclasses.replace(profile.lora, **changes))
    learner = FromTests(other)
    learner.read_data()
    with pytest.raises(UserError, match=said):
        learner.load_model()
    assert (tuned.folder / "adapter" / "adapter_model.safetensors").is_file()
