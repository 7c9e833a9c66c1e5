"""Notebook 05 step by step: answers are sampled and graded, those that pass are trained on, all arms are compared."""

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ..data.corpora import Corpus, load_pairs, load_problems
from ..data.prompts import LANGUAGES, LeetcodeTask, TranslationTask, training_rows
from ..device import has_card
from ..models.loading import (
    adapters_off,
    add_lora,
    cast_adapter,
    load_base_model,
    read_adapter_note,
    save_adapter,
)
from ..models.notes import adapter_note
from ..models.sampling import Sampling
from ..profiles import Profile
from ..runs import Stages, provenance, run_dir, save_metrics
from ..scoring import evaluation
from ..scoring.metrics import completion_nats, text_nats, total
from ..storage import fingerprint, read_json, read_jsonl, write_json, write_jsonl
from . import references
from .fine_tuning import fine_tune, make_trainer
from .own_answers import kept_counts, passing_rows, sample_answers, sample_scores

WATCHED = 8  # of so many problems with a solution, one is watched instead of trained on
PASSES = 4  # over own answers: they are few, and one pass would be a handful of steps
OTHER_ROWS = 50  # validation pairs, and of problems, that forgetting is measured on


class FromTests:
    """Its methods are the steps, in this order; after a kill each goes on where it was.

    It begins with what notebook 03 left: the scores of "base" and of the adapter that was tuned on "references".
    "own" is tuned on the model's passing answers alone, "both" on references first and then on these.
    """

    def __init__(self, profile: Profile):
        self.profile, self.settings, self.asked = profile, profile.leetcode, profile.from_tests
        passes = {"epochs": PASSES, "evaluations": PASSES}
        self.training = replace(self.settings.train, **passes, scored_rows=0, keep="loss")
        self.stages, self.folder, self.before = Stages(), run_dir(profile, "from_tests"), run_dir(profile, "leetcode")
        self.metrics: dict[str, dict] = {}
        self.answers: dict[str, list[dict]] = {}
        self.trained: dict[str, dict] = {}
        self.adapters = {"references": self.before / "adapter"}
        self.rounds: list[dict] = []
        self.own: list[dict] = []  # problems, with a passing answer in the place of the reference

    def read_data(self) -> Corpus:
        """The problems of notebook 03 and its scores; `rows` are those that will be asked."""
        with self.stages("data"):
            self.corpus = load_problems(self.profile)
            saved = references.saved_scores(self.profile, self.corpus)
            written = {row["task_id"]: row for row in read_jsonl(self.before / "predictions.jsonl")}
            self.corpus.splits["test"] = [row for row in self.corpus.test if row["task_id"] in written]
            for arm, name in (("base", "base"), ("references", "tuned")):
                self.metrics[arm] = saved[name]
                self.answers[arm] = [written[row["task_id"]][name] for row in self.corpus.test]
            by_length = sorted(self.corpus.train, key=lambda row: len(LeetcodeTask().completion(row)))
            self.rows = by_length[: self.asked.problems or None]
            self.sampled: list[list[dict]] = [[] for _ in self.rows]
        return self.corpus

    def load_model(self):
        """(model, tokenizer): the base with the adapter that was tuned on references."""
        with self.stages("load model"):
            base, self.tokenizer = load_base_model(self.profile.model)
            self.model = add_lora(base, self.profile.lora, self.profile.seed)
            self.fresh = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
            self._take(self.adapters["references"])
        return self.model, self.tokenizer

    def sample(self) -> dict:
        """A round: what `sample_scores` says of the answers by the model that is asked first, or as "both" left it."""
        number, asked = len(self.rounds) + 1, self.asked
        arm = "both" if "both" in self.adapters else asked.answered_by
        path = self.folder / f"round_{number}" / "answers.jsonl"
        sampling = Sampling(asked.temperature, asked.top_p, asked.samples, self.profile.seed + number)
        with self.stages(f"round {number}: sample and grade"), self.using(arm):
            adapter = "none" if arm == "base" else references.content(self.adapters[arm])
            key = fingerprint([asdict(self.profile.model), adapter])
            drawn = sample_answers(self.model, self.tokenizer, self.rows, sampling, self.settings, path, key)
        self.sampled = [earlier + new for earlier, new in zip(self.sampled, drawn, strict=True)]
        self.own = passing_rows(self.rows, self.sampled, asked.kept)
        self.rounds.append(sample_scores(drawn))
        return self.rounds[-1]

    @property
    def kept(self) -> dict[str, int]:
        """What `kept_counts` says of the answers kept so far."""
        return kept_counts(self.own, self.rows)

    def train(self, arm: str) -> dict:
        """What `fine_tune` says of the training of "own" or "both" on the answers kept so far; {} where none passed.
        An adapter that is saved is not trained twice."""
        if not self.own:
            return {}
        folder = self.folder / f"round_{len(self.rounds)}" / arm
        start = self.adapters["references"] if arm == "both" else None
        before = start and references.content(start)
        settings = [asdict(one) for one in (self.profile.model, self.profile.lora, self.training)]
        rows, watched = watch_some(self.own)
        run = fingerprint([self.own, before, settings, self.profile.seed, *([] if watched else self.corpus.validation)])
        with self.stages(f"train {arm}"):
            note = read_adapter_note(folder / "adapter") if (folder / "adapter").is_dir() else {}
            if note.get("run") != run:
                self._take(start)
                trained = fine_tune(self._trainer(rows, watched or self.corpus.validation, folder / "trainer" / run))
                note = adapter_note(self.profile, "leetcode") | {"run": run, "training": trained}
                save_adapter(self.model, folder / "adapter", note)
            shutil.rmtree(folder / "trainer", ignore_errors=True)
            self._take(folder / "adapter")
        self.adapters[arm] = folder / "adapter"
        self.trained[arm] = note["training"] | {"watched_problems": len({row["task_id"] for row in watched})}
        return self.trained[arm]

    def _trainer(self, train: list[dict], watched: list[dict], folder: Path):
        rows = [training_rows(LeetcodeTask(), some) for some in (train, watched)]
        length, seed = self.profile.model.max_length, self.profile.seed
        return make_trainer(self.model, self.tokenizer, *rows, self.training, length, folder, seed)

    def _take(self, adapter: Path | None) -> None:
        """Put an adapter's weights, or the fresh ones, in place."""
        if adapter is not None:
            references.put_in_place(self.model, adapter, self.profile)
        else:
            parameters = dict(self.model.named_parameters())
            with torch.no_grad():
                for name, weights in self.fresh.items():
                    parameters[name].copy_(weights)
        if not has_card():
            cast_adapter(self.model, self.model.dtype)

    @contextlib.contextmanager
    def using(self, arm: str) -> Iterator[None]:
        """The model of an arm inside the block."""
        if arm == "base":
            with adapters_off(self.model):
                yield
        else:
            self._take(self.adapters[arm])
            yield

    def score(self) -> dict[str, dict]:
        """Metrics by arm on the test problems; those of "base" and "references" are notebook 03's."""
        for arm in self.trained:
            with self.stages(f"evaluate {arm}"):
                scored = self._scored(arm)
                self.metrics[arm], self.answers[arm] = scored["metrics"], scored["answers"]
        return self.metrics

    def _scored(self, arm: str) -> dict:
        """Metrics and answers of an adapter, kept beside it."""

        def score() -> dict:
            metrics, answers = evaluation.evaluate_task(
                self.model, self.tokenizer, LeetcodeTask(), self.corpus.test, self.settings, label=arm
            )
            return {"metrics": metrics, "answers": answers}

        tests = self.corpus.manifest["fingerprints"]["test"]
        return self._kept(arm, "scores.json", [tests, self.settings.max_new_tokens], score)

    def score_other_texts(self) -> dict[str, dict]:
        """Bits per byte by arm: translations and solutions given their prompt, and each language as raw text."""
        pairs, problems = load_pairs(self.profile).validation[:OTHER_ROWS], self.corpus.validation[:OTHER_ROWS]
        wanted = {"translations": training_rows(TranslationTask("es-en"), pairs)}
        wanted["solutions"] = training_rows(LeetcodeTask(), problems)
        texts = {LANGUAGES[side]: [row[side] for row in pairs] for side in LANGUAGES}
        length = self.profile.model.max_length

        def score() -> dict:
            nats = {kind: completion_nats(self.model, self.tokenizer, rows) for kind, rows in wanted.items()}
            nats |= {kind: text_nats(self.model, self.tokenizer, some, length) for kind, some in texts.items()}
            return {kind: total(some).bits_per_byte for kind, some in nats.items()}

        self.other: dict[str, dict] = {}
        for arm in self.metrics:
            with self.stages("forgetting"):
                self.other[arm] = self._kept(arm, "other_texts.json", [wanted, texts], score)
        return self.other

    def _kept(self, arm: str, name: str, asked: list, measure: Callable[[], dict]) -> dict:
        """What `measure` says of an arm, from the file `name` where it stands there already."""
        adapter = None if arm == "base" else self.adapters[arm]
        folder = adapter.parent if arm in self.trained else self.folder / arm
        run = fingerprint([asdict(self.profile.model), adapter and references.content(adapter), asked])
        kept = read_json(folder / name) if (folder / name).is_file() else {}
        if kept.get("run") != run:
            with self.using(arm):
                kept = {"run": run, "measured": measure()}
            write_json(folder / name, kept)
        return kept["measured"]

    def save(self) -> dict:
        """Metrics and predictions on disk; the metrics."""
        write_jsonl(self.folder / "predictions.jsonl", evaluation.merge_predictions(self.corpus.test, self.answers))
        metrics = self.metrics | {
            "rounds": self.rounds,
            "kept": self.kept,
            "training": self.trained,
            "p_values": {arm: self._p_values(arm) for arm in self.trained},
            "warm_up_p_values": {arm: self._p_values(arm, "Warm-up") for arm in self.trained},
            "other_texts": self.other,
            "provenance": provenance(self.profile, self.stages, self.corpus.manifest["fingerprints"]),
        }
        save_metrics(self.profile, "from_tests", metrics)
        return metrics

    def _p_values(self, arm: str, tier: str | None = None) -> dict[str, float]:
        """McNemar's, of problems solved (of one tier), against each arm that was there before."""
        chosen = [tier in (None, row.get("difficulty")) for row in self.corpus.test]
        answers = {name: list(itertools.compress(some, chosen)) for name, some in self.answers.items()}
        return {other: evaluation.paired_code_p_value(answers[other], answers[arm]) for other in ("base", "references")}


def watch_some(own: list[dict]) -> tuple[list[dict], list[dict]]:
    """(rows to train on, rows to watch the loss on): the latter are the own answers to every WATCHED-th problem."""
    names = list(dict.fromkeys(row["task_id"] for row in own))
    watched = set(names[WATCHED - 1 :: WATCHED])
    return [row for row in own if row["task_id"] not in watched], [row for row in own if row["task_id"] in watched]
