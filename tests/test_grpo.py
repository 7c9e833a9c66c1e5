"""GRPO: the reward is what the sandbox says, one dead worker costs one reward, and a few steps move the adapter."""

import dataclasses
import json
import threading

import pytest
import torch

from llmft_helpers.errors import UserError
from llmft_helpers.grading.execution import grade
from llmft_helpers.models.loading import add_lora, load_base_model
from llmft_helpers.profiles import load_profile
from llmft_helpers.training import grpo

ROW = {
    "task_id": "twice",
    "entry_point": "twice",
    "problem_description": "Return 2 times n.",
    "starter_code": "class Solution:\n    def twice(self, n: int) -> int:",
    "completion": "class Solution:\n    def twice(self, n: int) -> int:\n        return 2 * n\n",
    "tests": [{"args": [n], "expected": 2 * n} for n in (0, 2, 3, 5)],
}
BODIES = {
    "return 2 * n": 1.0,
    "return n * n": 0.5,
    "return n": 0.25,
    "return -1": 0.0,
    "return (": 0.0,
    "return 2 * n\n# Problem\nand on": 1.0,  # up to the stop string
    "if n > 4:\n            import os\n            os.system('true')\n        return 2 * n": 0.0,  # unsafe once
}


def rewards(bodies, rows=None):
    problems = [json.dumps(row) for row in rows or [ROW] * len(bodies)]
    texts = [f"\n        {body}" for body in bodies]
    return grpo.tests_passed(prompts=[], completions=texts, problem=problems, completion_ids=[], trainer_state=None)


def test_the_reward_is_the_share_of_tests_passed_and_nothing_if_unsafe():
    assert rewards(BODIES) == list(BODIES.values())
    answers = [body.partition("\n# Problem")[0] for body in BODIES]
    code = [f"{ROW['starter_code']}\n        {body}" for body in answers]
    for reward, graded in zip(rewards(BODIES), grade(code, [ROW] * len(code)), strict=True):
        assert reward == (0 if "unsafe" in graded["verdicts"] else graded["tests_passed"] / graded["tests_total"])


def test_a_worker_that_ends_itself_is_no_reward():
    assert rewards(["import os; os._exit(0)", "return 2 * n"]) == [0.0, 1.0]


@pytest.mark.parametrize("kind", [RuntimeError, OSError])
def test_an_interpreter_that_does_not_start_costs_one_reward(monkeypatch, capsys, kind):
    calls, lock = [], threading.Lock()

    def dead_once(code, rows, **named):
        with lock:
            calls.append(code)
        if "n * n" in code[0]:
            raise kind("the isolated interpreter did not start")
        return grade(code, rows, **named)

    monkeypatch.setattr(grpo, "grade", dead_once)
    assert rewards(["return 2 * n", "return n * n", "return n"]) == [1.0, None, 0.25] and len(calls) == 3
    assert "twice: one answer is left out: the isolated interpreter did not start" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="none of a batch of answers could be graded"):
        rewards(["return n * n"] * 2)


@pytest.fixture
def few_steps():
    profile = load_profile("tiny")
    asked = dataclasses.replace(profile.from_tests, grpo_steps=2, grpo_learning_rate=1e-2)
    return dataclasses.replace(profile, from_tests=asked)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten().float() for p in model.parameters() if p.requires_grad])


def make(fresh, profile, folder, start="the same"):
    model, tokenizer = fresh
    model = add_lora(model, profile.lora, profile.seed)
    return grpo.make_grpo_trainer(
        model, tokenizer, [ROW | {"task_id": name} for name in "abcd"], profile, folder, start
    )


def test_a_few_steps_follow_the_reward_and_a_stopped_run_goes_on(fresh, few_steps, tmp_path, monkeypatch):
    """Groups of `samples` answers to one problem are graded together, and the adapter moves where rewards differ."""
    from transformers import TrainerCallback

    batches = []

    def spaces(completions, problem, **_):
        batches.append((len(completions), [json.loads(one)["task_id"] for one in problem]))
        return [text.count(" ") / len(text) if text else None for text in completions]

    monkeypatch.setattr(grpo, "tests_passed", spaces)
    monkeypatch.setattr(grpo, "PROMPTS", 2)
    trainer = make(fresh, few_steps, tmp_path / "whole")
    before = weights(trainer.model)
    grpo.train_on(trainer)
    samples = few_steps.from_tests.samples
    assert [count for count, _ in batches] == [2 * samples] * 2
    for _, names in batches:
        groups = [set(names[start : start + samples]) for start in range(0, len(names), samples)]
        assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 2
    logged = [one for one in trainer.state.log_history if "reward" in one]
    assert len(logged) == 2 and all(one["reward"] > 0 for one in logged)
    assert not torch.equal(weights(trainer.model), before)

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                raise KeyboardInterrupt

    batches.clear()
    stopped = make(load_base_model(few_steps.model), few_steps, tmp_path / "stopped")
    stopped.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        grpo.train_on(stopped)
    learned = weights(stopped.model)
    resumed = make(load_base_model(few_steps.model), few_steps, tmp_path / "stopped")
    seen = []

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **kwargs):
            seen.append((state.global_step, weights(model)))

    resumed.add_callback(Look())
    grpo.train_on(resumed)
    assert [step for step, _ in seen] == [1] and torch.equal(seen[0][1], learned) and len(batches) == 2


def test_a_stopped_run_asks_the_problems_of_its_epoch(fresh, few_steps, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    asked = []

    def rewards(completions, problem, **_):
        asked.append(sorted({json.loads(one)["task_id"] for one in problem}))
        return [1.0 for _ in completions]

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3:  # amid the second of three epochs of two steps
                raise KeyboardInterrupt

    monkeypatch.setattr(grpo, "tests_passed", rewards)
    monkeypatch.setattr(grpo, "PROMPTS", 2)
    longer = dataclasses.replace(few_steps, from_tests=dataclasses.replace(few_steps.from_tests, grpo_steps=6))
    grpo.train_on(make(fresh, longer, tmp_path / "whole"))
    whole = list(asked)
    assert len(whole) == 6 and len({tuple(map(tuple, whole[n : n + 2])) for n in (0, 2, 4)}) > 1
    asked.clear()
    stopped = make(load_base_model(longer.model), longer, tmp_path / "stopped")
    stopped.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        grpo.train_on(stopped)
    asked.clear()
    grpo.train_on(make(load_base_model(longer.model), longer, tmp_path / "stopped"))
    assert asked == whole[3:]


def test_a_run_from_another_adapter_is_another_run(fresh, few_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "PROMPTS", 2)
    keys = [make(load_base_model(few_steps.model), few_steps, tmp_path, start).checks.key for start in ("a", "a", "b")]
    assert keys[0] == keys[1] != keys[2]


def test_too_few_problems_that_leave_room_are_refused(fresh, few_steps, tmp_path):
    with pytest.raises(UserError, match="4 of 4 problems leave room for an answer of .*, and a step asks 8: raise"):
        make(fresh, few_steps, tmp_path)
    short = dataclasses.replace(few_steps, model=dataclasses.replace(few_steps.model, max_length=30))
    with pytest.raises(UserError, match="0 of 4 problems leave room for an answer of leetcode.max_new_tokens = "):
        make(fresh, short, tmp_path)


def test_memory_that_ends_is_one_line(fresh, few_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "PROMPTS", 2)
    trainer = make(fresh, few_steps, tmp_path)

    def full(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "train", full)
    with pytest.raises(
        UserError, match=r"out of memory.* in training step 1; .* from_tests.samples below \d+; leetcode"
    ):
        grpo.train_on(trainer)


def test_without_the_adapter_of_notebook_03_it_says_so(few_steps, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OUTPUTS", str(tmp_path))
    with pytest.raises(UserError, match="holds no adapter .* train one with notebook 02 or 03"):
        grpo.train_grpo(few_steps)
