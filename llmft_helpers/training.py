"""fine_tune(): TRL's SFTTrainer with our settings, loss on completions only, resumable."""

import math
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from .errors import UserError
from .generation import Timer
from .profiles import TrainSettings
from .runs import bf16_supported

LOSSES = {"loss": "loss", "validation": "eval_loss"}


def make_trainer(
    model,
    tokenizer,
    train_rows: list[dict[str, str]],
    validation_rows: list[dict[str, str]],
    settings: TrainSettings,
    max_length: int,
    output_dir: Path,
    seed: int,
):
    """TRL's SFTTrainer over `{"prompt", "completion"}` rows, loss on the completion and the end token alone.

    Rows longer than `max_length` tokens are left out and counted in `trainer.rows_too_long`: the trainer would
    cut them, and the end token with them. UserError if no row fits.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    train_rows, too_long = drop_too_long(tokenizer, train_rows, max_length)
    validation_rows, _ = drop_too_long(tokenizer, validation_rows, max_length)
    if not train_rows or not validation_rows:
        raise UserError(f"no training or validation row fits max_length = {max_length} tokens; raise it in the profile")
    steps = total_steps(len(train_rows), settings)
    trainer = SFTTrainer(
        model=model,
        args=training_arguments(settings, steps, max_length, output_dir, seed),
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(validation_rows),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_progress_callback())
    trainer.rows_too_long = too_long
    return trainer


def _progress_callback():
    """One line of progress with the losses, on standard output: reports show it once and not in red."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.bar = tqdm(total=state.max_steps, desc="training", file=sys.stdout, mininterval=1)
            self.shown = {}

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.shown |= {name: f"{float(logs[key]):.3f}" for name, key in LOSSES.items() if key in (logs or {})}
            self.bar.set_postfix(self.shown, refresh=False)

        def on_step_end(self, args, state, control, **kwargs):
            self.bar.update(state.global_step - self.bar.n)

        def on_train_end(self, args, state, control, **kwargs):
            self.bar.close()

    return Progress()


def fine_tune(trainer) -> dict:
    """Train and return `{"history": [{"step", "loss" | "validation_loss"}], "steps", "seconds", "tokens",
    "tokens_per_second", "rows_too_long"}`; tokens are unpadded. UserError if the loss is not a number.
    """
    with Timer() as timer:
        try:
            trainer.train()
        except torch.OutOfMemoryError as error:
            raise UserError(out_of_memory_advice(trainer)) from error
    tokens = trainer.state.num_input_tokens_seen
    return {
        "history": _history(trainer.state.log_history),
        "steps": trainer.state.global_step,
        "seconds": timer.seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / timer.seconds,
        "rows_too_long": trainer.rows_too_long,
    }


def out_of_memory_advice(trainer) -> str:
    """What to lower, in the order of what it costs, with this run's own numbers."""
    batch, length = trainer.args.per_device_train_batch_size, trainer.args.max_length
    rank = next(iter(trainer.model.peft_config.values())).r
    steps = [
        "lora.gradient_checkpointing = true (slower, same result)",
        f"train.batch_size = {max(1, batch // 2)} (was {batch})",
        f"model.max_length = {length // 2} (was {length}; leaves longer rows out)",
        f"lora.rank = {max(1, rank // 2)} (was {rank})",
    ]
    used = f" at {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if torch.cuda.is_available() else ""
    return (
        f"out of memory{used} in training step {trainer.state.global_step + 1}; in a copy of the profile set, "
        f"one after the other until it fits: {'; '.join(steps[trainer.model.is_gradient_checkpointing :])}"
    )


def token_count(tokenizer, row: dict[str, str]) -> int:
    """Tokens of a training row, its end token included."""
    return len(tokenizer(row["prompt"] + row["completion"]).input_ids) + 1


def drop_too_long(tokenizer, rows: list[dict[str, str]], max_length: int) -> tuple[list[dict[str, str]], int]:
    """(rows that fit, how many did not): the trainer would cut them, and the end token with it."""
    kept = [row for row in rows if token_count(tokenizer, row) <= max_length]
    return kept, len(rows) - len(kept)


def total_steps(rows: int, settings: TrainSettings) -> int:
    steps = math.ceil(math.ceil(rows / settings.batch_size) * settings.epochs)
    return min(steps, settings.max_steps or steps)


def training_arguments(settings: TrainSettings, steps: int, max_length: int, output_dir: Path, seed: int):
    """TRL's SFTConfig: no compute on padding, cosine to zero, and validation `evaluations` times."""
    from trl import SFTConfig

    every = max(1, steps // settings.evaluations)
    bf16 = bf16_supported()
    return SFTConfig(
        output_dir=str(output_dir),
        max_length=max_length,
        completion_only_loss=True,
        num_train_epochs=settings.epochs,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        accelerator_config={"split_batches": True},  # several processes share a batch, so that its size stays
        ddp_find_unused_parameters=False,
        train_sampling_strategy="group_by_length",
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(settings.warmup_ratio * steps)),
        weight_decay=0.0,
        optim="adamw_torch_fused",
        bf16=bf16,
        fp16=not bf16,
        gradient_checkpointing=False,
        logging_steps=max(1, steps // 50),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
        seed=seed,
        data_seed=seed,
    )


def _history(log: list[dict]) -> list[dict]:
    history = []
    for entry in log:
        if "loss" in entry:
            history.append({"step": entry["step"], "loss": entry["loss"]})
        elif "eval_loss" in entry:
            history.append({"step": entry["step"], "validation_loss": entry["eval_loss"]})
    for entry in history:
        if not math.isfinite(entry.get("loss", entry.get("validation_loss"))):
            raise UserError(
                f"the loss became {entry} at step {entry['step']}: lower learning_rate (halve it) and run again"
            )
    return history
