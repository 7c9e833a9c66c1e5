"""Which choices of notebook 01's GPT pay: train it again and again with one choice undone.

    python benchmarks/char_gpt_ablation.py --seconds 60 --seeds 1,2 --json outputs/demo/char_gpt/ablation.json

Every variant gets the same seconds of training, so that a choice must pay for its own cost; with `--steps` every
variant gets the same number of steps instead, which does not depend on what else the machine is doing.
The variants replace definitions that are lifted out of the notebook; notebook 01 shows the written file. Scores are
those of its checks: every character with at least half a context before it. With `--text` they are trained on one
file, split as nanoGPT splits it (see char_gpt.py).
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from char_gpt_runs import Documents, read_texts, train_ours
from lifting import lift
from torch import nn

from llmft_helpers.device import device_description
from llmft_helpers.errors import UserError
from llmft_helpers.profiles import CharGptSettings, load_profile
from llmft_helpers.storage import write_json

Variant = Callable[[ModuleType, CharGptSettings], CharGptSettings | None]


def no_groups(gpt, settings):
    class Embedding(gpt.Embedding):
        def forward(self, ids):  # (B, T)
            # the table must have a (sparse) gradient for its optimizer: one row, multiplied by zero
            nothing = self.groups(ids[:1, :1], per_sample_weights=torch.zeros(1, 1))  # (1, C)
            return gpt.norm(self.characters(ids) + nothing)  # (B, T, C)

    gpt.Embedding = Embedding


def pairs_only(gpt, settings):
    gpt.LONGEST_GROUP = 2


def up_to_four(gpt, settings):
    gpt.LONGEST_GROUP = 4


def up_to_eight(gpt, settings):
    gpt.LONGEST_GROUP = 8


def all_groups_read(gpt, settings):
    gpt.GROUP_DROPOUT = 0.0


def not_balanced(gpt, settings):
    gpt.balanced = lambda documents: documents


def dense_table(gpt, settings):
    make_optimizers = gpt.make_optimizers

    def make_dense(model, learning_rate):
        table = model.embedding.groups
        muon, _, adamw = make_optimizers(model, learning_rate)
        table.sparse = False
        adamw.param_groups[0]["params"].append(table.weight)
        return [muon, adamw]

    gpt.make_optimizers = make_dense


def adamw(share):
    """AdamW for the blocks too, at this share of the others' learning rate."""

    def variant(gpt, settings):
        make_optimizers = gpt.make_optimizers

        def make_without_muon(model, learning_rate):
            _, *others = make_optimizers(model, learning_rate)
            blocks = torch.optim.AdamW(
                model.blocks.parameters(), lr=share * learning_rate, betas=gpt.BETAS, weight_decay=0.0, fused=True
            )
            return [blocks, *others]

        gpt.make_optimizers = make_without_muon

    return variant


def float32(gpt, settings):
    gpt.Linear.compute = torch.float32


def gelu(gpt, settings):
    gpt.MLP.forward = lambda self, x: self.down(F.gelu(self.up(x)))


def gated(gpt, settings):
    class Gated(nn.Module):
        """SwiGLU of the same number of parameters."""

        def __init__(self, width):
            super().__init__()
            self.up, self.gate = gpt.Linear(width, 8 * width // 3), gpt.Linear(width, 8 * width // 3)
            self.down = gpt.Linear(8 * width // 3, width, zero=True)

        def forward(self, x):  # (B, T, C)
            return self.down(F.silu(self.gate(x)) * self.up(x))  # (B, T, C)

    gpt.MLP = Gated


def no_qk_norm(gpt, settings):
    norm = gpt.norm
    gpt.norm = lambda x: x if x.dim() == 5 else norm(x)  # queries and keys alone come as (2, B, H, T, D)


def rms_norm(gpt, settings):
    gpt.norm = lambda x: F.rms_norm(x, (x.size(-1),))


def no_positions(gpt, settings):
    gpt.rotate = lambda x, turns: x


def random_start(gpt, settings):
    class Linear(gpt.Linear):
        def __init__(self, inputs, outputs, zero=False):
            super().__init__(inputs, outputs)

    gpt.Linear = Linear


def tied_head(gpt, settings):
    make_optimizers = gpt.make_optimizers

    def make_tied(model, learning_rate):
        optimizers = make_optimizers(model, learning_rate)  # before the tie: no weight is named twice
        model.head.weight = model.embedding.characters.weight
        nn.init.normal_(model.head.weight, std=settings.width**-0.5)
        return optimizers

    gpt.make_optimizers = make_tied


def larger_start(gpt, settings):
    gpt.INIT_SCALE = 1.0


def constant_rate(gpt, settings):
    gpt.rate_factor = lambda used: min(0.1 + used / gpt.WARM_UP, 1.0)


def no_warm_up(gpt, settings):
    gpt.rate_factor = lambda used: 1 - used


def half_context(gpt, settings):
    return replace(settings, context=settings.context // 2, batch_size=settings.batch_size * 2)


def double_context(gpt, settings):
    return replace(settings, context=settings.context * 2, batch_size=max(1, settings.batch_size // 2))


def double_batch(gpt, settings):
    return replace(settings, batch_size=settings.batch_size * 2)


def half_batch(gpt, settings):
    return replace(settings, batch_size=max(1, settings.batch_size // 2))


def learning_rate(factor):
    return lambda gpt, settings: replace(settings, learning_rate=factor * settings.learning_rate)


def more_left_out(gpt, settings):
    gpt.GROUP_DROPOUT = 0.75


def less_left_out(gpt, settings):
    gpt.GROUP_DROPOUT = 0.4


def residual_dropout(gpt, settings):
    for part in (gpt.Attention, gpt.MLP):
        part.forward = _dropped(part.forward)


def _dropped(forward):
    return lambda self, *inputs: F.dropout(forward(self, *inputs), 0.1, self.training)


def soft_cap(gpt, settings):
    """Logits within -15..15 (Gemma 2, arXiv 2408.00118; modded-nanogpt)."""
    stack = gpt.GPT.stack
    gpt.GPT.stack = lambda self, *inputs: 15 * torch.tanh(stack(self, *inputs) / 15)  # (B, T, V)


def embedding_again(gpt, settings):
    """What enters the first block is added before every other one, too (modded-nanogpt)."""

    def stack(self, x, turns, cache=None):  # (B, T, C), (T, D / 2)
        first = x
        for number, block in enumerate(self.blocks):
            x = block(x + first if number else x, turns, cache)  # (B, T, C)
        return self.head(gpt.norm(x)).float()  # (B, T, V)

    gpt.GPT.stack = stack


def momentum_warm_up(gpt, settings):
    """Muon's momentum rises from 0.85 to 0.95 over its first 300 steps (modded-nanogpt)."""
    train_step = gpt.train_step

    def step(run, *inputs, **named):
        muon = run.optimizers[0].param_groups[0]
        muon["momentum"] = 0.85 + 0.1 * min(1, run.progress["step"] / 300)
        return train_step(run, *inputs, **named)

    gpt.train_step = step


VARIANTS: dict[str, Variant] = {
    "as in the notebook": lambda gpt, settings: None,
    "no groups": no_groups,
    "groups of two only": pairs_only,
    "groups up to four": up_to_four,
    "groups up to eight": up_to_eight,
    "no group left out": all_groups_read,
    "dense AdamW for the table": dense_table,
    "no documents repeated": not_balanced,
    "AdamW for the blocks": adamw(1.0),
    "AdamW for the blocks at a third of the rate": adamw(1 / 3),
    "AdamW for the blocks at a sixth of the rate": adamw(1 / 6),
    "float32 products": float32,
    "GELU": gelu,
    "SwiGLU": gated,
    "no QK norm": no_qk_norm,
    "RMSNorm": rms_norm,
    "no positions": no_positions,
    "outputs not started at zero": random_start,
    "head tied to the embedding": tied_head,
    "weights start twice as large": larger_start,
    "constant learning rate": constant_rate,
    "no warm-up": no_warm_up,
    "half the context": half_context,
    "twice the context": double_context,
    "twice the batch": double_batch,
    "half the batch": half_batch,
    "half again the learning rate": learning_rate(1.5),
    "two thirds of the learning rate": learning_rate(2 / 3),
    "more groups left out": more_left_out,
    "fewer groups left out": less_left_out,
    "a tenth of the blocks' outputs left out": residual_dropout,
    "soft-capped logits": soft_cap,
    "embedding added before every block": embedding_again,
    "Muon's momentum warmed up": momentum_warm_up,
}


def measure(name: str, settings: CharGptSettings, seeds: list[int], texts: dict[str, Documents]) -> dict:
    """One row of the table: mean over seeds, and their spread."""
    results = []
    for seed in seeds:
        gpt = lift("01_char_gpt")
        gpt.CHECKS = 1
        gpt.Linear.compute = gpt.choose_device()[1]
        changed = VARIANTS[name](gpt, settings) or settings
        results.append(train_ours(gpt, changed, seed, texts, score=lambda *_: {}))
    bits = [result["curve"][-1][1] for result in results]
    return {
        "variant": name,
        "bits_per_char": statistics.mean(bits),
        "spread": max(bits) - min(bits) if len(bits) > 1 else None,
        "parameters": results[0]["parameters"],
        "steps": round(statistics.mean(result["steps"] for result in results)),
        "ms_per_step": 1000 * statistics.mean(result["seconds"] / result["steps"] for result in results),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=60.0, help="of training for every variant (default 60)")
    budget.add_argument("--steps", type=int, help="of training for every variant, instead of seconds")
    parser.add_argument("--seeds", default="1", help="comma-separated (default 1)")
    parser.add_argument("--only", help="comma-separated names of variants; default all")
    parser.add_argument("--profile", help="whose shape and corpora to use (default: LLMFT_PROFILE, or by device)")
    parser.add_argument("--text", type=Path, help="train on this file instead of the profile's corpora")
    parser.add_argument("--json", type=Path, help="write what is printed")
    return parser.parse_args()


def main() -> None:
    options = parse()
    names = options.only.split(",") if options.only else list(VARIANTS)
    if unknown := [name for name in names if name not in VARIANTS]:
        raise UserError(f"--only: no variant {unknown[0]!r}; there are: {', '.join(VARIANTS)}")
    profile = load_profile(options.profile)
    settings = profile.char_gpt
    if options.steps:
        settings, budget = replace(settings, seconds=1e9, max_steps=options.steps), f"{options.steps} steps"
    else:
        settings, budget = replace(settings, seconds=options.seconds, max_steps=10**9), f"{options.seconds:g} s"
    seeds = [int(seed) for seed in options.seeds.split(",")]
    texts = read_texts(options.text, profile)
    print(f"{'variant':<44}{'bits/char':>10}{'change':>9}{'spread':>8}{'parameters':>12}{'steps':>7}{'ms/step':>9}")
    setting = f"{budget} of training each, seeds {options.seeds}, {device_description()['device']}"
    rows = []
    for name in names:
        row = measure(name, settings, seeds, texts)
        row["change"] = row["bits_per_char"] / (rows or [row])[0]["bits_per_char"] - 1
        rows.append(row)
        print(
            f"{name:<44}{row['bits_per_char']:>10.3f}{row['change']:>+9.1%}{row['spread'] or float('nan'):>8.3f}"
            f"{row['parameters']:>12,}{row['steps']:>7,}{row['ms_per_step']:>9.1f}",
            flush=True,
        )
        if options.json:
            write_json(options.json, {"setting": setting, "rows": rows})


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
