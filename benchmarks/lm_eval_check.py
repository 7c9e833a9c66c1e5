"""EleutherAI's lm-evaluation-harness and this suite on the same merged model, test rows and prompt: the same score?

    python3 -m venv /tmp/harness && /tmp/harness/bin/pip install "lm-eval[hf]==0.4.13"
    .venv/bin/python -m llmft_helpers export --adapter outputs/demo/translation/adapter --output translator
    .venv/bin/python benchmarks/lm_eval_check.py --model translator --harness /tmp/harness/bin/lm-eval [--json FILE]

The harness loads the folder with plain transformers, generates with its own code and scores with its own call of
sacrebleu; rows and prompt are docs/lm-eval's. Of code it compares texts alone, and its logged answers are graded here,
confined. Both compute in the number type that this suite takes on the machine. Our generation bars a loop of 24
tokens and reads no stop string before an answer's first word, which the harness does not: `different` shows what comes
of it. With --json the file keeps what it holds of the other task.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

from llmft_helpers import runs, storage
from llmft_helpers.device import compute_dtype, device_description, has_card
from llmft_helpers.grading.execution import grade
from llmft_helpers.models.exporting import read_merged_note
from llmft_helpers.models.notes import noted_profile
from llmft_helpers.scoring.answers import extract_code
from llmft_helpers.scoring.evaluation import work_scores
from llmft_helpers.training import Experiment

TASKS = runs.ROOT / "docs" / "lm-eval"
sys.path.insert(0, str(TASKS))
from write_rows import rows_of  # noqa: E402

SCORES = {"translation": ("bleu", "chrf"), "leetcode": ("pass_at_1", "tests_passed_rate")}


def ours(model: Path, folder: Path) -> tuple[dict, list[dict]]:
    """(metrics, predictions) of `evaluate --model`."""
    files = folder / "ours.json", folder / "ours.jsonl"
    command = [sys.executable, "-m", "llmft_helpers", "evaluate", "--model", str(model)]
    subprocess.run([*command, "--output", str(files[0]), "--predictions", str(files[1])], check=True)
    return storage.read_json(files[0])["metrics"], storage.read_jsonl(files[1])


def theirs(harness: str, model: Path, experiment: Experiment, folder: Path) -> tuple[dict, list[str]]:
    """(the harness's results file, the texts that it generated)."""
    rows = rows_of(experiment, AutoTokenizer.from_pretrained(model))
    storage.write_jsonl(folder / "outputs" / "lm-eval" / f"{experiment.name}.jsonl", rows)
    settings, dtype = experiment.settings, str(compute_dtype()).removeprefix("torch.")
    command = [
        harness, "run", "--model", "hf", "--model_args", f"pretrained={model.resolve()},dtype={dtype}",
        "--tasks", f"llmft_{experiment.name}", "--include_path", str(TASKS), "--output_path", str(folder / "theirs"),
        "--gen_kwargs", f"max_gen_toks={settings.max_new_tokens}", "--log_samples",
        "--batch_size", str(settings.evaluation_batch_size), "--device", "cuda" if has_card() else "cpu",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=folder, env=os.environ | {"HF_DATASETS_CACHE": str(folder / "cache")})
    (results,) = (folder / "theirs").rglob("results_*.json")
    (samples,) = (folder / "theirs").rglob("samples_*.jsonl")
    logged = sorted(storage.read_jsonl(samples), key=lambda sample: sample["doc_id"])
    return storage.read_json(results), [sample["resps"][0][0] for sample in logged]


def their_scores(experiment: Experiment, results: dict, texts: list[str]) -> dict[str, float]:
    """The harness's own, of translations; of code what our grader says of its answers."""
    if experiment.name == "translation":
        return {key: results["results"]["llmft_translation"][f"{key},none"] for key in SCORES["translation"]}
    rows = experiment.corpus.test
    programs = [read(experiment, row, text) for row, text in zip(rows, texts, strict=True)]
    codes = [extract_code(program, row["entry_point"]) for program, row in zip(programs, rows, strict=True)]
    scores = work_scores(grade(codes, rows))
    return {key: scores[key] for key in SCORES["leetcode"]}


def read(experiment: Experiment, row: dict, text: str) -> str:
    """A generated text as the answer that is scored."""
    task = experiment.task
    return task.answer(text) if experiment.name == "translation" else task.program(row, text)


def compare(experiment: Experiment, metrics: dict, predictions: list[dict], results: dict, texts: list[str]) -> dict:
    """Both scores, their differences, and the answers that differ."""
    rows = experiment.corpus.test
    answers = [read(experiment, row, text) for row, text in zip(rows, texts, strict=True)]
    scores = {"ours": {key: metrics[key] for key in SCORES[experiment.name]}}
    scores["lm_eval"] = their_scores(experiment, results, texts)
    pairs = [(one["text"], answer) for one, answer in zip(predictions, answers, strict=True)]
    different = [{"ours": a, "lm_eval": b} for a, b in pairs if a != b]
    return scores | {
        "difference": {key: scores["lm_eval"][key] - value for key, value in scores["ours"].items()},
        "rows": len(rows), "same_answers": len(rows) - len(different), "different": different,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of an exported (merged) model")
    parser.add_argument("--harness", required=True, help="the command lm-eval")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is printed")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    note = read_merged_note(options.model)
    experiment = Experiment(noted_profile(note, options.model), note["task"])
    experiment.read_data()
    with tempfile.TemporaryDirectory() as folder:
        measured = ours(options.model, Path(folder))
        results, texts = theirs(options.harness, options.model, experiment, Path(folder))
    compared = compare(experiment, *measured, results, texts)
    about = {"profile": experiment.profile.name, "base": note["base_model"], "git_commit": runs.git_commit()}
    about |= {key: results[key] for key in ("lm_eval_version", "transformers_version")}
    compared |= about | device_description()
    print(json.dumps(compared, indent=2, ensure_ascii=False))
    if options.json:
        kept = storage.read_json(options.json) if options.json.is_file() else {}
        storage.write_json(options.json, kept | {experiment.name: compared})


if __name__ == "__main__":
    main()
