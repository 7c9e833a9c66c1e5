"""The CPU's short cuts compute what bitsandbytes and PEFT compute, and are taken wherever they can be."""

from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit as LibraryBase
from peft.tuners.lora import Linear as LibraryLinear
from peft.tuners.lora.bnb import Linear4bit as LibraryLora
from transformers.models.llama import modeling_llama

from llmft_helpers import models
from llmft_helpers.cpu_attention import GROUPED, Rotation, grouped_attention, use_grouped_attention
from llmft_helpers.cpu_speed import FrozenNorm, LowRankSum, sum_of_products

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has kernels of its own")


@pytest.fixture(params=[(), ("v_proj", "down_proj")], ids=["4-bit", "4-bit and 16-bit"])
def tuned(request, profile):
    """A model with an adapter that is not zero, in the precision that training gives it."""
    base, _ = models.load_base_model(replace(profile.model, keep_16bit=request.param))
    model = models.add_lora(base, profile.lora, 1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=model.dtype) * 0.05
    return model


def layers(model, kind) -> list:
    return [module for module in model.modules() if isinstance(module, kind)]


LORA = (LibraryLora, LibraryLinear)
LIBRARY = (*LORA, LibraryBase, modeling_llama.LlamaRMSNorm)
library_rotation = modeling_llama.rotate_half  # what `apply_rotary_pos_emb` is made of


def rotated_by_the_library(query, key, cos, sin, unsqueeze_dim=1):
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return query * cos + library_rotation(query) * sin, key * cos + library_rotation(key) * sin


def library_forward(model, run):
    """`run()` with the forward of bitsandbytes, PEFT and transformers everywhere."""
    swapped = [(layer, layer.__class__) for layer in layers(model, LIBRARY)]
    for layer, _ in swapped:
        layer.__class__ = next(kind for kind in LIBRARY if isinstance(layer, kind))
    model.set_attn_implementation("eager")
    short_rotation = modeling_llama.apply_rotary_pos_emb
    modeling_llama.apply_rotary_pos_emb = rotated_by_the_library
    try:
        return run()
    finally:
        modeling_llama.apply_rotary_pos_emb = short_rotation
        use_grouped_attention(model)
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


@pytest.mark.parametrize(("rows", "columns"), [(512, 576), (700, 576), (1300, 64), (1408, 576), (700, 1024)])
def test_products_in_parts_are_the_whole_product(rows, columns):
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, 24), (24, columns), (rows, 4), (4, columns))
    x, w, low, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    assert torch.allclose(sum_of_products(x, w, low, b, 0.7), x @ w + 0.7 * low @ b)


def test_the_norm_has_the_value_and_gradient_that_autograd_finds():
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(2, 3, 8, generator=generator).requires_grad_() for _ in range(2))
    weight = torch.rand(8, generator=generator)
    wanted = torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    found = FrozenNorm.apply(x, weight, 1e-5)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(*(torch.autograd.grad(y, x, grad)[0] for y in (found, wanted)), atol=1e-6)


def test_the_rotation_turns_pairs_of_channels_and_back():
    angle = torch.rand(1, 1, 5, 4, dtype=torch.float64).repeat(1, 1, 1, 2)  # (1, 1, T, D)
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    turned = Rotation.apply(x, angle.cos(), angle.sin())
    wanted = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * angle[..., :4])
    assert torch.allclose(turned, torch.cat((wanted.real, wanted.imag), dim=-1))
    assert torch.autograd.gradcheck(lambda x: Rotation.apply(x, angle.cos(), angle.sin()), (x,))


@pytest.mark.parametrize("masked", (True, False))
def test_attention_is_torch_s_own(masked):
    query, key, value = (torch.randn(2, heads, 5, 8) for heads in (6, 2, 2))
    mask = torch.full((2, 1, 5, 5), -1e9).triu(1) if masked else None
    mixed, weights = grouped_attention(torch.nn.Identity(), query, key, value, mask, scaling=0.3)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    assert torch.allclose(mixed.transpose(1, 2), wanted, atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 6, 5))


def test_every_layer_takes_the_short_cut(tuned, monkeypatch):
    called = []
    for kind in LIBRARY:
        monkeypatch.setattr(kind, "forward", lambda self, x: called.append(self))
    monkeypatch.setattr(modeling_llama, "eager_attention_forward", lambda *args, **kwargs: called.append(args[0]))
    turned = []
    forward = Rotation.forward
    monkeypatch.setattr(Rotation, "forward", staticmethod(lambda *args: turned.append(1) or forward(*args)))
    assert len(layers(tuned, LORA)) == 7 * 2
    assert len(layers(tuned, LibraryLora)) == len(layers(tuned, LibraryBase)) in (7 * 2, 5 * 2)
    assert tuned.config._attn_implementation == GROUPED
    tuned(input_ids=torch.arange(3, 9).view(1, 6))
    assert not called and len(turned) == 2 * 2  # queries and keys of two layers


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
