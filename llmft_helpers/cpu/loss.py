"""The loss of completions over a large vocabulary: the logits of few rows at a time, and their gradient at once.

With a vocabulary of 262,144 words and a head tied to the embedding, Gemma 3 270M has more weights in its head than in
all its layers. TRL and Unsloth skip the prompt's logits too, but multiply with the head at half the speed of what is
possible here and read and write the logits a dozen times.
"""

import functools
import math

import torch
import torch.nn.functional as F

from .products import product

CHUNK_LOGITS = 2**25  # held at once; more rows at a time are faster, from 128 on no more


class CompletionLoss(torch.autograd.Function):
    """sum over n of -log softmax(W h_n)[t_n] / divisor: h (N, C), frozen W (V, C), t (N,), divisor -> ().

    Its gradient to h is made in the forward pass, as it only has to be scaled in the backward one.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, divisor):
        gradient, loss = torch.empty_like(hidden), torch.zeros((), dtype=torch.float64)
        parts = math.ceil(len(hidden) * len(weight) / CHUNK_LOGITS)
        for h, t, grad in zip(*(tensor.chunk(parts) for tensor in (hidden, targets, gradient)), strict=True):
            t = t.unsqueeze(1)
            p = product(h, weight).float()  # (n, V)
            p.sub_(p.amax(1, keepdim=True))
            to_target = p.gather(1, t)  # (n, 1)
            others = p.exp_().scatter_(1, t, 0).sum(1, keepdim=True)  # added apart: rounding could leave nothing of it
            whole = others + to_target.exp()
            p.scatter_(1, t, -others)
            torch.mm(p.to(weight.dtype), weight, out=grad)
            grad.div_(whole * divisor)
            loss += (torch.log1p(others + to_target.expm1()) - to_target).sum(dtype=torch.float64)
        ctx.save_for_backward(gradient)
        return (loss / divisor).float()

    @staticmethod
    def backward(ctx, grad):
        (gradient,) = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype), None, None, None


def speed_up_loss(model, model_types: tuple[str, ...]) -> None:
    """Let Unsloth's trainer compute the loss of `model` with `CompletionLoss` and without TRL's further statistics.

    Unsloth offers it the models in a list of its own, which lacks Gemma 3, whose head is as plain.
    """
    from unsloth_zoo.cpu import ops

    ops._CHUNKED_CE_MODEL_TYPES |= set(model_types)
    if not hasattr(ops.chunked_linear_cross_entropy, "__wrapped__"):
        ops.chunked_linear_cross_entropy = _over_completions(ops.chunked_linear_cross_entropy)
    ops.patch_chunked_causal_lm_loss(model)


def _over_completions(library):
    """Unsloth's loss, as `CompletionLoss` wherever that can compute it."""

    @functools.wraps(library)
    def loss(hidden, weight, labels, num_items_in_batch=None, ignore_index=-100, shift_labels=None, **options):
        following = F.pad(labels, (0, 1), value=ignore_index)[..., 1:] if shift_labels is None else shift_labels
        scored = following != ignore_index  # (B, T)
        if weight.requires_grad or hidden.dtype != weight.dtype or hidden.dtype == torch.float16 or not scored.any():
            return library(hidden, weight, labels, num_items_in_batch, ignore_index, shift_labels, **options)
        divisor = scored.sum() if num_items_in_batch is None else num_items_in_batch
        return CompletionLoss.apply(hidden[scored], weight, following[scored], float(divisor))

    return loss
