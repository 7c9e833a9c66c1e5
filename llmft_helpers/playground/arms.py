"""One question, three answers: from the base, from the base that is shown solved examples, and from the tuned model."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..answering import too_long
from ..data.prompts import LeetcodeTask, Task, few_shot_prompt, few_shot_rows
from ..grading.execution import grade
from ..grading.problems import read_problem
from ..models.generation import Timer, generate
from ..models.loading import adapters_off
from ..profiles import TaskSettings
from ..reports.tables import ARM_NAMES, ARMS, differences
from ..scoring.answers import extract_code


@dataclass(frozen=True)
class Answer:
    """`graded`: what `execution.grade` says of it, {} for a question without tests; grading is not in `seconds`."""

    text: str
    seconds: float
    graded: dict

    @property
    def verdict(self) -> str:
        """How many tests it passes, and why not all."""
        if not self.graded:
            return ""
        shares = f"{self.graded['tests_passed']} of {self.graded['tests_total']} tests passed"
        return shares if self.graded["passed"] else f"{shares}, {self.graded['verdict']}: {self.graded['detail']}"


class Arms:
    """A base with an adapter, asked one question after the other; `train`: rows to take few-shot examples from."""

    def __init__(self, model, tokenizer, task: Task, settings: TaskSettings, train: list[dict], adapter="default"):
        self.model, self.tokenizer, self.task, self.settings, self.adapter = model, tokenizer, task, settings, adapter
        self.shots = few_shot_rows(task, train, settings.shots)

    def fault(self, row: dict) -> str | None:
        """What is wrong with a question, before any time is spent on it."""
        length = len(self.tokenizer(self._prompt("base_few_shot", row)).input_ids)
        return too_long(self.model, length, self.settings)

    def ask(self, row: dict, watch: Callable[[str], None] = lambda arm: None) -> dict[str, Answer]:
        """Answers by arm; a row with `tests` or `test` is graded by them. `watch` hears which arm comes next.

        UserError if the tests cannot be read.
        """
        tested = isinstance(self.task, LeetcodeTask) and bool(row.get("tests") or row.get("test"))
        if tested:
            read_problem(row)
        answers = {}
        for arm in ARMS:
            watch(ARM_NAMES[arm])
            answers[arm] = self._answer(arm, row)
        return self._graded(answers, row) if tested else answers

    def _prompt(self, arm: str, row: dict) -> str:
        return few_shot_prompt(self.task, row, self.shots if arm == "base_few_shot" else [])

    def _answer(self, arm: str, row: dict) -> Answer:
        self.model.set_adapter(self.adapter)
        bare = contextlib.nullcontext() if arm == "tuned" else adapters_off(self.model)
        settings, prompt = self.settings, self._prompt(arm, row)
        with bare, Timer() as timer:
            (written,) = generate(self.model, self.tokenizer, [prompt], settings.max_new_tokens, self.task.stop)
        code = isinstance(self.task, LeetcodeTask)
        text = self.task.program(row, written.text) if code else self.task.answer(written.text)
        return Answer(text, timer.seconds, {})

    def _graded(self, answers: dict[str, Answer], row: dict) -> dict[str, Answer]:
        programs = [extract_code(answer.text, row.get("entry_point")) for answer in answers.values()]
        graded = grade(programs, [row] * len(programs))
        return {arm: replace(answers[arm], graded=one) for arm, one in zip(answers, graded, strict=True)}


def marked(answers: dict[str, Answer]) -> dict[str, list[tuple[str, bool]]]:
    """Each arm's text in pieces, with whether it differs: untuned answers from the tuned, the tuned from the base's."""
    other = {arm: answers["base" if arm == "tuned" else "tuned"] for arm in answers}
    return {arm: differences(answer.text, other[arm].text) for arm, answer in answers.items()}
