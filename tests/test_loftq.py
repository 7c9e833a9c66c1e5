"""Adapters that begin at what 4-bit rounding lost: the best product of their rank, over an untouched base."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import load_file

from llmft_helpers.errors import UserError
from llmft_helpers.models import loading as models
from llmft_helpers.models.embedded import random_model
from llmft_helpers.models.loftq import begin_at_rounding_error
from llmft_helpers.runs import cache_dir


@pytest.fixture
def begun(fresh, profile):
    """(model whose adapters begin there, tokenizer, the unrounded weights); scale alpha / rank = 2."""
    lora = replace(profile.lora, rank=16, alpha=32, loftq=True)
    return models.add_lora(fresh[0], lora, 1), fresh[1], load_file(random_model(cache_dir()) / "model.safetensors")


def test_the_adapter_is_the_best_product_of_its_rank(begun):
    model, _, weights = begun
    layers = {name: layer for name, layer in model.get_base_model().named_modules() if hasattr(layer, "lora_A")}
    assert len(layers) == 14
    for name, layer in layers.items():
        rounded = dequantize_4bit(layer.weight.data, layer.weight.quant_state).double()
        error = (weights[f"{name}.weight"].double() - rounded).numpy()
        a, b = (part["default"].weight.detach().double().numpy() for part in (layer.lora_A, layer.lora_B))
        left = np.linalg.svd(error - 2.0 * b @ a, compute_uv=False)
        whole = np.linalg.svd(error, compute_uv=False)
        # Eckart and Young: no product of rank 16 leaves less
        assert np.square(left).sum() == pytest.approx(np.square(whole[16:]).sum(), rel=1e-2)


def test_it_answers_more_like_the_unrounded_model_and_the_base_stays(begun, base, profile):
    model, tokenizer, _ = begun
    ids = tokenizer("Spanish: Hola.\nEnglish:", return_tensors="pt").input_ids
    whole, _ = models.load_base_model(replace(profile.model, load_in_4bit=False))
    with torch.no_grad():
        wanted, rounded = whole(input_ids=ids).logits.float(), base[0](input_ids=ids).logits.float()
        found = model.eval()(input_ids=ids).logits.float()
        with models.adapters_off(model):
            assert torch.equal(model(input_ids=ids).logits.float(), rounded)
    assert (found - wanted).norm() < 0.9 * (rounded - wanted).norm()


def test_without_the_unrounded_weights_it_says_what_to_set(fresh, profile, tmp_path):
    model = models.add_lora(fresh[0], profile.lora, 1)
    with pytest.raises(UserError, match=r"lora\.loftq needs .*model\.safetensors.*false"):
        begin_at_rounding_error(model, tmp_path)
