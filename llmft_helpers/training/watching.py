"""What a model in training answers to the first validation rows, and how well: the loss alone does not say it."""

import time
from dataclasses import dataclass

from ..data.prompts import Task, TranslationTask
from ..profiles import TaskSettings
from ..scoring.evaluation import answer_rows, score_answers

SHOWN = 3  # of the scored rows
LINES = 8  # of an answer


@dataclass(frozen=True)
class Watch:
    """The first `settings.train.scored_rows` of the validation rows, answered as test rows are."""

    task: Task
    rows: list[dict]
    settings: TaskSettings

    @property
    def metric(self) -> str:
        """The score's name among the trainer's metrics."""
        return "eval_bleu" if isinstance(self.task, TranslationTask) else "eval_tests_passed"

    def look(self, model, tokenizer) -> dict:
        """`{"score": BLEU, or the mean share of a problem's tests passed, "samples": [texts], "seconds"}`."""
        started = time.perf_counter()
        rows = self.rows[: self.settings.train.scored_rows]
        scores, answers = score_answers(self.task, rows, answer_rows(model, tokenizer, self.task, rows, self.settings))
        score = scores["bleu"] if self.metric == "eval_bleu" else scores["tests_passed_rate"]
        samples = [self._sample(row, answer) for row, answer in zip(rows[:SHOWN], answers, strict=False)]
        return {"score": score, "samples": samples, "seconds": time.perf_counter() - started}

    def _sample(self, row: dict, answer: dict) -> str:
        if isinstance(self.task, TranslationTask):
            return f"{row[self.task.source]} -> {answer['text']}"
        passed = f"{row.get('title') or row['task_id']}: {answer['tests_passed']} of {answer['tests_total']} tests"
        return "\n    ".join([passed, *answer["text"].strip().split("\n")[:LINES]])
