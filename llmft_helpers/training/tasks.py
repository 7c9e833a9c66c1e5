"""A task from its data to its saved results: the steps that notebooks 02 and 03 and the command `train` share."""

from pathlib import Path

from .. import processes
from ..data.corpora import Corpus, load_pairs, load_problems
from ..data.prompts import LeetcodeTask, Task, TranslationTask, few_shot_rows, training_rows
from ..errors import UserError
from ..grading.execution import isolation_level
from ..models.loading import adapters_off, add_lora, load_adapter, load_base_model, model_path, save_adapter
from ..models.model_card import write_model_card
from ..models.notes import adapter_note
from ..profiles import Profile
from ..reports.tables import ARMS
from ..runs import Stages, provenance, run_dir, save_metrics
from ..scoring import evaluation
from ..storage import write_json, write_jsonl
from .checkpoints import delete_checkpoints
from .fine_tuning import fine_tune, make_trainer
from .references import content
from .tracking import tracking_arguments
from .watching import Watch


class Experiment:
    """One task ("translation" or "leetcode") of one profile; its methods are its steps, in this order.

    `metrics` and `answers` hold what was scored so far, by arm: "base", "base_few_shot", "tuned". Under a launcher
    every process takes its share of each batch and of the test rows, and rank 0 writes.
    """

    def __init__(self, profile: Profile, name: str):
        self.profile, self.name, self.settings = profile, name, getattr(profile, name)
        self.stages, self.folder = Stages(), run_dir(profile, name)
        self.metrics: dict[str, dict] = {}
        self.answers: dict[str, list[dict]] = {}
        self.left_out: list[dict] = []  # gradings of test problems whose own reference fails

    def read_data(self) -> Corpus:
        """The merged and split rows; test problems count only if their reference passes their tests."""
        with self.stages("data"), processes.main_first():
            if self.name == "translation":
                self.task: Task = TranslationTask(self.settings.direction)
                self.corpus = load_pairs(self.profile)
            else:
                self.task, self.corpus = LeetcodeTask(), load_problems(self.profile)
                self.corpus.splits["test"], self.left_out = evaluation.drop_broken_problems(self.corpus.test)
        return self.corpus

    def load_model(self):
        """(model, tokenizer): the base with fresh LoRA weights beside its projections."""
        with self.stages("load model"):
            with processes.main_first():
                model_path(self.profile.model)  # what has to be made or converted, by one process
            base, self.tokenizer = load_base_model(self.profile.model)
            self.model = add_lora(base, self.profile.lora, self.profile.seed)
        return self.model, self.tokenizer

    def make_trainer(self):
        """TRL's trainer over this task's rows; checkpoints go beside the results."""
        self.trainer = make_trainer(
            self.model,
            self.tokenizer,
            training_rows(self.task, self.corpus.train),
            training_rows(self.task, self.corpus.validation),
            self.settings.train,
            self.profile.model.max_length,
            self.folder / "trainer",
            self.profile.seed,
            Watch(self.task, self.corpus.validation, self.settings),
            tracking_arguments(self.profile, self.name),
        )
        return self.trainer

    def score(self, arm: str, shots: list[dict] = (), asked: Task | None = None) -> dict:
        """The metrics of the model as it now is, on the test rows."""
        with self.stages(f"evaluate {arm}"):
            self.metrics[arm], self.answers[arm] = evaluation.evaluate_task(
                self.model, self.tokenizer, asked or self.task, self.corpus.test, self.settings, shots, label=arm
            )
        return self.metrics[arm]

    def score_untuned(self) -> tuple[dict, dict]:
        """Metrics of the bare base, and of the base that is shown solved training rows before each question."""
        with adapters_off(self.model):
            shown = few_shot_rows(self.task, self.corpus.train, self.settings.shots)
            return self.score("base"), self.score("base_few_shot", shown)

    def train(self) -> dict:
        """What `fine_tune` says of the training."""
        with self.stages("training"):
            self.trained = fine_tune(self.trainer)
        return self.trained

    def score_tuned(self) -> dict:
        """Metrics of the tuned model; of "both" directions the table is es-en, and the way back is scored once."""
        tuned = self.score("tuned")
        if len(self.task.trained()) > 1:
            self.score("tuned_en_es", asked=TranslationTask("en-es"))
        return tuned

    def save(self, weights: dict | None = None) -> dict:
        """Adapter, predictions, manifest, metrics and model card on disk, then the checkpoints deleted; the metrics.

        `weights`: of a model that is sharded over processes, gathered; it is saved and not scored.
        """
        metrics = {}
        if processes.is_main():
            write_json(self.folder / "manifest.json", self.corpus.manifest)
            save_adapter(self.model, self.folder / "adapter", adapter_note(self.profile, self.name), weights)
            metrics = self._save_scores() if self.metrics else {}
        delete_checkpoints(self.trainer)
        return metrics

    def predictions(self) -> list[dict]:
        """One record a test row: what was asked, the reference and the answers of the arms scored so far."""
        arms = {arm: self.answers[arm] for arm in ARMS if arm in self.answers}
        return evaluation.merge_predictions(self.corpus.test, arms)

    def _save_scores(self) -> dict:
        write_jsonl(self.folder / "predictions.jsonl", self.predictions())
        metrics = self.metrics | self._comparison()
        metrics |= {
            "training": self.trained,
            "rows": self.corpus.counts,
            "provenance": provenance(self.profile, self.stages, self.corpus.manifest["fingerprints"])
            | {"processes": processes.count(), "adapter": content(self.folder / "adapter")},
        }
        save_metrics(self.profile, self.name, metrics)
        write_model_card(self.folder, self.tokenizer)
        return metrics

    def _comparison(self) -> dict:
        """Base against tuned: the p-values, and what they are to be read with."""
        base, few_shot, tuned = (self.answers[arm] for arm in ARMS)
        if self.name == "leetcode":
            return {
                "pass_p_value": evaluation.paired_code_p_value(base, tuned),
                "best_constant_share": evaluation.best_constant_share(self.corpus.test),
                "left_out": [one["task_id"] for one in self.left_out],
                "isolation": isolation_level(),
            }
        references = [row[self.task.target] for row in self.corpus.test]
        return {
            "bleu_p_value": evaluation.paired_translation_p_value(base, tuned, references, "bs"),
            "bleu_p_value_ar": evaluation.paired_translation_p_value(base, tuned, references, "ar"),
            "bleu_p_value_few_shot": evaluation.paired_translation_p_value(few_shot, tuned, references),
            "reference_language": evaluation.language_shares(self.task, references),
        }

    def score_reloaded(self, rows: int) -> tuple[dict, dict, int]:
        """(metrics of the model in memory, of a fresh base with the saved adapter, how many texts are the same), on the
        first test rows.
        """
        check = self.corpus.test[:rows]
        with self.stages("reload"):
            fresh, tokenizer = load_base_model(self.profile.model)
            fresh = load_adapter(fresh, self.folder / "adapter", self.profile.model)
            (before, texts), (after, again) = (
                evaluation.evaluate_task(model, its_tokenizer, self.task, check, self.settings, label=label)
                for model, its_tokenizer, label in ((self.model, self.tokenizer, "before"), (fresh, tokenizer, "after"))
            )
        return before, after, sum(a["text"] == b["text"] for a, b in zip(texts, again, strict=True))


def train_task(profile: Profile, name: str) -> Path:
    """Fine-tune, score and save without a notebook, in one process or in one a GPU; the task's folder.

    A sharded model (FSDP) is trained and saved only: it cannot answer row by row.
    """
    experiment = Experiment(profile, name)
    experiment.read_data()
    experiment.load_model()
    trainer = experiment.make_trainer()
    processes.fill_last_batch(trainer)
    sharded = trainer.is_fsdp_enabled
    if sharded and experiment.settings.train.keep == "score":
        raise UserError('train.keep = "score" needs a model that can answer: a sharded one cannot, use "loss"')
    if not sharded:
        experiment.score_untuned()
    experiment.train()
    if not sharded:
        experiment.score_tuned()
    experiment.save(trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None)
    processes.wait_for_all()
    return experiment.folder
