"""Rehearse profile `full` without a GPU or a hub: `python benchmarks/rehearse_full.py`, or `make rehearse-full`.

A Llama with exactly Llama 3.2 1B's configuration and special-token layout, with random weights, is loaded in 4-bit on
the CPU, gets rank-64 LoRA on all projections, and goes through the four notebooks with a handful of rows. Answers are
noise; what is checked is that everything fits, runs, saves and reloads. Seconds and peak memory go to
outputs/full-rehearsal/rehearsal.json. Stages can be named to run a part: prepare load 01 02 03 04.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from hub_stand_ins import write_stand_ins
from llama_layout import LLAMA_3_2_1B, NAMED, write_random_llama

from llmft_helpers.runs import ROOT, outputs_root
from llmft_helpers.storage import read_json, read_jsonl, write_json

TRAINABLE = 45_088_768  # published for rank 64 on all seven projections
STAGES = ("prepare", "load", "01", "02", "03", "04")
FOLDER = outputs_root() / "full-rehearsal"
PROFILE = FOLDER / "full-rehearsal.toml"


def prepare() -> dict:
    """Stand-in data, profile and, once, the random model: 2.5 GB."""
    write_stand_ins(FOLDER / "data")
    shutil.copy(ROOT / "docs" / "full-rehearsal.toml", PROFILE)
    model = FOLDER / "model"
    if not (model / "tokenizer.json").is_file():
        texts = [row["es"] + " " + row["en"] for row in read_jsonl(ROOT / "data" / "es_en" / "everyday.jsonl")]
        texts += [row["completion"] for row in read_jsonl(ROOT / "data" / "leetcode" / "problems.jsonl")]
        write_random_llama(model, texts, LLAMA_3_2_1B)
    return {"model_gb_on_disk": round(sum(path.stat().st_size for path in model.iterdir()) / 1e9, 2)}


def load() -> dict:
    """The checks that need the whole model once: 4-bit, parameters, special tokens."""
    from llmft_helpers.models.loading import add_lora, is_4bit, load_base_model, trainable_parameters
    from llmft_helpers.profiles import load_profile

    profile = load_profile(str(PROFILE))
    model, tokenizer = load_base_model(profile.model)
    assert is_4bit(model)
    model = add_lora(model, profile.lora, profile.seed)
    trainable, every = trainable_parameters(model)
    assert trainable == TRAINABLE, trainable
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in NAMED.values()}
    assert ids["<|begin_of_text|>"] == 128_000 and ids["<|end_of_text|>"] == 128_001
    assert tokenizer.pad_token_id == ids["<|finetune_right_pad_id|>"] == 128_004 != tokenizer.eos_token_id
    begun = tokenizer("Spanish: Hola.").input_ids
    assert begun.count(128_000) == 1 and begun[0] == 128_000
    return {"trainable_parameters": trainable, "parameters": every}


def run_notebook(number: str) -> dict:
    command = [sys.executable, "-m", "llmft_helpers", "run", number, "--profile", str(PROFILE)]
    subprocess.run(command, check=True, cwd=ROOT, env=dict(os.environ, HF_HUB_OFFLINE="1"))
    task = {"01": "char_gpt", "02": "translation", "03": "leetcode", "04": "comparison"}[number]
    provenance = read_json(FOLDER / task / "metrics.json")["provenance"]
    return {"peak_memory_gb": provenance["peak_memory_gb"]["host"], "seconds_by_step": provenance["seconds"]}


def measured(stage: str) -> dict:
    """What a stage reports, its wall-clock seconds, and the peak memory of the process where it ran."""
    started = time.perf_counter()
    if stage in ("prepare", "load"):  # in a process of its own, which gives its memory back
        code = (
            f"import json, rehearse_full as r; from llmft_helpers.runs import peak_memory_gb; v = r.{stage}(); "
            "print(); print(json.dumps(v | {'peak_memory_gb': peak_memory_gb()['host']}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, text=True
        )
        report = json.loads(done.stdout.strip().splitlines()[-1])
    else:
        report = run_notebook(stage)
    return {"seconds": round(time.perf_counter() - started, 1), **report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], default=[], help="all of them without")
    parser.add_argument("--json", type=Path, default=FOLDER / "rehearsal.json")
    options = parser.parse_args()
    report = read_json(options.json) if options.stages and options.json.is_file() else {"stages": {}}
    for stage in options.stages or STAGES:
        report["stages"][stage] = measured(stage)
        print(f"{stage}: {report['stages'][stage]}", flush=True)
        report["machine"] = {"cores": os.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1)}
        report["minutes"] = round(sum(part["seconds"] for part in report["stages"].values()) / 60, 1)
        report["peak_memory_gb"] = max(part["peak_memory_gb"] for part in report["stages"].values())
        write_json(options.json, report)
    print(f"{'stage':<10}{'seconds':>9}{'peak GB':>9}")
    for stage, part in report["stages"].items():
        print(f"{stage:<10}{part['seconds']:>9.0f}{part['peak_memory_gb']:>9.1f}")
    print(f"{report['minutes']} minutes, at most {report['peak_memory_gb']} GB, on {report['machine']}")


if __name__ == "__main__":
    main()
