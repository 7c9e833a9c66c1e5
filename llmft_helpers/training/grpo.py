"""GRPO (Shao et al. 2024, arXiv 2402.03300) by TRL's trainer: the reward is the share of tests passed."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from .. import processes
from ..data.corpora import load_problems
from ..data.prompts import LeetcodeTask
from ..device import compute_dtype, has_card
from ..errors import UserError
from ..grading.execution import default_workers, grade
from ..models.boundary import as_asked
from ..models.generation import before_stop
from ..models.loading import (
    add_lora,
    cast_adapter,
    load_base_model,
    read_adapter_note,
    save_adapter,
)
from ..models.notes import adapter_note
from ..profiles import Profile
from ..runs import Stages, provenance, run_dir
from ..scoring import evaluation
from ..scoring.answers import extract_code
from ..storage import fingerprint, write_json, write_jsonl
from . import references
from .checkpoints import delete_checkpoints, last_checkpoint
from .fine_tuning import faults_told
from .tracking import PROJECT, tracking_arguments

PROMPTS = 8  # asked for each step, each `samples` times
CHECKPOINTS = 10  # in a run


def tests_passed(completions: list[str], problem: list[str], **_) -> list[float | None]:
    """A reward function of TRL: for each completion the share of its problem's tests that it passes, 0 if any of them
    found it unsafe. `problem`: its row as JSON.

    None, which TRL leaves out, where the isolated interpreter did not start; RuntimeError if it never did.
    """
    task = LeetcodeTask()
    rows = [json.loads(one) for one in problem]
    texts = [task.program(row, before_stop(text, task.stop)) for row, text in zip(rows, completions, strict=True)]
    code = [extract_code(text, row["entry_point"]) for row, text in zip(rows, texts, strict=True)]
    with ThreadPoolExecutor(default_workers()) as pool:
        rewards = list(pool.map(_reward, code, rows))
    if all(reward is None for reward in rewards):
        raise RuntimeError("none of a batch of answers could be graded: the isolated interpreter does not start")
    return rewards


def _reward(code: str, row: dict) -> float | None:
    try:
        (graded,) = grade([code], [row], workers=1)
    except (RuntimeError, OSError) as error:  # ours, not the answer's: it costs this one reward
        print(f"{row['task_id']}: one answer is left out: {error}", file=sys.stderr)
        return None
    return 0.0 if "unsafe" in graded["verdicts"] else graded["tests_passed"] / graded["tests_total"]


def make_grpo_trainer(model, tokenizer, rows: list[dict], profile: Profile, folder: Path, start: str):
    """TRL's GRPOTrainer over the problems whose prompts leave room for an answer; PROMPTS groups of answers a step.

    `start`: fingerprint of the weights it begins with. UserError if fewer than PROMPTS problems leave room.
    """
    import unsloth  # noqa: F401  before trl
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig

    from .trainer import Checks, ProblemTrainer, Progress

    asked, task, tracking = profile.from_tests, LeetcodeTask(), tracking_arguments(profile, "leetcode-grpo")
    room = profile.model.max_length - profile.leetcode.max_new_tokens
    prompts = [(as_asked(tokenizer, task.prompt(row)), row) for row in rows]
    fitting = [
        {"prompt": prompt, "problem": json.dumps(row)}
        for prompt, row in prompts
        if len(tokenizer(prompt).input_ids) <= room
    ]
    if len(fitting) < PROMPTS:
        raise UserError(
            f"{len(fitting)} of {len(rows)} problems leave room for an answer of leetcode.max_new_tokens = "
            f"{profile.leetcode.max_new_tokens} in model.max_length = {profile.model.max_length}, and a step asks "
            f"{PROMPTS}: raise the latter, or lower the former"
        )
    print(f"{len(fitting)} of {len(rows)} problems are asked; the others leave no room for an answer")
    arguments = GRPOConfig(
        output_dir=str(folder),
        max_steps=asked.grpo_steps,
        learning_rate=asked.grpo_learning_rate,
        lr_scheduler_type="linear",  # these three are the library's; on a card Unsloth has others
        warmup_steps=0,
        weight_decay=0.0,
        num_generations=asked.samples,
        per_device_train_batch_size=asked.samples,
        gradient_accumulation_steps=PROMPTS,
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_completion_length=profile.leetcode.max_new_tokens,
        use_vllm=False,
        optim="adamw_torch_fused",
        bf16=compute_dtype() == torch.bfloat16,
        fp16=compute_dtype() == torch.float16,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="steps",
        save_steps=asked.grpo_steps,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        report_to=tracking["report_to"],
        run_name=tracking["run_name"],
        project=PROJECT,
        disable_tqdm=True,
        seed=profile.seed,
        data_seed=profile.seed,
    )
    trainer = ProblemTrainer(
        model=model,
        reward_funcs=[tests_passed],
        args=arguments,
        train_dataset=Dataset.from_list(fitting),
        processing_class=tokenizer,
    )
    if not has_card():  # as `make_trainer` does
        cast_adapter(model, torch.float32)
    trainer.remove_callback(PrinterCallback)
    trainer.checks = Checks(CHECKPOINTS, fingerprint([asdict(profile), fitting, start]))
    for callback in (Progress(), trainer.checks):
        trainer.add_callback(callback)
    return trainer


def train_on(trainer) -> None:
    """From the last whole checkpoint of this run, if there is one."""
    checkpoint = last_checkpoint(Path(trainer.args.output_dir), trainer.checks.key)
    with faults_told(trainer, _memory_advice):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not has_card():
        cast_adapter(trainer.model, trainer.model.dtype)


def _memory_advice(trainer) -> str:
    samples, answer = trainer.args.num_generations, trainer.args.max_completion_length
    return f"from_tests.samples below {samples}; leetcode.max_new_tokens below {answer}"


def train_grpo(profile: Profile) -> Path:
    """Train the adapter of notebook 03 on with GRPO, score it before and after, save; the folder.

    A run that was killed goes on from its last checkpoint. UserError under a launcher.
    """
    if processes.count() > 1:
        raise UserError("leetcode-grpo runs in one process: start it without a launcher")
    before, folder, stages = run_dir(profile, "leetcode") / "adapter", run_dir(profile, "leetcode_grpo"), Stages()
    read_adapter_note(before)  # before minutes of loading
    corpus, task, answers, metrics = load_problems(profile), LeetcodeTask(), {}, {}
    if (before.parent / "metrics.json").is_file():  # not where it was trained in shards
        references.saved_scores(profile, corpus)  # or a test problem may be one that the adapter was trained on
    test, _ = evaluation.drop_broken_problems(corpus.test)
    base, tokenizer = load_base_model(profile.model)
    model = add_lora(base, profile.lora, profile.seed)
    references.put_in_place(model, before, profile)

    def score(arm: str) -> None:
        with stages(f"evaluate {arm}"):
            metrics[arm], answers[arm] = evaluation.evaluate_task(
                model, tokenizer, task, test, profile.leetcode, label=arm
            )

    score("references")
    trainer = make_grpo_trainer(model, tokenizer, corpus.train, profile, folder / "trainer", references.content(before))
    with stages("training"):
        train_on(trainer)
    score("grpo")
    save_adapter(model, folder / "adapter", adapter_note(profile, "leetcode"))
    write_jsonl(folder / "predictions.jsonl", evaluation.merge_predictions(test, answers))
    metrics["pass_p_value"] = evaluation.paired_code_p_value(answers["references"], answers["grpo"])
    names = ("step", "reward", "reward_std", "completions/mean_length")
    log = [{name: one[name] for name in names if name in one} for one in trainer.state.log_history if "reward" in one]
    provenance_of = provenance(profile, stages, corpus.manifest["fingerprints"])
    write_json(folder / "metrics.json", metrics | {"rewards": log, "provenance": provenance_of})
    delete_checkpoints(trainer)  # what a tracker wrote beside them stays
    return folder
