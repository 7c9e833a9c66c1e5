"""A profile's test rows for lm-evaluation-harness: one JSON object a line, `{"id", "prompt", "completion"}`.

    .venv/bin/python docs/lm-eval/write_rows.py translation [--profile demo] [--output FILE]

Rows and prompt are those that the notebooks score; the task files beside this one read them.
"""

import argparse
from pathlib import Path

from transformers import AutoTokenizer

from llmft_helpers.models.boundary import split
from llmft_helpers.models.loading import model_path
from llmft_helpers.profiles import load_profile
from llmft_helpers.storage import write_jsonl
from llmft_helpers.training import Experiment


def rows_of(experiment: Experiment, tokenizer) -> list[dict]:
    """The test rows of an experiment that has read its data, asked as `tokenizer` wants it."""
    rows = []
    for row in experiment.corpus.test:
        prompt, completion = split(tokenizer, experiment.task.prompt(row), experiment.task.completion(row))
        rows.append({"id": row.get("id") or row["task_id"], "prompt": prompt, "completion": completion})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("translation", "leetcode"))
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--output", type=Path, help="default: outputs/lm-eval/TASK.jsonl")
    options = parser.parse_args()
    experiment = Experiment(load_profile(options.profile), options.task)
    experiment.read_data()
    tokenizer = AutoTokenizer.from_pretrained(model_path(experiment.profile.model))
    path = options.output or Path("outputs", "lm-eval", f"{options.task}.jsonl")
    write_jsonl(path, rows_of(experiment, tokenizer))
    print(f"{len(experiment.corpus.test)} rows: {path}")


if __name__ == "__main__":
    main()
