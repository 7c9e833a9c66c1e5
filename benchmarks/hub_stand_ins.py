"""Small local files with the columns of the hub data sets of profile `full`, made from data/ on the spot."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

from llmft_helpers.runs import ROOT
from llmft_helpers.storage import read_jsonl, write_jsonl

PROMPT = "import collections\nimport math\nfrom typing import *\nfrom collections import *\nfrom itertools import *\n\n"
PROBLEMS = 24  # shortest ones, so that a step of a 1B model on a CPU stays short


def write_stand_ins(folder: Path) -> None:
    """tatoeba.parquet, news_commentary.parquet, leetcode_train.jsonl and leetcode_test.jsonl in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    everyday, formal = (read_jsonl(ROOT / "data" / "es_en" / f"{name}.jsonl") for name in ("everyday", "formal"))
    # sentence-transformers/parallel-sentences-tatoeba, en-es
    rows = [{"english": row["en"], "non_english": row["es"]} for row in everyday[:400]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "tatoeba.parquet")
    # Helsinki-NLP/news_commentary, en-es
    rows = [
        {"id": str(number), "translation": {"en": row["en"], "es": row["es"]}}
        for number, row in enumerate(formal[:400])
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "news_commentary.parquet")
    problems = [row for row in read_jsonl(ROOT / "data" / "leetcode" / "problems.jsonl") if row["compare"] == "exact"]
    problems = sorted(problems, key=_length)[:PROBLEMS]
    half = len(problems) // 2
    dated = [as_leetcode_dataset(row, number, "2021-03-01") for number, row in enumerate(problems[:half])]
    write_jsonl(folder / "leetcode_train.jsonl", dated)
    later = [as_leetcode_dataset(row, half + number, "2024-08-01") for number, row in enumerate(problems[half:])]
    write_jsonl(folder / "leetcode_test.jsonl", later)


def _length(row: dict) -> int:
    return len(row["problem_description"].split("\n\nExample 1")[0] + row["completion"])


def as_leetcode_dataset(row: dict, number: int, date: str) -> dict:
    """A problem of data/ with the columns of newfacade/LeetCodeDataset; its tests become asserts."""
    asserts = [
        f"    assert candidate({', '.join(map(repr, test['args']))}) == {test['expected']!r}" for test in row["tests"]
    ]
    return {
        "task_id": row["task_id"],
        "question_id": number,
        "difficulty": row["difficulty"],
        "tags": row["tags"],
        "problem_description": row["problem_description"],
        "starter_code": row["starter_code"],
        "estimated_date": date,
        "prompt": PROMPT,
        "completion": row["completion"],
        "entry_point": f"Solution().{row['entry_point']}",
        "test": "def check(candidate):\n" + "\n".join(asserts) + "\n",
        "input_output": [{"input": json.dumps(t["args"]), "output": json.dumps(t["expected"])} for t in row["tests"]],
        "query": f"{row['problem_description']}\n\n{row['starter_code']}",
        "response": row["completion"],
    }
