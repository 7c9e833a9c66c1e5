"""A Llama's attention on a CPU, in fewer and smaller passes over memory than the library's eager one.

There every key and value is copied once for each query head that shares it, the softmax is kept in float32 beside its
16-bit copy, and a rotation takes ten tensors. Here the heads of a group are rows of one product over the shared key,
the softmax, which sums in float32 inside, is kept once, and a rotation is one operation with a backward of its own.
"""

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama import modeling_llama

GROUPED = "llmft_grouped"


def use_grouped_attention(model) -> None:
    """Let a loaded Llama, and its rotations, compute with what is here; in place."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, eager_mask)
    model.set_attn_implementation(GROUPED)
    modeling_llama.apply_rotary_pos_emb = rotate_both


def grouped_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """softmax(scaling Q K^T + mask) V with heads in groups (Ainslie et al. 2023, arXiv 2305.13245).

    (B, H, T, D), (B, G, S, D), (B, G, S, D), additive mask (B, 1, T, S) or None -> (B, T, H, D), (B, H, T, S).
    """
    B, H, T, D = query.shape
    G, S = key.shape[1:3]
    rows = (query * scaling).reshape(B, G, H // G * T, D)  # the heads of a group lie side by side
    scores = (rows @ key.transpose(2, 3)).view(B, H, T, S)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.nn.functional.dropout(torch.softmax(scores, dim=-1), dropout, module.training)  # (B, H, T, S)
    mixed = weights.view(B, G, H // G * T, S) @ value  # (B, G, H / G * T, D)
    return mixed.view(B, H, T, D).transpose(1, 2).contiguous(), weights


class Rotation(torch.autograd.Function):
    """Rotary positions: channel i and i + D / 2 of x (B, H, T, D) turned by their angle (arXiv 2104.09864)."""

    @staticmethod
    def forward(ctx, x, cos, sin):  # cos, sin: (B or 1, 1, T, D)
        ctx.save_for_backward(cos, sin)
        return Rotation.turn(x, cos, sin, 1)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return Rotation.turn(grad, cos, sin, -1), None, None

    @staticmethod
    def turn(x, cos, sin, sign):
        half = x.shape[-1] // 2
        y = x * cos
        y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
        y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
        return y


def rotate_both(query, key, cos, sin, unsqueeze_dim=1):
    """transformers' `apply_rotary_pos_emb`."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return Rotation.apply(query, cos, sin), Rotation.apply(key, cos, sin)
