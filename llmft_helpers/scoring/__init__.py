"""Scores of a model on rows: perplexity, BLEU, problems solved, with intervals and paired tests; one code for all arms.

May use `models`, `data`, `grading` and what is below.
"""

from .evaluation import (
    best_constant_share,
    drop_broken_problems,
    evaluate_task,
    language_shares,
    merge_predictions,
    paired_code_p_value,
    paired_translation_p_value,
)
from .metrics import Nats, completion_nats, text_nats, total
from .samples import sample_faults

__all__ = [
    "Nats",
    "best_constant_share",
    "completion_nats",
    "drop_broken_problems",
    "evaluate_task",
    "language_shares",
    "merge_predictions",
    "paired_code_p_value",
    "paired_translation_p_value",
    "sample_faults",
    "text_nats",
    "total",
]
