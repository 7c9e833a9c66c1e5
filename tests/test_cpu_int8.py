"""Products in 8-bit integers are those of the rounded matrices, near the exact ones, and training's alone."""

import time
from dataclasses import replace

import pytest
import torch

from llmft_helpers.cpu.int8 import int8_is_much_faster, int8_product, round_weight
from llmft_helpers.models import loading as models

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has kernels of its own")


@pytest.fixture(params=[(), ("v_proj", "down_proj")], ids=["4-bit", "4-bit and 16-bit"])
def pair(request, profile, monkeypatch):
    """The same model and adapter twice: trained exactly, and in integers."""
    monkeypatch.setattr(models, "int8_is_much_faster", lambda dtype: True)
    found = []
    for wanted in (False, True):
        base, _ = models.load_base_model(replace(profile.model, keep_16bit=request.param))
        model = models.add_lora(base, replace(profile.lora, int8_products=wanted), 1)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
        found.append(model)
    return found


def frozen(model) -> list[torch.Tensor]:
    return [w for module in model.modules() for w in (getattr(module, "joined", None), getattr(module, "dense", None))
            if w is not None]  # fmt: skip


def gradients(model) -> torch.Tensor:
    ids = torch.arange(3, 43).view(2, 20)
    model(input_ids=ids, labels=ids).loss.backward()
    return torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])


def test_a_product_by_hand():
    x, weight = torch.tensor([[1.0, -0.5], [0.0, 4.0]]), torch.tensor([[2.0, 0.0], [1.0, -4.0], [0.0, 0.0]])  # (3, 2)
    # Columns of the weight are scaled by 2 / 127 and 4 / 127: [127, 0], [64, -127], [0, 0] (63.5 rounds to even).
    # x times these scales: [2, -2] / 127 and [0, 16] / 127, which become [127, -127] and [0, 127].
    wanted = torch.tensor([[127 * 127, 64 * 127 + 127 * 127, 0], [0, -127 * 127, 0]]).double()
    wanted *= torch.tensor([[2 / 127 / 127], [16 / 127 / 127]])
    assert torch.allclose(int8_product(x, round_weight(weight).t()).double(), wanted)
    assert torch.equal(x, torch.tensor([[1.0, -0.5], [0.0, 4.0]]))  # the input is left as it was


@pytest.mark.parametrize("shape", [(48, 16), (16, 48)], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_both_ways_are_near_the_exact_ones(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator) * torch.rand(shape[0], 1, generator=generator)
    rounded = round_weight(weight.to(dtype))
    for matrix, exact in ((rounded, weight), (rounded.t(), weight.T)):
        x = torch.randn(40, len(exact), generator=generator) * torch.logspace(-6, 3, 40)[:, None]
        product = int8_product(x.to(dtype), matrix)
        wanted = x @ exact
        assert product.dtype == dtype and product.shape == wanted.shape
        error = (product.float() - wanted).norm(dim=1) / wanted.norm(dim=1)
        assert 0 < error.max() < 0.03  # of every row, however large or small


def test_zeros_stay_zeros():
    assert not int8_product(torch.zeros(3, 8), round_weight(torch.zeros(8, 4))).any()


def test_the_gradients_are_nearly_the_exact_ones(pair):
    exact, integers = (gradients(model) for model in pair)
    assert not torch.equal(exact, integers)
    assert torch.nn.functional.cosine_similarity(exact, integers, dim=0) > 0.99


def test_scores_and_answers_do_not_change(pair):
    ids = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        exact, integers = (model(input_ids=ids).logits for model in pair)
    assert torch.equal(exact, integers)


def test_what_was_packed_or_joined_is_rounded_once(pair):
    exact, integers = ([hasattr(weight, "int8") for weight in frozen(model)] for model in pair)
    kept = "down_proj" in pair[1].precision
    assert not any(exact) and sum(integers) == 2 * (
        3 if kept else 4
    )  # the heads', the output's, the gated unit's, down


def test_only_a_cpu_that_is_much_faster_rounds(profile, monkeypatch):
    settings = replace(profile.lora, int8_products=True)
    monkeypatch.setattr(models, "int8_is_much_faster", lambda dtype: False)
    base, _ = models.load_base_model(profile.model)
    model = models.add_lora(base, settings, 1)
    assert not model.int8_products and not any(hasattr(w, "int8") for w in frozen(model))


@pytest.mark.parametrize("fast", [True, False])
def test_the_decision_is_timed(fast, monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", lambda x, w: None if fast else time.sleep(0.1))
    assert int8_is_much_faster(torch.float32) is fast
