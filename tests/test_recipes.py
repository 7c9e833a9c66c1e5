"""The recipes that the speed benchmarks compare."""

import sys

import pytest
import torch

from llmft_helpers.runs import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import recipes  # noqa: E402
import unsloth  # noqa: E402, F401  before any argument is made: it lets bfloat16 train without a card


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", ["ours", "int8", "plain", "vendor"])
def test_arguments_train_alone_and_on_as_many_rows_a_step(name, packing, tmp_path):
    recipe = recipes.Recipe.__new__(recipes.Recipe)  # no model is loaded
    recipe.name, recipe.checkpointing, recipe.sizes, recipe.seed = name, False, {"log_every": 3}, 5
    ours = name in ("ours", "int8")
    arguments = recipe.arguments(48, 5, str(tmp_path), packing)
    arguments._validate_args()  # also what was set after construction
    assert (arguments.eval_strategy, arguments.save_strategy, arguments.load_best_model_at_end) == ("no", "no", False)
    assert (
        arguments.seed == 5
        and arguments.logging_steps == 3
        and arguments.completion_only_loss
        and arguments.learning_rate == 2e-4
    )
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    if ours and packing:  # the rows are MAX_LENGTH tokens long, and fewer than `steps` counted
        assert arguments.packing == torch.cuda.is_available()  # Unsloth turns it off on a CPU
        assert rows == 2 and arguments.max_steps == -1 and arguments.num_train_epochs == 1
    elif ours:
        assert not arguments.packing and rows == 48 and arguments.max_steps == 5
    else:
        assert rows == {"plain": 48, "vendor": 8}[name]
    if name == "vendor":  # as its notebooks have it
        assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 4)
        # 8-bit AdamW, which Unsloth replaces where there is no card
        optimizer = "adamw_8bit" if torch.cuda.is_available() else "adamw_torch_fused"
        assert (arguments.warmup_steps, arguments.lr_scheduler_type, arguments.optim) == (5, "linear", optimizer)
