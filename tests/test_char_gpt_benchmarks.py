"""What the benchmarks of notebook 01 change and compute."""

import math
import statistics
import sys
import zlib

import pytest
import torch
from lifting import lift

from llmft_helpers.profiles import CharGptSettings
from llmft_helpers.runs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import char_gpt  # noqa: E402
import char_gpt_ablation  # noqa: E402
import char_gpt_runs  # noqa: E402
import nanogpt  # noqa: E402

SETTINGS = CharGptSettings(layers=2, heads=2, width=32, context=16, batch_size=4, seconds=1e6, max_steps=8,
                           learning_rate=1e-2, characters=10**6)  # fmt: skip
DOCUMENTS = [("a", "x" * 40), ("b", "y" * 10)]
# What each variant changes, out of all that `observed` looks at.
MODEL = {"logits", "training logits"}
CHANGES = {
    "as in the notebook": set(),
    "no groups": MODEL,
    "groups of two only": MODEL,
    "groups up to four": MODEL,
    "groups up to eight": MODEL,
    "no group left out": {"training logits"},
    "dense AdamW for the table": {"optimizers"},
    "no documents repeated": {"documents"},
    "AdamW for the blocks": {"optimizers"},
    "AdamW for the blocks at a third of the rate": {"optimizers"},
    "AdamW for the blocks at a sixth of the rate": {"optimizers"},
    "float32 products": MODEL,
    "GELU": MODEL,
    "SwiGLU": MODEL | {"optimizers"},
    "no QK norm": MODEL,
    "RMSNorm": MODEL,
    "no positions": MODEL,
    "outputs not started at zero": {"logits at start"},
    "head tied to the embedding": MODEL | {"optimizers", "logits at start"},
    "weights start twice as large": {"spread at start"},
    "constant learning rate": {"rates"},
    "no warm-up": {"rates"},
    "half the context": {"settings"},
    "twice the context": {"settings"},
    "twice the batch": {"settings"},
    "half the batch": {"settings"},
    "half again the learning rate": {"settings"},
    "two thirds of the learning rate": {"settings"},
    "more groups left out": {"training logits"},
    "fewer groups left out": {"training logits"},
    "a tenth of the blocks' outputs left out": {"training logits"},
    "soft-capped logits": MODEL,
    "embedding added before every block": MODEL,
    "Muon's momentum warmed up": {"optimizers after a step"},
}


def observed(name):
    """All that a variant can change, from equal weights and the same characters; and one step of training it."""
    gpt = lift("01_char_gpt")
    gpt.Linear.compute, gpt.GROUP_ROWS = torch.bfloat16, 997
    seen = {"settings": char_gpt_ablation.VARIANTS[name](gpt, SETTINGS) or SETTINGS}
    torch.manual_seed(0)
    model = gpt.GPT(vocabulary=50, layers=2, heads=2, width=32, context=16)
    run = gpt.Run(model, 1e-2, seed=0)
    paths = {id(parameter): path for path, parameter in model.named_parameters()}
    seen["optimizers"] = [
        (
            type(optimizer).__name__,
            group["lr"],
            sorted(paths.get(id(p), "none of the model's") for p in group["params"]),
        )
        for optimizer in run.optimizers
        for group in optimizer.param_groups
    ]
    seen["spread at start"] = [round(block.attention.qkv.weight.std().item(), 2) for block in model.blocks]
    seen["documents"] = gpt.balanced(DOCUMENTS)
    seen["rates"] = [gpt.rate_factor(used / 10) for used in range(11)]
    ids = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(1))  # (B, T)
    with torch.no_grad():
        seen["logits at start"] = model.eval()(ids).tolist()
        for path, parameter in model.named_parameters():  # not zero, where they start at zero
            generator = torch.Generator().manual_seed(zlib.crc32(path.encode()))
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        seen["logits"] = model(ids).tolist()
        torch.manual_seed(0)
        seen["training logits"] = model.train()(ids).tolist()
    windows = gpt.all_windows(torch.arange(200) % 50, 16)
    assert math.isfinite(gpt.train_step(run, windows, batch_size=4, factor=1.0))
    # of Muon alone: AdamW for the blocks has none, which "optimizers" shows
    momentum = run.optimizers[0].param_groups[0].get("momentum", 0.95)
    seen["optimizers after a step"] = momentum
    return seen


@pytest.fixture(scope="module")
def unchanged():
    return observed("as in the notebook")


@pytest.mark.parametrize("name", char_gpt_ablation.VARIANTS)
def test_a_variant_changes_what_its_name_says_and_nothing_else(name, unchanged):
    seen = observed(name)
    assert {key for key in seen if seen[key] != unchanged[key]} == CHANGES[name]


class Repeats(torch.nn.Module):
    """Expects the character just read once more, with probability 1/2."""

    context = 4

    def forward(self, ids):  # (B, T)
        return torch.nn.functional.one_hot(ids, 3).float() * math.log(2)  # (B, T, 3): 1/2, 1/4, 1/4


def test_random_windows_are_nanogpts_mean_over_all_positions():
    ids = torch.tensor([0, 0, 1, 2, 2, 2, 0, 1] * 20)
    wanted = statistics.mean(  # over every window, each of its positions alike
        math.log(2) if ids[at + place] == ids[at + place + 1] else math.log(4)
        for at in range(len(ids) - 4)
        for place in range(4)
    )
    found = char_gpt_runs.random_windows(Repeats(), ids)
    assert found["standard_error"] < char_gpt_runs.STANDARD_ERROR and found["windows"] >= char_gpt_runs.LEAST_WINDOWS
    assert found["val_loss"] == pytest.approx(wanted, abs=4 * found["standard_error"])
    few = char_gpt_runs.random_windows(Repeats(), ids, error=1.0)
    assert few["windows"] == char_gpt_runs.LEAST_WINDOWS and few["standard_error"] > found["standard_error"]


def test_a_text_of_its_own_is_split_and_spelled_as_nanogpt_does(tmp_path):
    (tmp_path / "text.txt").write_text("abcdefghij" * 2 + "$", encoding="utf-8")
    gpt = lift("01_char_gpt")
    texts = char_gpt_runs.read_texts(tmp_path / "text.txt", None)
    alphabet = texts.pop("alphabet")
    assert texts == {"train": [("text", "abcdefghijabcdefgh")], "validation": [("text", "ij$")]}
    tokenizer, read = char_gpt_runs.tokenizer_and_text(gpt, texts | {"alphabet": alphabet})
    assert (tokenizer.alphabet, read) == (list("$abcdefghij"), "abcdefghijabcdefgh")


NANOGPT = """
import torch

class GPTConfig:
    def __init__(self, block_size, vocab_size):
        self.block_size, self.vocab_size = block_size, vocab_size

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.lm_head = torch.nn.Linear(1, config.vocab_size)

    def forward(self, ids, targets=None):
        logits = self.lm_head(torch.ones(*ids.shape, 1))
        return (logits if targets is not None else logits[:, -1:]), None
"""


def test_a_checkpoint_of_nanogpts_is_scored_by_the_notebooks_rule(tmp_path):
    """One that finds every character equally likely has log2 V bits."""
    (tmp_path / "model.py").write_text(NANOGPT, encoding="utf-8")
    weights = {"lm_head.weight": torch.zeros(8, 1), "lm_head.bias": torch.zeros(8)}
    torch.save({"model_args": {"block_size": 4, "vocab_size": 8}, "model": weights}, tmp_path / "ckpt.pt")
    gpt = lift("01_char_gpt")
    tokenizer = gpt.CharTokenizer(list("abcdefg"))  # and the unknown character
    model = nanogpt.NanoGpt(tmp_path, tmp_path / "ckpt.pt")
    assert gpt.evaluate(model, tokenizer, [("a", "abcdefg" * 5)])["bits_per_char"] == pytest.approx(3)
    assert char_gpt_runs.random_windows(model, torch.arange(7).repeat(9))["val_loss"] == pytest.approx(math.log(8))


def test_the_published_loss_is_looked_for_by_the_published_rule():
    nats = math.log(2)
    result = {"curve": [(100.0, 2.3), (200.0, 2.0)], "random_windows": {"val_loss": 2.1 * nats}}
    target = char_gpt.PUBLISHED / nats - 0.1  # as bits on the curve
    wanted = 100 + 100 * (2.3 - target) / 0.3
    assert char_gpt.seconds_to_published(result) == pytest.approx(wanted)
    assert char_gpt.seconds_to_published(result | {"random_windows": {"val_loss": 2.2 * nats}}) is None
