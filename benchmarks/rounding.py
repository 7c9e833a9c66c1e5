"""Which layers lose most by 4-bit rounding: the loss with some of them left in 16 bits, on training rows. CPU only.

    python benchmarks/rounding.py --json outputs/demo/ablations/rounding.json

First all layers of a kind, then single layers of the kinds in `--single`; five minutes on 2 cores. The adapters stand
where the profile lets them begin, which matters with `lora.loftq`; an unrounded layer's adapter is off. What is worth
its memory goes into the profile's `model.keep_16bit`. No validation or test row is read.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas
from ablations import interleaved

from llmft_helpers.data import corpora
from llmft_helpers.data.prompts import TranslationTask, training_rows
from llmft_helpers.device import device_description
from llmft_helpers.profiles import load_profile
from llmft_helpers.runs import git_commit
from llmft_helpers.storage import write_json


def rounded_layers(model) -> dict:
    """LoRA layers over 4-bit ones, by the name of the layer in the base."""
    return {
        name: layer
        for name, layer in model.get_base_model().named_modules()
        if hasattr(layer, "lora_A") and hasattr(layer.base_layer, "dense")
    }


@contextlib.contextmanager
def unrounded(layers: dict, weights) -> Iterator[None]:
    """`layers` with the weights of the opened file `weights` and without their adapters' product inside the block."""
    import torch

    parts = {name: (layer.base_layer.dense, layer.lora_B["default"].weight.data) for name, layer in layers.items()}
    before = {name: [part.clone() for part in both] for name, both in parts.items()}
    for name, (dense, b) in parts.items():
        dense.copy_(weights.get_tensor(f"{name}.weight"))
        b.zero_()
    try:
        with torch.no_grad():
            yield
    finally:
        for name, both in parts.items():
            for part, old in zip(both, before[name], strict=True):
                part.copy_(old)


def groups(names: list[str], single: list[str]) -> dict[str, list[str]]:
    """What is left in 16 bits together: each kind of layer, then each layer of the kinds in `single`."""
    kinds = {
        kind: [n for n in names if n.endswith(kind)] for kind in dict.fromkeys(n.rsplit(".", 1)[-1] for n in names)
    }
    return kinds | {name: [name] for kind in single for name in kinds[kind]}


def measure(model, tokenizer, rows: list[dict[str, str]], weights, single: list[str]) -> pandas.DataFrame:
    """A line a group: share of the rounded weights, loss in nats a completion token, and what is won against `none`."""
    from llmft_helpers.scoring.metrics import completion_nats, total

    def loss() -> float:
        nats = total(completion_nats(model, tokenizer, rows))
        return nats.nats / nats.tokens

    layers = rounded_layers(model)
    sizes = {name: layer.base_layer.dense.numel() for name, layer in layers.items()}
    lines = [{"in 16 bits": "none", "share": 0.0, "loss": loss()}]
    for group, names in groups(list(layers), single).items():
        with unrounded({name: layers[name] for name in names}, weights):
            share = sum(sizes[name] for name in names) / sum(sizes.values())
            lines.append({"in 16 bits": group, "share": share, "loss": loss()})
    table = pandas.DataFrame(lines)
    table["won"] = table["loss"][0] - table["loss"]
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--rows", type=int, default=64, help="training pairs, of all corpora alike (default 64)")
    parser.add_argument("--single", default="v_proj,down_proj", help="kinds of layers that are looked at one by one")
    parser.add_argument("--json", type=Path, help="write the table here")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    from llmft_helpers.models.loading import add_lora, load_base_model, model_path  # imports unsloth, then transformers

    profile = load_profile(options.profile)
    base, tokenizer = load_base_model(replace(profile.model, keep_16bit=()))
    model = add_lora(base, profile.lora, profile.seed)
    pool = corpora.load_pairs(profile).train
    pairs = [pool[i] for i in interleaved(pool)[-options.rows :]]
    rows = training_rows(TranslationTask(profile.translation.direction), pairs)
    from safetensors import safe_open

    with safe_open(Path(model_path(profile.model)) / "model.safetensors", framework="pt") as weights:
        table = measure(model, tokenizer, rows, weights, [kind for kind in options.single.split(",") if kind])
    print(table.sort_values("won", ascending=False).round(4).to_string(index=False))
    if options.json:
        about = device_description() | {"rows": len(rows), "profile": profile.name, "git_commit": git_commit()}
        write_json(options.json, about | {"table": table.to_dict(orient="records")})


if __name__ == "__main__":
    main()
