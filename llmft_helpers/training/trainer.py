"""TRL's trainers with what a long run needs: it resumes where it was, keeps the best adapter, stops at a bad loss.

Unsloth must be imported before trl, so that this module is imported only where a model is trained.
"""

import math
import sys
import time
from pathlib import Path

import unsloth  # noqa: F401  before transformers, peft and trl
from torch.utils.data import DistributedSampler
from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler
from trl import GRPOTrainer, SFTTrainer

from ..device import give_memory_back
from ..errors import UserError
from ..processes import spread
from ..scoring.metrics import completion_nats, total
from ..storage import write_json
from .checkpoints import MARK, restore_adapter
from .watching import Watch

LOSSES = {"loss": "loss", "validation": "eval_loss", "BLEU": "eval_bleu", "tests passed": "eval_tests_passed"}


class LoraTrainer(SFTTrainer):
    """Five methods of the library's trainer, each replaced where a resumed run would differ from an undisturbed one, a
    broken run would go on or a loss would be a mean of means; `tests/test_training.py` fails if the library stops
    calling them.
    """

    validation_rows: list[dict[str, str]]
    watch: Watch | None = None

    def _get_train_sampler(self, train_dataset=None):
        """Batches of like length, or random ones where nothing is padded: there one of the longest rows would save
        nothing and take the most memory. The order is a function of seed and epoch; the library draws it from global
        state."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.padding_free:
            return DistributedSampler(dataset, num_replicas=1, rank=0, seed=self.args.data_seed)
        return DistributedLengthGroupedSampler(
            self.args.train_batch_size * self.args.gradient_accumulation_steps,
            num_replicas=1,
            rank=0,
            seed=self.args.data_seed,
            lengths=[len(ids) for ids in dataset["input_ids"]],
        )

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        restore_adapter(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self):
        restore_adapter(self.model, Path(self.state.best_model_checkpoint))

    def evaluate(self, *args, **kwargs):
        """Nats a completion token, every token weighing the same, and what `watch` sees; the library's loss is a mean
        over batches of rows."""
        if self.is_fsdp_enabled:  # a shard cannot score by itself
            return super().evaluate(*args, **kwargs)
        rows = self.validation_rows
        scored = total(spread(rows, lambda part: completion_nats(self.model, self.processing_class, part)))
        metrics = {"eval_loss": scored.nats / scored.tokens}
        if self.watch:
            seen = self.watch.look(self.model, self.processing_class)
            metrics[self.watch.metric] = seen.pop("score")
            self.state.log_history.append({"step": self.state.global_step, **seen})  # no tracker takes texts
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)  # ()
        check_finite(loss.item(), self.state.global_step + 1)
        return loss


class ProblemTrainer(GRPOTrainer):
    """The library's, but that the order of an epoch's problems is a function of seed and epoch: a resumed run would
    begin with the first epoch's again."""

    def _get_train_sampler(self, dataset=None):
        sampler = super()._get_train_sampler(dataset)
        sampler.set_epoch = lambda epoch: sampler.generator.manual_seed(self.args.seed + epoch)
        return sampler


def check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise UserError(f"the loss became {loss} at step {step}: lower learning_rate (halve it) and run again")


class Checks(TrainerCallback):
    """Validation loss and checkpoint at equal distances, the last one at the end; marks whole checkpoints.

    The checkpoint of a run that is about to end is not marked: there is nothing to go on with.
    """

    def __init__(self, evaluations: int, key: str):
        self.evaluations, self.key = evaluations, key
        self.seconds_before = 0.0  # of earlier processes

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()
        self.steps = {round(state.max_steps * i / self.evaluations) for i in range(1, self.evaluations + 1)}

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.steps:
            # A logged loss is a mean since the last one, which a resumed run cannot know.
            control.should_log = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        check_finite(metrics["eval_loss"], state.global_step)
        give_memory_back()

    def on_save(self, args, state, control, **kwargs):
        if args.should_save and not control.should_training_stop:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            files = sorted(path.name for path in checkpoint.iterdir())
            mark = {"key": self.key, "step": state.global_step, "seconds": self.seconds(), "files": files}
            write_json(checkpoint / MARK, mark)


class Progress(TrainerCallback):
    """One line of progress with losses and score, and the samples of every check, on standard output: reports show it
    once and not in red."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc="training", file=sys.stdout, mininterval=1
        )
        self.shown = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.shown |= {name: f"{float(logs[key]):.3f}" for name, key in LOSSES.items() if key in (logs or {})}
        self.bar.set_postfix(self.shown, refresh=False)

    def on_evaluate(self, args, state, control, **kwargs):
        look = next((entry for entry in reversed(state.log_history) if "samples" in entry), None)
        if look:
            self.bar.write("\n  ".join([f"step {look['step']}:", *look["samples"]]), file=sys.stdout)

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()
