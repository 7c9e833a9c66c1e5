"""The CPU's short cuts compute what bitsandbytes and PEFT compute, and are taken wherever they can be."""

from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit as LibraryBase
from peft.tuners.lora import Linear as LibraryLinear
from peft.tuners.lora.bnb import Linear4bit as LibraryLora
from tiny_gguf import write
from transformers.activations import ACT2FN
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen3 import modeling_qwen3

from llmft_helpers.cpu import products as cpu_products
from llmft_helpers.cpu.attention import Heads, grouped_attention
from llmft_helpers.cpu.norms import FrozenNorm, norm_weight
from llmft_helpers.cpu.products import LowRankSums, products, sum_of_products
from llmft_helpers.cpu.speed import ACTIVATIONS, GatedUnit
from llmft_helpers.models import loading as models

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has kernels of its own")


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, str]:
    """Gemma's has six layers, all but the last of which see 8 tokens; Qwen 2's attention has biases."""
    folder = tmp_path_factory.mktemp("files")
    return {name: str(write(folder / f"{name}.gguf", name)) for name in ("qwen2", "qwen3", "gemma3")}


@pytest.fixture(params=["llama", "qwen2", "qwen3", "gemma3"])
def settings(request, profile, files):
    return replace(profile.model, name=files[request.param]) if request.param in files else profile.model


@pytest.fixture(
    params=[((), None), (("v_proj", "down_proj"), None), ((), torch.float32)],
    ids=["4-bit", "4-bit and 16-bit", "4-bit in training"],
)
def tuned(request, settings, profile):
    """A model with an adapter that is not zero, in the model's type or in the wider one of training."""
    kept, dtype = request.param
    base, _ = models.load_base_model(replace(settings, keep_16bit=kept))
    model = models.add_lora(base, profile.lora, 1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = (torch.randn_like(parameter) * 0.05).to(dtype or model.dtype)
    return model


def layers(model, kind) -> list:
    return [module for module in model.modules() if isinstance(module, kind)]


LORA = (LibraryLora, LibraryLinear)
ATTENTION = (
    modeling_llama.LlamaAttention,
    modeling_qwen2.Qwen2Attention,
    modeling_qwen3.Qwen3Attention,
    modeling_gemma3.Gemma3Attention,
)
NORMS = (
    modeling_llama.LlamaRMSNorm,
    modeling_qwen2.Qwen2RMSNorm,
    modeling_qwen3.Qwen3RMSNorm,
    modeling_gemma3.Gemma3RMSNorm,
)
GATED = (
    modeling_llama.LlamaMLP,
    modeling_qwen2.Qwen2MLP,
    modeling_qwen3.Qwen3MLP,
    modeling_gemma3.Gemma3MLP,
)
LIBRARY = (*LORA, LibraryBase, *ATTENTION, *NORMS, *GATED)


def library_forward(model, run):
    """`run()` with the forward of bitsandbytes, PEFT and transformers everywhere."""
    swapped = [(layer, layer.__class__) for layer in layers(model, LIBRARY)]
    for layer, _ in swapped:
        layer.__class__ = next(kind for kind in LIBRARY if isinstance(layer, kind))
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


def doubles(*shapes) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("biased", (False, True))
@pytest.mark.parametrize("heights", [(6,), (6, 3, 2)], ids=["one layer", "three layers"])
def test_the_sums_have_the_gradients_that_autograd_finds(heights, biased):
    scales = [0.7, 0.3, 2.0][: len(heights)]
    x, bias, *weights = doubles((2, 3, 8), (sum(heights),), *((height, 8) for height in heights))
    bias = bias if biased else None
    factors = [factor for height in heights for factor in doubles((4, 8), (height, 4))]
    for tensor in (x, *factors):
        tensor.requires_grad_()

    def found(x, *factors):
        return LowRankSums.apply(x, torch.cat(weights), bias, None, scales, *factors)

    wanted = [
        x @ w.T + s * (x @ a.T) @ b.T for w, s, a, b in zip(weights, scales, factors[::2], factors[1::2], strict=True)
    ]
    assert torch.allclose(found(x, *factors), torch.cat(wanted, -1) + (bias if biased else 0))
    assert torch.autograd.gradcheck(found, (x, *factors))


@pytest.mark.parametrize(("rows", "columns"), [(512, 576), (700, 576), (1300, 64), (1408, 576), (700, 1024)])
def test_products_in_parts_are_the_whole_product(rows, columns):
    x, w, low, b, c = doubles((rows, 24), (24, columns), (rows, 7), (4, columns - 8), (3, 8))
    wanted = x @ w + torch.cat((0.7 * low[:, :4] @ b, 0.2 * low[:, 4:] @ c), 1)
    assert torch.allclose(sum_of_products(x, w, low, [b, c], [0.7, 0.2]), wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gated_unit_has_the_value_and_gradient_that_autograd_finds(activation):
    (joined,) = doubles((2, 3, 8))
    joined.requires_grad_()
    wanted = ACT2FN[activation](joined[..., :4]) * joined[..., 4:]
    assert torch.allclose(GatedUnit.apply(joined, activation), wanted)
    assert torch.autograd.gradcheck(lambda joined: GatedUnit.apply(joined, activation), (joined,))


@pytest.mark.parametrize("library_class", NORMS)
def test_the_norm_has_the_value_and_gradient_that_autograd_finds(library_class):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(2, 3, 8, generator=generator).requires_grad_() for _ in range(2))
    norm = library_class(8, eps=1e-5)
    norm.weight.data = torch.rand(8, generator=generator)
    norm.requires_grad_(False)
    wanted, found = norm(x), FrozenNorm.apply(x, *norm_weight(norm))
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(*(torch.autograd.grad(y, x, grad)[0] for y in (found, wanted)), atol=1e-6)


@pytest.mark.parametrize("library_class", NORMS)
def test_a_norm_rounds_where_its_library_does(library_class):
    norm = library_class(64).bfloat16().requires_grad_(False)
    norm.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert (FrozenNorm.apply(x, *norm_weight(norm)) != norm(x)).float().mean() < 0.002


def turned_heads(heads, weight=None):
    """What `Heads` has to make of 6 query heads, 2 keys and 2 values of 8 channels: (queries, keys, values), before
    queries and keys are turned by complex numbers."""
    angle = torch.rand(1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 2)
    found = Heads.apply(heads, angle.cos(), angle.sin(), 3, weight, 1e-6 if weight is not None else None)
    return found, torch.exp(1j * angle[:, None, :, :4])


def complex_turn(x, turns):
    x = x.transpose(1, 2)  # (B, H, T, D)
    wanted = torch.complex(x[..., :4], x[..., 4:]) * turns
    return torch.cat((wanted.real, wanted.imag), dim=-1)


def test_queries_and_keys_are_turned_in_pairs_of_channels_and_values_left():
    (heads,) = doubles((2, 5, 10, 8))
    heads.requires_grad_()
    (query, key, value), turns = turned_heads(heads)
    assert torch.allclose(query, complex_turn(heads[:, :, :6], turns))
    assert torch.allclose(key, complex_turn(heads[:, :, 6:8], turns))
    assert torch.equal(value, heads[:, :, 8:].transpose(1, 2))
    assert torch.autograd.gradcheck(lambda heads: turned_heads(heads)[0], (heads,))


def test_queries_and_keys_with_norms_are_normed_before_they_are_turned():
    heads, weight, *grads = (
        part.float() for part in doubles((2, 5, 10, 8), (8, 8), (2, 6, 5, 8), (2, 2, 5, 8), (2, 2, 5, 8))
    )
    heads.requires_grad_()
    found, turns = turned_heads(heads, weight)
    query, key = (torch.nn.functional.rms_norm(heads[:, :, :8], (8,), eps=1e-6) * weight).split([6, 2], 2)
    wanted = complex_turn(query, turns), complex_turn(key, turns), heads[:, :, 8:].transpose(1, 2)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other.float(), atol=1e-5)
    gradients = [
        torch.autograd.grad(sum((y * grad).sum() for y, grad in zip(outputs, grads, strict=True)), heads)[0]
        for outputs in (found, wanted)
    ]
    assert torch.allclose(*gradients, atol=1e-5)


@pytest.mark.parametrize("masked", (True, False))
def test_attention_is_torch_s_own(masked):
    query, key, value = (torch.randn(2, heads, 5, 8) for heads in (6, 2, 2))
    mask = torch.full((2, 1, 5, 5), -1e9).triu(1) if masked else None
    mixed, weights = grouped_attention(query, key, value, mask, scaling=0.3)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=0.3, enable_gqa=True
    )
    assert torch.allclose(mixed.transpose(1, 2), wanted, atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 6, 5))


def test_every_layer_takes_the_short_cut(tuned, monkeypatch):
    called, products_of = [], []
    for kind in LIBRARY:
        monkeypatch.setattr(kind, "forward", lambda self, *args, **kwargs: called.append(self))
    forward = LowRankSums.forward

    def counted(ctx, x, weight, bias, rounded, scales, *factors):
        products_of.append(len(scales))
        return forward(ctx, x, weight, bias, rounded, scales, *factors)

    monkeypatch.setattr(LowRankSums, "forward", staticmethod(counted))
    depth = tuned.config.num_hidden_layers
    assert len(layers(tuned, LORA)) == 7 * depth
    assert len(layers(tuned, LibraryLora)) == len(layers(tuned, LibraryBase)) in (7 * depth, 5 * depth)
    tuned(input_ids=torch.arange(3, 9).view(1, 6))
    assert not called
    # queries, keys and values; output; gate and up; down
    assert products_of == [3, 1, 2, 1] * depth


def test_layers_that_share_an_input_share_their_memory(tuned):
    for attention in layers(tuned, ATTENTION):
        parts = [
            cpu_products.dense(layer.base_layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        assert torch.equal(torch.cat(parts), attention.joined)
        assert {part.untyped_storage().data_ptr() for part in parts} == {attention.joined.untyped_storage().data_ptr()}


def test_a_base_without_adapters_shares_its_products_too(fresh, monkeypatch):
    model, _ = fresh
    rows = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w, *bias: rows.append(len(w)) or linear(x, w, *bias))
    model(input_ids=torch.arange(3, 9).view(1, 6))
    widths = [len(model.model.layers[0].self_attn.joined), model.config.hidden_size]
    assert rows[:2] == widths and len(rows) == 2 * 4 + 1  # and the head


def test_layers_with_other_weights_than_the_shared_ones_compute_with_theirs(fresh):
    attention = fresh[0].model.layers[0].self_attn
    inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
    attention.k_proj.dense = torch.zeros_like(attention.k_proj.dense)
    x = torch.randn(2, 3, fresh[0].config.hidden_size, dtype=fresh[0].dtype)
    query, key, value = products(x, attention.joined, *inputs).split([layer.out_features for layer in inputs], -1)
    assert not key.any() and query.any() and value.any()


def test_a_layer_with_dropout_is_left_to_the_library_and_its_neighbours_with_it(tuned):
    attention = tuned.get_base_model().model.layers[0].self_attn
    inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
    x = torch.randn(2, 3, tuned.config.hidden_size, dtype=tuned.dtype)
    shared = products(x, attention.joined, *inputs)
    attention.k_proj.lora_dropout["default"] = torch.nn.Dropout(1.0)
    attention.k_proj.train()
    query, key, value = products(x, attention.joined, *inputs).split([layer.out_features for layer in inputs], -1)
    assert torch.equal(key, attention.k_proj.base_layer(x))  # all of its adapter is dropped
    wanted = shared.split([layer.out_features for layer in inputs], -1)
    assert torch.allclose(query, wanted[0], atol=0.02) and torch.allclose(value, wanted[2], atol=0.02)
    assert not torch.allclose(key, wanted[1], atol=0.02)


def test_loss_and_gradients_are_the_libraries_own(tuned):
    loss, gradients = loss_and_gradients(tuned)
    wanted, wanted_gradients = library_forward(tuned, lambda: loss_and_gradients(tuned))
    assert loss == pytest.approx(wanted, rel=2e-3)
    assert gradients.keys() == wanted_gradients.keys() and len(gradients) == 2 * 7 * tuned.config.num_hidden_layers
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
