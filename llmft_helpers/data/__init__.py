"""From source files and hub data sets to cleaned, merged and split rows, and from a row to a prompt and its answer.

No test row shares a side with a training row; `manifest` accounts for every row. May use `runs`, `grading`
and what is below.
"""

from .corpora import SPLITS, Corpus, count_after, load_pairs, load_problems
from .plain_text import character_documents, compared_validation
from .prompts import LANGUAGES, LeetcodeTask, TranslationTask, few_shot_prompt, few_shot_rows, training_rows

__all__ = [
    "Corpus",
    "LANGUAGES",
    "LeetcodeTask",
    "SPLITS",
    "TranslationTask",
    "character_documents",
    "compared_validation",
    "count_after",
    "few_shot_prompt",
    "few_shot_rows",
    "load_pairs",
    "load_problems",
    "training_rows",
]
