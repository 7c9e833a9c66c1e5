"""Started in two processes by test_processes.py: runs the command line and notes what each trained on and wrote.

`launched.py FOLDER VERB TASK PROFILE [VERB TASK PROFILE ...]`; writes FOLDER/rank<n>.json.
"""

import json
import os
import sys
from pathlib import Path

import unsloth  # noqa: F401  before transformers
from transformers import Trainer

from llmft_helpers.__main__ import main

folder, *words = sys.argv[1:]
noted = {"batches": {}, "written": []}
outputs = os.environ["LLMFT_OUTPUTS"]
step = Trainer.training_step


def note_batch(self, model, inputs, *rest, **named):
    rows = [
        [token for token, label in zip(tokens, labels, strict=True) if label != -100]
        for tokens, labels in zip(inputs["input_ids"].tolist(), inputs["labels"].tolist(), strict=True)
    ]
    noted["batches"].setdefault(task, []).append([self.processing_class.decode(row) for row in rows])
    return step(self, model, inputs, *rest, **named)


def note_write(event: str, details: tuple) -> None:
    if event == "open" and isinstance(details[1], str) and set(details[1]) & set("wax+"):
        noted["written"].append(str(details[0]))
    elif event == "os.rename":
        noted["written"].append(str(details[1]))


Trainer.training_step = note_batch
sys.addaudithook(note_write)
for verb, task, profile in zip(words[::3], words[1::3], words[2::3], strict=True):
    assert main([verb, task, "--profile", profile]) == 0
noted["written"] = [path for path in noted["written"] if path.startswith(outputs)]
Path(folder, f"rank{os.environ['RANK']}.json").write_text(json.dumps(noted), encoding="utf-8")
