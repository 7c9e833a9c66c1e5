"""fine_tune(): TRL's SFTTrainer with our settings, loss on completions only, resumable."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from .. import processes
from ..device import compute_dtype, has_card
from ..errors import UserError
from ..models.boundary import encode
from ..models.loading import cast_adapter
from ..profiles import TrainSettings
from ..storage import fingerprint, read_json
from .checkpoints import MARK, last_checkpoint
from .tracking import PROJECT
from .watching import Watch

ATTENTION_CELLS = 2**20  # rows x tokens^2 that a CPU holds at once, for each head and layer
PATIENCE = 2  # checks without a new lowest validation loss before training stops


def make_trainer(
    model,
    tokenizer,
    train_rows: list[dict[str, str]],
    validation_rows: list[dict[str, str]],
    settings: TrainSettings,
    max_length: int,
    output_dir: Path,
    seed: int,
    watch: Watch | None = None,
    tracking: dict | None = None,
):
    """TRL's SFTTrainer over `{"prompt", "completion"}` rows, loss on the completion and the end token alone.

    Rows longer than `max_length` tokens are left out and counted in `trainer.rows_too_long`: the trainer would
    cut them, and the end token with them. `watch` answers validation rows at every check,
    `tracking` is from `tracking_arguments`. UserError if no row fits, and for keep = "score" with nothing to score.
    """
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, PrinterCallback

    from .trainer import Checks, LoraTrainer, Progress

    watch = watch if settings.scored_rows else None
    if settings.keep == "score" and watch is None:
        raise UserError('train.keep = "score" needs rows to score: set train.scored_rows above 0')
    train, _ = examples(tokenizer, train_rows, settings.loss_on_prompt, max_length)
    validation, watched = examples(tokenizer, validation_rows, settings.loss_on_prompt, max_length)
    if not train or not validation:
        raise UserError(f"no training or validation row fits max_length = {max_length} tokens; raise it in the profile")
    key = _run_key(model, train, validation, settings, max_length, seed)
    steps = total_steps(len(train), settings)
    parts = batch_parts(settings.batch_size, max(len(one["input_ids"]) for one in train))
    arguments = training_arguments(settings, steps, max_length, output_dir, seed, parts, **(tracking or {}))
    if settings.keep == "score":
        arguments.metric_for_best_model, arguments.greater_is_better = watch.metric, True
    trainer = LoraTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(validation),
        processing_class=tokenizer,
    )
    if not has_card():  # TRL made it bfloat16, which takes no step smaller than 1/256 of a weight
        cast_adapter(model, torch.float32)
    trainer.remove_callback(PrinterCallback)
    trainer.checks = Checks(settings.evaluations, key)
    for callback in (Progress(), trainer.checks, EarlyStoppingCallback(early_stopping_patience=PATIENCE)):
        trainer.add_callback(callback)
    trainer.rows_too_long = len(train_rows) - len(train)
    trainer.validation_rows, trainer.watch = watched, watch
    trainer.length_limit = max_length  # `args.max_length` is None where nothing is padded
    return trainer


def _run_key(model, train, validation, settings: TrainSettings, max_length: int, seed: int) -> str:
    """Fingerprint of all that decides how a run goes: only a checkpoint with the same key is gone on with."""
    lora = model.active_peft_config
    adapter = [
        lora.r,
        lora.lora_alpha,
        lora.lora_dropout,
        lora.use_rslora,
        sorted(lora.target_modules),
        model.loftq,
        model.int8_products,
    ]
    base = [model.config._name_or_path, model.config._commit_hash, model.precision, str(model.dtype)]
    return fingerprint([asdict(settings), train, validation, max_length, seed, adapter, base])


def fine_tune(trainer) -> dict:
    """Train, put the adapter of the lowest validation loss (or best score) in place, and return `{"history": [{"step",
    "loss" | "validation_loss" | "bleu" | "tests_passed"}], "samples": [{"step", "samples", "seconds"}], "steps",
    "kept_step", "resumed_from", "seconds", "tokens", "tokens_per_second",
    "rows_too_long", "int8_products"}`; tokens are unpadded, seconds include those before an interruption.

    A run that was killed goes on from its last checkpoint in `output_dir` and ends as if it had not been, on a card
    within rounding; the checkpoints (adapter and optimizer, three at most) stay until `delete_checkpoints`. UserError
    at the step where the loss is not a number.
    """
    folder = Path(trainer.args.output_dir)
    with trainer.accelerator.main_process_first():  # the first to look deletes what is of no use
        checkpoint = last_checkpoint(folder, trainer.checks.key)
    if checkpoint:
        mark = read_json(checkpoint / MARK)
        trainer.checks.seconds_before = mark["seconds"]
    beginning = f"going on from step {mark['step']}" if checkpoint else "starting at step 0"
    print(f"{beginning}; checkpoints in {os.path.relpath(folder)}")
    with faults_told(trainer, out_of_memory_advice):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not has_card():
        cast_adapter(trainer.model, trainer.model.dtype)
    seconds, tokens = trainer.checks.seconds(), trainer.state.num_input_tokens_seen
    return {
        "history": _history(trainer.state.log_history),
        "samples": [entry for entry in trainer.state.log_history if "samples" in entry],
        "steps": trainer.state.global_step,
        "kept_step": trainer.state.best_global_step,
        "resumed_from": mark["step"] if checkpoint else 0,
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "rows_too_long": trainer.rows_too_long,
        "int8_products": trainer.model.int8_products,
    }


@contextlib.contextmanager
def faults_told(trainer, advice: Callable) -> Iterator[None]:
    """Memory or disk that ends while `trainer` trains, as a UserError; `advice(trainer)` says what to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        used = f" at {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if torch.cuda.is_available() else ""
        raise UserError(
            f"out of memory{used} in training step {trainer.state.global_step + 1}; in a copy of the profile set, "
            f"one after the other until it fits: {advice(trainer)}"
        ) from error
    except RuntimeError as error:
        if "unexpected pos" not in str(error):  # what torch.save says when a file cannot be written to its end
            raise
        raise UserError(
            f"cannot write a checkpoint in {trainer.args.output_dir}: free some space and run again: it goes on "
            "from the last whole checkpoint"
        ) from error


def out_of_memory_advice(trainer) -> str:
    """What to lower, in the order of what it costs, with this run's own numbers."""
    batch, length = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps, trainer.length_limit
    rank = next(iter(trainer.model.peft_config.values())).r
    steps = [
        "lora.gradient_checkpointing = true (slower, same result)",
        f"train.batch_size = {max(1, batch // 2)} (was {batch})",
        f"model.max_length = {length // 2} (was {length}; leaves longer rows out)",
        f"lora.rank = {max(1, rank // 2)} (was {rank})",
    ]
    return "; ".join(steps[trainer.model.is_gradient_checkpointing :])


def example(tokenizer, row: dict[str, str], loss_on_prompt: bool) -> dict[str, list[int]]:
    """`{"input_ids", "labels"}` of a row, which TRL does not tokenize again; -100 marks what is not scored."""
    tokens, known = encode(tokenizer, row["prompt"], row["completion"])
    tokens = [*tokens, tokenizer.eos_token_id]
    return {"input_ids": tokens, "labels": tokens if loss_on_prompt else [-100] * known + tokens[known:]}


def examples(
    tokenizer, rows: list[dict[str, str]], loss_on_prompt: bool, max_length: int
) -> tuple[list[dict[str, list[int]]], list[dict[str, str]]]:
    """(the `example` of each row that fits, these rows): the trainer would cut others, and the end token with it."""
    every = [(example(tokenizer, row, loss_on_prompt), row) for row in rows]
    fit = [(one, row) for one, row in every if len(one["input_ids"]) <= max_length]
    return [one for one, _ in fit], [row for _, row in fit]


def total_steps(rows: int, settings: TrainSettings) -> int:
    steps = math.ceil(math.ceil(rows / settings.batch_size) * settings.epochs)
    return min(steps, settings.max_steps or steps)


def batch_parts(batch_size: int, longest: int) -> int:
    """In how many equal parts a batch of rows of up to `longest` tokens is computed, its gradients summed.

    Attention on a CPU keeps (rows, heads, T, T) weights for every layer; a GPU's never forms them. Processes share a
    whole batch.
    """
    if has_card() or processes.count() > 1:
        return 1
    rows = max(1, ATTENTION_CELLS // longest**2)
    return next(parts for parts in range(1, batch_size + 1) if batch_size % parts == 0 and batch_size // parts <= rows)


def training_arguments(
    settings: TrainSettings,
    steps: int,
    max_length: int,
    output_dir: Path,
    seed: int,
    parts: int = 1,
    report_to: str | list[str] = "none",
    run_name: str | None = None,
):
    """TRL's SFTConfig: no compute on padding, cosine to zero; `trainer.Checks` adds the checks before the last."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(output_dir),
        max_length=max_length,
        completion_only_loss=not settings.loss_on_prompt,
        num_train_epochs=settings.epochs,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size // parts,
        gradient_accumulation_steps=parts,
        per_device_eval_batch_size=settings.batch_size,  # of a sharded model; others are scored by `LoraTrainer`
        accelerator_config={"split_batches": True},  # several processes share a batch, so that its size stays
        ddp_find_unused_parameters=False,
        train_sampling_strategy="group_by_length",
        pad_to_multiple_of=4,  # few shapes, as kernels are made once for each, and little padding
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(settings.warmup_ratio * steps)),
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=compute_dtype() == torch.bfloat16,
        fp16=compute_dtype() == torch.float16,
        gradient_checkpointing=False,
        logging_steps=max(1, steps // 50),
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=steps,
        save_strategy="steps",
        save_steps=steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        restore_callback_states_from_checkpoint=True,
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
        seed=seed,
        data_seed=seed,
        report_to=report_to,
        run_name=run_name,
        project=PROJECT,
    )


def _history(log: list[dict]) -> list[dict]:
    names = {"loss": "loss", "eval_loss": "validation_loss", "eval_bleu": "bleu", "eval_tests_passed": "tests_passed"}
    return [{"step": entry["step"], name: entry[key]} for entry in log for key, name in names.items() if key in entry]
