"""Training and generation speed, memory and loss of a 4-bit 1B Llama: ours, plain TRL + PEFT + bitsandbytes, vendor's.

    python benchmarks/gpu_full.py --json outputs/demo/gpu_full.json      # on a GPU, planned for 10 minutes
    python benchmarks/gpu_full.py --recipes ours plain --json outputs/demo/gpu_full.json    # there, where time is short
    python benchmarks/gpu_full.py --notebooks --json outputs/demo/gpu_notebooks.json    # there too: the four notebooks
    python benchmarks/gpu_full.py --dry-run                # on a CPU, a toy model: whether it runs, not how fast

The model has Llama 3.2 1B's shape and random weights, so nothing is downloaded; rows are the shipped sentence pairs.
Recipes alternate, each in a process of its own (Unsloth changes libraries for the whole process). Ours and plain run
with activations kept and with them computed twice (`-checkpointing`), and are compared like with like; the vendor's
notebook offloads them. Every recipe writes the same number of new tokens from the same prompts. Tokens are real ones,
without padding; the first steps, which compile kernels, are not timed. MFU counts the work that LoRA needs: 4 FLOPs a
frozen and 6 a trained parameter and token, attention left out, against the card's dense bfloat16 peak. `--notebooks`
runs profile `demo`, with the embedded model, on the card (dry: `tiny`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hub_stand_ins import ROOT
from llama_layout import LLAMA_3_2_1B, write_random_llama

from llmft_helpers.runs import cache_dir
from llmft_helpers.storage import read_jsonl, write_json

COMPARED = {  # each recipe, and the plain one that keeps activations as it does
    "ours": "plain", "ours-checkpointing": "plain-checkpointing", "plain": "plain",
    "plain-checkpointing": "plain-checkpointing", "vendor-offloading": "plain-checkpointing",
}  # fmt: skip
RECIPES = tuple(COMPARED)
NO_BFLOAT16 = "TRL trains 4-bit adapters in bfloat16, which this card does not compute in"
TOY = LLAMA_3_2_1B | {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
                      "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
# Dense bfloat16 (T4: float16) FLOP/s from the vendors' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "T4": 65e12,
        "RTX 4090": 165e12, "RTX 3090": 71e12}  # fmt: skip
FULL = {"rows": 2048, "batch_size": 128, "timed_from": 4, "new_tokens": 64, "prompts": 128, "rounds": 2,
        "sweep": (32, 64), "rank": 64, "held_out": 64, "log_every": 50}  # fmt: skip
DRY = {"rows": 24, "batch_size": 8, "timed_from": 1, "new_tokens": 4, "prompts": 4, "rounds": 1, "sweep": (4,),
       "rank": 4, "held_out": 3, "log_every": 50}  # fmt: skip


def model_folder(dry: bool) -> Path:
    folder = cache_dir() / ("toy-llama" if dry else "random-llama-3.2-1b")
    if not (folder / "tokenizer.json").is_file():
        texts = [f"{row['es']} {row['en']}" for row in read_jsonl(ROOT / "data" / "es_en" / "everyday.jsonl")]
        write_random_llama(folder, texts, TOY if dry else LLAMA_3_2_1B)
    return folder


def rows_of(count: int) -> list[dict]:
    from llmft_helpers.data.prompts import TranslationTask, training_rows

    every = [row for name in ("everyday", "formal") for row in read_jsonl(ROOT / "data" / "es_en" / f"{name}.jsonl")]
    return training_rows(TranslationTask(), every[:: len(every) // count][:count])


def measure(recipe: str, sizes: dict, folder: Path) -> dict:
    """One recipe in this process: training, validation loss and generation; with ours also batch sizes and packing."""
    import recipes  # imports unsloth first, or not at all

    from llmft_helpers.device import device_description

    rows = rows_of(sizes["rows"] + sizes["held_out"])
    held_out = [rows.pop(7 * number) for number in range(sizes["held_out"])]
    run = recipes.Recipe(recipe, folder, sizes)
    result = device_description() | run.train(rows, sizes["batch_size"])
    result["validation_loss"] = run.validation_loss(held_out)
    result["generated_tokens_per_second"] = run.generation_speed([row["prompt"] for row in rows[: sizes["prompts"]]])
    if recipe == "ours":
        sweep = {f"batch {size}": run.train(rows[: 16 * size], size) for size in sizes["sweep"]}
        result["sweep"] = sweep | {"packing": run.train(rows, sizes["batch_size"], packing=True)}
    return result


def utilisation(tokens_per_second: float, result: dict) -> float | None:
    peak = next((value for name, value in PEAK.items() if name in result["device"]), None)
    work = 4 * result["frozen_parameters"] + 6 * result["trainable_parameters"]
    return round(work * tokens_per_second / peak, 4) if peak else None


def left_out() -> dict[str, str]:
    """Recipes that cannot run on this machine, with the reason."""
    import torch

    from llmft_helpers.device import compute_dtype

    lacking = torch.cuda.is_available() and compute_dtype() != torch.bfloat16
    return {recipe: NO_BFLOAT16 for recipe in RECIPES if recipe.startswith("plain")} if lacking else {}


def summary(rounds: list[dict]) -> dict:
    """Medians by recipe, and speed and memory as ratios to the plain recipe that keeps activations alike, if it ran."""
    table = {}
    for recipe in rounds[0]:
        runs = [results[recipe] for results in rounds]
        row = {
            key: statistics.median(run[key] for run in runs)
            for key in ("tokens_per_second", "peak_memory_gb", "generated_tokens_per_second", "validation_loss")
        }
        table[recipe] = row | {"mfu": utilisation(row["tokens_per_second"], runs[0])}
    for recipe, row in table.items():
        if plain := table.get(COMPARED[recipe]):
            row["speed_against_plain"] = row["tokens_per_second"] / plain["tokens_per_second"]
            row["memory_against_plain"] = row["peak_memory_gb"] / plain["peak_memory_gb"]
    return table


def run_notebooks(profile: str) -> dict:
    """The four notebooks in outputs of their own: seconds by stage, peak memory and the tuned models' scores."""
    with tempfile.TemporaryDirectory() as outputs:
        os.symlink(cache_dir(), Path(outputs, "cache"))
        command = [sys.executable, "-m", "llmft_helpers", "run", "--profile", profile]
        subprocess.run(
            command, check=True, cwd=ROOT, env=os.environ | {"LLMFT_OUTPUTS": outputs, "HF_HUB_OFFLINE": "1"}
        )
        results = json.loads(Path(outputs, profile, "results.json").read_text(encoding="utf-8"))
    report = {"profile": profile, "device": results["translation"]["provenance"]["device"]}
    for task, metrics in results.items():
        kept = ("bleu", "perplexity", "pass_at_1", "tests_passed_rate", "code_only_rate")
        tuned = metrics.get("tuned", metrics)
        report[task] = {name: tuned[name] for name in kept if name in tuned}
        report[task] |= {name: metrics["provenance"][name] for name in ("seconds", "peak_memory_gb")}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="a toy model, on any machine")
    parser.add_argument("--recipe", choices=RECIPES, help="one recipe in this process")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES, help="those to compare; all without")
    parser.add_argument("--notebooks", action="store_true", help="the four notebooks instead of the recipes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.notebooks:
        report = run_notebooks("tiny" if options.dry_run else "demo")
        print(json.dumps(report, indent=1))
        if options.json:
            write_json(options.json, report)
        return
    sizes, folder = DRY if options.dry_run else FULL, model_folder(options.dry_run)
    if options.recipe:
        write_json(options.json, measure(options.recipe, sizes, folder))
        return
    excluded = {recipe: reason for recipe, reason in left_out().items() if recipe in options.recipes}
    for recipe, reason in excluded.items():
        print(f"{recipe} is left out: {reason}", file=sys.stderr)
    recipes, rounds = [recipe for recipe in options.recipes if recipe not in excluded], []
    for number in range(sizes["rounds"]):
        order = recipes if number % 2 == 0 else recipes[::-1]
        rounds.append({recipe: in_own_process(__file__, recipe, ["--dry-run"] * options.dry_run) for recipe in order})
    table, one = summary(rounds), rounds[0][recipes[0]]
    print(f"{one['device']}, {one['dtype']}{' (dry run)' if options.dry_run else ''}")
    for recipe, row in table.items():
        print(f"{recipe:<20}" + "  ".join(f"{key} {value:.3g}" for key, value in row.items() if value is not None))
    for name, row in rounds[0].get("ours", {}).get("sweep", {}).items():
        print(f"ours, {name}: {row['tokens_per_second']:.0f} tokens/s, {row['peak_memory_gb']:.2f} GB")
    if options.json:
        report = {"dry_run": options.dry_run, "device": one["device"], "left_out": excluded}
        write_json(options.json, report | {"table": table, "rounds": rounds})


def in_own_process(script: str, recipe: str, options: list[str]) -> dict:
    """What `script` writes with `--recipe`: Unsloth changes libraries for its whole process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.json")
        command = [sys.executable, script, "--recipe", recipe, "--json", str(path), *options]
        print("running", recipe, file=sys.stderr, flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{recipe} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
        return json.loads(path.read_text())


if __name__ == "__main__":
    main()
