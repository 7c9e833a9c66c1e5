"""The CPU's short cuts compute what bitsandbytes and PEFT compute, and are taken wherever they can be."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit as LibraryBase
from peft.tuners.lora.bnb import Linear4bit as LibraryLora

from llmft_helpers import models
from llmft_helpers.cpu_speed import LowRankSum

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has kernels of its own")


@pytest.fixture
def tuned(fresh, profile):
    """A model with an adapter that is not zero, in the precision that training gives it."""
    model = models.add_lora(fresh[0], profile.lora, 1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=model.dtype) * 0.05
    return model


def layers(model, kind) -> list:
    return [module for module in model.modules() if isinstance(module, kind)]


def library_forward(model, run):
    """`run()` with bitsandbytes' and PEFT's own forward everywhere."""
    swapped = [(layer, layer.__class__) for layer in layers(model, (LibraryBase, LibraryLora))]
    for layer, _ in swapped:
        layer.__class__ = LibraryLora if isinstance(layer, LibraryLora) else LibraryBase
    try:
        return run()
    finally:
        for layer, short_cut in swapped:
            layer.__class__ = short_cut


def loss_and_gradients(model):
    ids = torch.arange(3, 43).view(2, 20)
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}


def test_the_sum_has_the_gradients_that_autograd_finds():
    generator = torch.Generator().manual_seed(0)
    x, weight, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 8), (6, 8), (4, 8), (6, 4))
    )
    for tensor in (x, a, b):
        tensor.requires_grad_()
    assert torch.allclose(LowRankSum.apply(x, weight, a, b, 0.7), x @ weight.T + 0.7 * (x @ a.T) @ b.T)
    assert torch.autograd.gradcheck(lambda x, a, b: LowRankSum.apply(x, weight, a, b, 0.7), (x, a, b))


def test_every_layer_takes_the_short_cut(tuned, monkeypatch):
    called = []
    monkeypatch.setattr(LibraryLora, "forward", lambda self, x: called.append(self))
    monkeypatch.setattr(LibraryBase, "forward", lambda self, x: called.append(self))
    assert len(layers(tuned, LibraryLora)) == len(layers(tuned, LibraryBase)) == 7 * 2
    tuned(input_ids=torch.arange(3, 9).view(1, 6))
    assert not called


def test_loss_and_gradients_are_the_libraries_own(tuned):
    loss, gradients = loss_and_gradients(tuned)
    wanted, wanted_gradients = library_forward(tuned, lambda: loss_and_gradients(tuned))
    assert loss == pytest.approx(wanted, rel=2e-3)
    assert gradients.keys() == wanted_gradients.keys() and len(gradients) == 2 * 7 * 2
    for name, gradient in gradients.items():
        wanted = wanted_gradients[name]
        assert (gradient - wanted).norm() < 0.03 * wanted.norm(), name  # bfloat16 rounds differently


def test_without_adapter_it_is_the_base(tuned):
    ids = torch.arange(3, 23).view(1, 20)
    with torch.inference_mode(), tuned.disable_adapter():
        logits = tuned(input_ids=ids).logits
        wanted = library_forward(tuned, lambda: tuned(input_ids=ids).logits)
    assert torch.allclose(logits.float(), wanted.float(), atol=0.02)


def test_dropout_is_left_to_the_library(fresh, profile):
    from dataclasses import replace

    model = models.add_lora(fresh[0], replace(profile.lora, dropout=0.5), 1).to(torch.bfloat16).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.05)
    ids = torch.arange(3, 23).view(1, 20)
    with torch.no_grad():
        first, second = model(input_ids=ids).logits, model(input_ids=ids).logits
        assert not torch.equal(first, second)
        model.eval()
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_head_is_not_copied_for_every_row(base):
    model, _ = base
    seen = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(input_ids=torch.arange(3, 23).view(2, 10), logits_to_keep=1)
    handle.remove()
    assert seen[0].shape[:2] == (2, 1) and seen[0].is_contiguous()
