"""One template per task, used by training, evaluation, comparison and the command line alike.

A prompt ends without white space and the completion starts with it, so that for most tokenizers the tokens of the two
are the tokens of the whole; `models/boundary.py` has the others.
"""

import re
from dataclasses import dataclass

from . import method_bodies

LANGUAGES = {"es": "Spanish", "en": "English"}


@dataclass(frozen=True)
class TranslationTask:
    """`direction` is "es-en", "en-es" or "both"; an answer ends at the first line break.

    "both" trains on every pair in both directions; its questions are asked es-en.
    """

    direction: str = "es-en"
    name = "translation"
    stop = ("\n",)

    @property
    def source(self) -> str:
        return "en" if self.direction == "en-es" else "es"

    @property
    def target(self) -> str:
        return "es" if self.direction == "en-es" else "en"

    def trained(self) -> "tuple[TranslationTask, ...]":
        """The one-way tasks that a training row is turned into."""
        return (TranslationTask("es-en"), TranslationTask("en-es")) if self.direction == "both" else (self,)

    def prompt(self, row: dict) -> str:
        return f"{LANGUAGES[self.source]}: {row[self.source]}\n{LANGUAGES[self.target]}:"

    def completion(self, row: dict) -> str:
        return f" {row[self.target]}"

    def answer(self, generated: str) -> str:
        """The first line of what a model wrote."""
        return generated.strip().split("\n")[0].strip()


@dataclass(frozen=True)
class LeetcodeTask:
    """Unfinished code in, its rest out: signature and statement (as docstring, without its examples), then the body.

    A starter that is no single open method is named in a docstring of its own, and the whole solution is asked for.
    """

    name = "leetcode"
    # A base model that goes on to the next program has ended its answer.
    stop = ("\nclass ", "\nif __name__", "\nprint(", "\n#", "\n```", '\n"""', "\nassert ")

    def prompt(self, row: dict) -> str:
        head = method_bodies.signature(row["starter_code"])
        if head is None or self._whole(row):
            text = f"{self.statement(row)}\n\n{row['starter_code'].strip()}"
            return method_bodies.docstring(text, "")
        starter, indent = head
        return f"{starter}\n{method_bodies.docstring(self.statement(row), indent)}"

    @staticmethod
    def statement(row: dict) -> str:
        """The text before the first example: short prompts leave the context to the solution."""
        return row["problem_description"].split("\nExample 1")[0].strip()

    def trained(self) -> "tuple[LeetcodeTask]":
        return (self,)

    def completion(self, row: dict) -> str:
        return "\n" + (row["completion"].strip() if self._whole(row) else self._body(row))

    def program(self, row: dict, generated: str) -> str:
        """The answer as it can run: what a model wrote under the signature, or the whole program if it wrote one, which
        begins without an indent."""
        answer = generated.strip("\n").rstrip()
        head = method_bodies.signature(row["starter_code"])
        whole = not answer[:1].isspace() or re.search(r"```|^class Solution\b", answer, re.MULTILINE)
        if head is None or self._whole(row) or whole:
            return answer
        return f"{head[0]}\n{answer}"

    def _body(self, row: dict) -> str | None:
        return method_bodies.body(row["starter_code"], row["completion"], row["entry_point"])

    def _whole(self, row: dict) -> bool:
        """Whether the row has a reference that does not fit under its signature; a problem to solve has none."""
        return bool(row.get("completion") and row.get("entry_point")) and self._body(row) is None


Task = TranslationTask | LeetcodeTask


def few_shot_rows(task: Task, train: list[dict], shots: int) -> list[dict]:
    """Training rows to show before a question: the first pairs; of problems those at even distances by length, so that
    neither the shortest nor the longest stands for all.
    """
    if isinstance(task, LeetcodeTask):
        by_length = sorted(train, key=lambda row: len(task.prompt(row) + task.completion(row)))
        return [by_length[(2 * i + 1) * len(by_length) // (2 * shots)] for i in range(shots)]
    return train[:shots]


def few_shot_prompt(task: Task, row: dict, shots: list[dict]) -> str:
    """The prompt after `shots` solved examples, which must be training rows."""
    return "".join(f"{task.prompt(shot)}{task.completion(shot)}\n\n" for shot in shots) + task.prompt(row)


def training_rows(task: Task, rows: list[dict]) -> list[dict[str, str]]:
    """`{"prompt", "completion"}` rows, of which the completion and an end token after it are learned."""
    return [{"prompt": one.prompt(row), "completion": one.completion(row)} for row in rows for one in task.trained()]
