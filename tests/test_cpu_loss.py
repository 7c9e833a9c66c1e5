"""The loss over completions alone is the library's, and so is its gradient."""

import pytest
import torch
import unsloth  # noqa: F401  before its parts
from unsloth_zoo.cpu import ops

from llmft_helpers.cpu import loss as cpu_loss
from llmft_helpers.cpu.loss import CompletionLoss
from llmft_helpers.cpu.products import product

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has kernels of its own")


def states(rows=11, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator) for n in (rows, 50))
    return (hidden * scale).requires_grad_(), weight, torch.randint(0, 50, (rows,), generator=generator)


@pytest.mark.parametrize("chunk", [50, 4 * 50, 2**25])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # logits up to 10, and to 300
def test_loss_and_gradient_are_those_of_cross_entropy(chunk, scale, monkeypatch):
    monkeypatch.setattr(cpu_loss, "CHUNK_LOGITS", chunk)
    hidden, weight, targets = states(scale=scale)
    found = CompletionLoss.apply(hidden, weight, targets, 7.0)
    wide = hidden.double()
    wanted = torch.nn.functional.cross_entropy(wide @ weight.double().t(), targets, reduction="sum") / 7
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    gradients = [torch.autograd.grad(3 * loss, hidden, retain_graph=True)[0] for loss in (found, wanted)]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_sure_right_answer_is_small_and_not_lost():
    hidden, weight, _ = states(1)
    weight = torch.nn.functional.normalize(weight)
    sure = (20 * weight[:1]).detach().requires_grad_()
    loss = CompletionLoss.apply(sure, weight, torch.tensor([0]), 1.0)
    wanted = torch.nn.functional.cross_entropy(sure.double() @ weight.double().t(), torch.tensor([0]))
    assert 0 < wanted < 1e-3 and loss.item() == pytest.approx(wanted.item(), rel=1e-3)
    assert torch.allclose(*(torch.autograd.grad(y, sure)[0] for y in (loss, wanted)), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("count", [None, 40])
def test_it_stands_in_for_unsloths(base, count):
    base[0]  # loading put it there
    hidden, weight, _ = states(24)
    labels = torch.full((2, 12), -100)
    labels[0, 5:9], labels[1, 9:] = torch.arange(4), torch.arange(3)
    hidden = hidden.detach().view(2, 12, 16).requires_grad_()
    count = count and torch.tensor(count)
    found = ops.chunked_linear_cross_entropy(hidden, weight, labels, num_items_in_batch=count)
    wanted = ops.chunked_linear_cross_entropy.__wrapped__(hidden, weight, labels, num_items_in_batch=count)
    assert type(found.grad_fn).__name__ == "CompletionLossBackward"
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(*(torch.autograd.grad(y, hidden)[0] for y in (found, wanted)), atol=1e-6)


def test_a_head_that_is_trained_and_a_batch_without_completion_are_left_to_the_library(base):
    hidden, weight, labels = states(6)
    loss = ops.chunked_linear_cross_entropy(hidden[None], weight.requires_grad_(), labels[None])
    assert torch.autograd.grad(loss, weight)[0].any()
    nothing = ops.chunked_linear_cross_entropy(hidden[None], weight.detach(), torch.full((1, 6), -100), 5)
    assert nothing.item() == 0


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16)])
def test_the_product_with_a_frozen_weight_is_a_linear_layers(shape):
    x, weight, bias = torch.randn(shape), torch.randn(50, 16), torch.randn(50)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        wanted = torch.nn.functional.linear(x.to(dtype), weight.to(dtype))
        assert torch.allclose(product(x.to(dtype), weight.to(dtype)), wanted, atol=1e-5)
        with torch.inference_mode():
            assert torch.allclose(product(x.to(dtype), weight.to(dtype)), wanted, atol=1e-5)
            biased = product(x.to(dtype), weight.to(dtype), bias.to(dtype))
            assert torch.allclose(biased, wanted + bias.to(dtype), atol=1e-5 if dtype != torch.bfloat16 else 0.1)
    x.requires_grad_()
    assert torch.allclose(torch.autograd.grad(product(x, weight).sum(), x)[0], weight.sum(0).expand_as(x), atol=1e-5)
