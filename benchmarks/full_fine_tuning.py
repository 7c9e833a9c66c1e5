"""Does training every weight buy more than an adapter, and what does it cost? Memory, seconds and BLEU side by side.

    python benchmarks/full_fine_tuning.py --rows 700 --json outputs/demo/full_fine_tuning.json

The question of "LoRA Without Regret" (Schulman et al. 2025, thinkingmachines.ai/blog/lora), asked of the profile's base
and pairs: its LoRA, LoRA of rank 1, and all weights of the same base, unrounded. Each arm tries its learning rates; the
validation rows alone decide which one stands in the comparison. A run is a process of its own, so that its peak memory
is its own. On a CPU the adapters train with the package's faster products, which are for frozen weights alone.
"""

import argparse
import multiprocessing
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pandas

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llmft_helpers.data import corpora  # noqa: E402
from llmft_helpers.data.prompts import TranslationTask, training_rows  # noqa: E402
from llmft_helpers.device import device_description, has_card, peak_memory_gb  # noqa: E402
from llmft_helpers.profiles import LoraSettings, Profile, load_profile  # noqa: E402
from llmft_helpers.runs import git_commit, run_dir  # noqa: E402
from llmft_helpers.storage import write_json  # noqa: E402

FULL = "all weights"


@dataclass(frozen=True)
class Arm:
    name: str
    lora: LoraSettings | None  # None: all weights
    rates: tuple[float, ...]


def planned(profile: Profile) -> list[Arm]:
    """Rates around the profile's; all weights take about a tenth of what an adapter takes (Schulman et al. 2025)."""
    rate = profile.translation.train.learning_rate
    around = (rate / 3, rate, 3 * rate)
    return [
        Arm(f"LoRA, rank {profile.lora.rank}", profile.lora, around),
        Arm("LoRA, rank 1", replace(profile.lora, rank=1, alpha=1), tuple(3 * one for one in around)),
        Arm(FULL, None, tuple(one / 10 for one in around)),
    ]


def load(profile: Profile, lora: LoraSettings | None):
    """(model, tokenizer) with what the arm trains in float32 and the rest frozen."""
    import unsloth  # noqa: F401, I001  before transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from llmft_helpers.models.loading import add_lora, load_base_model, model_path, set_special_tokens

    if lora is not None:
        base, tokenizer = load_base_model(profile.model)
        return add_lora(base, lora, profile.seed), tokenizer
    path = str(model_path(profile.model))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path, dtype="float32"), AutoTokenizer.from_pretrained(path)
    set_special_tokens(model, tokenizer)
    return model, tokenizer  # without `llmft_helpers.cpu`, whose products have no gradient for a weight


def train(profile: Profile, arm: Arm, rate: float, corpus, folder: Path):
    """(model, tokenizer, seconds) after one pass over the training rows, as the suite trains an adapter."""
    import unsloth  # noqa: F401, I001  before trl
    import torch
    from datasets import Dataset
    from llmft_helpers.models.loading import cast_adapter
    from llmft_helpers.training.fine_tuning import examples, total_steps, training_arguments
    from trl import SFTTrainer

    model, tokenizer = load(profile, arm.lora)
    task, settings = TranslationTask(profile.translation.direction), profile.translation.train
    _, rows = examples(tokenizer, training_rows(task, corpus.train), False, profile.model.max_length)
    settings = replace(settings, learning_rate=rate)
    steps = total_steps(len(rows), settings)
    arguments = training_arguments(settings, steps, profile.model.max_length, folder, profile.seed)
    for name, value in {
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "disable_tqdm": True,
    }.items():
        setattr(arguments, name, value)
    trainer = SFTTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    if not has_card():  # as `make_trainer` does: TRL made it bfloat16
        cast_adapter(model, torch.float32)
    result = trainer.train()
    return model, tokenizer, result.metrics["train_runtime"]


def run(profile_name: str, row_count: int, arm: Arm, rate: float, found: multiprocessing.Queue) -> None:
    """One run's figures."""
    profile = load_profile(profile_name)
    profile = replace(profile, translation=replace(profile.translation, train_rows=row_count))
    corpus = corpora.load_pairs(profile)
    model, tokenizer, seconds = train(profile, arm, rate, corpus, run_dir(profile, "full_fine_tuning") / "trainer")
    from llmft_helpers.models.loading import trainable_parameters
    from llmft_helpers.scoring.evaluation import evaluate_task
    from llmft_helpers.scoring.metrics import completion_nats, total

    task = TranslationTask(profile.translation.direction)
    memory, trained = peak_memory_gb(), trainable_parameters(model)[0]  # before the scoring takes its own
    nats = total(completion_nats(model, tokenizer, training_rows(task, corpus.validation)))
    metrics, _ = evaluate_task(model, tokenizer, task, corpus.test, profile.translation, label=arm.name)
    figures = {
        "arm": arm.name, "learning_rate": rate, "trainable_parameters": trained, "seconds": round(seconds, 1),
        "memory_gb": memory.get("cuda", memory["host"]), "validation_loss": nats.nats / nats.tokens,
    }  # fmt: skip
    found.put(figures | {name: metrics[name] for name in ("bleu", "bleu_ci95", "chrf", "perplexity")})


def in_own_process(*arguments) -> dict:
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    process = context.Process(target=run, args=(*arguments, found))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{arguments[2].name} at {arguments[3]:g} ended with {process.exitcode}")
    return found.get()


def plot(best: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, sharey=True, figsize=(7.6, 3.2))
    for axes, key, label in zip(both, ("memory_gb", "seconds"), ("peak memory (GB)", "training (s)"), strict=True):
        for place, one in enumerate(best):
            low, high = one["bleu_ci95"]
            axes.vlines(one[key], low, high, color=f"C{place}")
            axes.plot(one[key], one["bleu"], "os^"[place], color=f"C{place}", label=one["arm"])
        axes.set(xlabel=label, xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    both[0].set_ylabel("BLEU, 95% interval")
    figure.legend(*both[0].get_legend_handles_labels(), loc="upper center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--rows", type=int, default=700, help="training pairs (default 700)")
    parser.add_argument("--json", type=Path, help="write the figures here, and a plot beside them")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    runs, best = [], []
    profile = load_profile(options.profile)
    for arm in planned(profile):
        tried = [in_own_process(options.profile, options.rows, arm, rate) for rate in arm.rates]
        runs += tried
        best.append(min(tried, key=lambda one: one["validation_loss"]))
        print(pandas.DataFrame(tried).to_string(index=False), flush=True)
        if options.json:
            about = {"model": profile.model.name, "rows": options.rows, "git_commit": git_commit()}
            write_json(options.json, device_description() | about | {"runs": runs, "best": best})
    if options.json:
        plot(best, options.json.with_suffix(".png"))


if __name__ == "__main__":
    main()
