"""Started by test_cuda_path.py: what the package does on Unsloth's CUDA path, as numbers and texts in OUT.

`card_checks.py FOLDER OUT`; FOLDER holds `llama` (a small random one) and gets the adapters.
"""

import contextlib
import gc
import json
import sys
import time
from pathlib import Path

import card_formulas  # first: it decides how Unsloth is imported
import torch

from llmft_helpers.doctor.memory import token_bytes
from llmft_helpers.errors import UserError
from llmft_helpers.models import adapters_off, add_lora, generate, load_adapter, load_base_model, save_adapter
from llmft_helpers.profiles import LoraSettings, ModelSettings, TrainSettings
from llmft_helpers.scoring.metrics import completion_nats
from llmft_helpers.training import fine_tune, make_trainer, mask_check
from llmft_helpers.training.fine_tuning import out_of_memory_advice

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
base = ModelSettings(name=str(folder / "llama"), max_length=48)
lora = LoraSettings(rank=4, alpha=8)
settings = TrainSettings(epochs=2.0, learning_rate=5e-3, batch_size=3, evaluations=2)
rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
long = json.loads((folder / "long.json").read_text(encoding="utf-8"))
prompts = [row["prompt"] for row in [*rows, *long]]
results, started = {}, time.perf_counter()


def nats(model, tokenizer) -> list[float]:
    return [one.nats for one in completion_nats(model, tokenizer, [*rows, *long])]


def texts(model, tokenizer, batch_size: int) -> list[str]:
    return [one.text for one in generate(model, tokenizer, prompts, 8, batch_size=batch_size)]


def note(name: str, value) -> None:
    results[name] = value
    out.write_text(json.dumps(results), encoding="utf-8")
    print(f"{time.perf_counter() - started:6.1f} s  {name}", file=sys.stderr, flush=True)


def trainer_of(name: str):
    model, tokenizer = load_base_model(base)
    model = add_lora(model, lora, seed=1)
    return make_trainer(model, tokenizer, rows, rows[:2], settings, base.max_length, folder / name, seed=1)


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten().float() for p in trainer.model.parameters() if p.requires_grad])


def whole_batch(trainer) -> None:
    """The loss of a batch without padding is that of its rows one by one."""
    batch = next(iter(trainer.get_train_dataloader()))
    note("batch_rows", len(batch["input_ids"]))
    trainer.model.train()
    with torch.no_grad():
        note("batch_loss", trainer.compute_loss(trainer.model, dict(batch)).item())
    decode, ends = trainer.processing_class.decode, batch["packed_seq_lengths"].cumsum(0).tolist()
    drawn = [decode(batch["input_ids"][0, end - length : end - 1]) for end, length in
             zip(ends, batch["packed_seq_lengths"].tolist(), strict=True)]  # fmt: skip
    note("batch_texts", drawn)
    counted = [row for text in drawn for row in rows if text.endswith(row["prompt"] + row["completion"])]
    scored = completion_nats(trainer.model, trainer.processing_class, counted)
    note("rows_loss", sum(one.nats for one in scored) / sum(one.tokens for one in scored))
    note("mask_check", mask_check(trainer, 3))


def kept_bytes(trainer) -> float:
    """Bytes a token that the forward pass of a batch keeps for the backward pass, weights left out."""
    batch = next(iter(trainer.get_train_dataloader()))
    known = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tensor.dtype == torch.bfloat16:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.compute_loss(trainer.model.train(), dict(batch))
    return sum(kept.values()) / batch["input_ids"].numel()


def orders(trainer) -> None:
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    sampler = trainer._get_train_sampler()
    drawn = []
    for epoch in (0, 1, 0, 2, 3, 4, 5):
        sampler.set_epoch(epoch)
        drawn.append([lengths[i] for i in sampler])
    note("drawn_lengths", drawn)


def stopped_and_resumed(expected: torch.Tensor) -> None:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    stopped = trainer_of("stopped")
    stopped.add_callback(Stop())
    with contextlib.suppress(KeyboardInterrupt):
        fine_tune(stopped)
    resumed = trainer_of("stopped")
    note("resumed_from", fine_tune(resumed)["resumed_from"])
    note("resumed_differs_by", (weights(resumed) - expected).abs().max().item())


def train_and_save() -> None:
    trainer = trainer_of("whole")
    note("args_max_length", trainer.args.max_length)
    note("padding_free", trainer.padding_free)
    note("advice", out_of_memory_advice(trainer))
    whole_batch(trainer)
    orders(trainer)
    before = weights(trainer)
    note("steps", fine_tune(trainer)["steps"])
    note("moved_by", (weights(trainer) - before).abs().max().item())
    save_adapter(trainer.model, folder / "first", {"task": "translation", "base_model": base.name})
    stopped_and_resumed(weights(trainer))
    other = add_lora(load_base_model(base)[0], lora, seed=2)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapter(other, folder / "second", {"task": "translation", "base_model": base.name})


def adapters(model, tokenizer) -> None:
    model = load_adapter(model, folder / "first", base, "first")
    model = load_adapter(model, folder / "second", base, "second")
    note("nats_loaded_last", nats(model, tokenizer))
    for name in ("first", "second"):
        model.set_adapter(name)
        note(f"nats_{name}", nats(model, tokenizer))
        note(f"texts_{name}", texts(model, tokenizer, 4))
    with adapters_off(model):
        note("nats_off", nats(model, tokenizer))


def reloaded() -> None:
    """In 16 bits, where the fused kernels round otherwise than PEFT's forward."""
    card_formulas.computes_in[0] = torch.bfloat16
    trainer = trainer_of("bfloat16")
    note("kept_bytes", kept_bytes(trainer))
    config = trainer.model.config
    note("calculated_bytes", token_bytes(config, checkpointing=False))
    note("adapter_types", sorted({str(p.dtype) for p in trainer.model.parameters() if p.requires_grad}))
    fine_tune(trainer)
    tokenizer = trainer.processing_class
    save_adapter(trainer.model, folder / "bf16", {"task": "translation", "base_model": base.name})
    note("nats_trained_16", nats(trainer.model, tokenizer))
    note("texts_trained_16", texts(trainer.model, tokenizer, 4))
    model, tokenizer = load_base_model(base)
    model = load_adapter(model, folder / "bf16", base)
    note("nats_reloaded_16", nats(model, tokenizer))
    note("texts_reloaded_16", texts(model, tokenizer, 4))


def statistics_fetched() -> list:
    """What Unsloth would fetch to count its users at a load with a network."""
    import os

    from unsloth.models import _utils

    fetched = []
    _utils._download_statistics = fetched.append
    offline = {name: os.environ.pop(name, None) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    _utils.get_statistics()
    os.environ |= {name: value for name, value in offline.items() if value}
    return fetched


gc.freeze()  # Unsloth collects garbage a dozen times a load: not through its libraries each time
note("statistics", statistics_fetched())
model, tokenizer = load_base_model(base)
note("long_tokens", min(len(tokenizer(row["prompt"]).input_ids) for row in long))
note("nats_base", nats(model, tokenizer))
note("texts_batched", texts(model, tokenizer, 4))
note("texts_single", texts(model, tokenizer, 1))
try:
    model.config.max_position_embeddings, kept = 100, model.config.max_position_embeddings
    generate(model, tokenizer, ["short", "word " * 120], 8)
except UserError as error:
    note("too_long", str(error))
model.config.max_position_embeddings = kept
train_and_save()
adapters(model, tokenizer)
reloaded()
