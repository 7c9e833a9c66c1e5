"""One template per task, used by training, evaluation, comparison and the command line alike.

A prompt ends without white space and the completion starts with it, so that tokenizing the two apart
gives the tokens of the whole.
"""

from dataclasses import dataclass

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
    """Statement without its examples and the starter code in, the whole solution out."""

    name = "leetcode"
    # A base model that goes on to invent the next problem has ended its answer.
    stop = ("\n# Problem", "\nProblem:")

    def prompt(self, row: dict) -> str:
        starter = row["starter_code"].strip()
        return f"# Problem\n{self.statement(row)}\n\n# Starter code\n{starter}\n\n# Solution"

    @staticmethod
    def statement(row: dict) -> str:
        """The text before the first example: short prompts leave the context to the solution."""
        return row["problem_description"].split("\nExample 1")[0].strip()

    def trained(self) -> "tuple[LeetcodeTask]":
        return (self,)

    def completion(self, row: dict) -> str:
        return f"\n{row['completion'].strip()}"

    def answer(self, generated: str) -> str:
        return generated.strip("\n").rstrip()


Task = TranslationTask | LeetcodeTask


def few_shot_prompt(task: Task, row: dict, shots: list[dict]) -> str:
    """The prompt after `shots` solved examples, which must be training rows."""
    return "".join(f"{task.prompt(shot)}{task.completion(shot)}\n\n" for shot in shots) + task.prompt(row)


def training_rows(task: Task, rows: list[dict]) -> list[dict[str, str]]:
    """`{"prompt", "completion"}` rows: TRL scores the completion only and appends the end token."""
    return [{"prompt": one.prompt(row), "completion": one.completion(row)} for row in rows for one in task.trained()]
