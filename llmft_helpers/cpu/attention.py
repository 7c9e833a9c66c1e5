"""A Llama's, Qwen's or Gemma's attention on a CPU, in fewer and smaller passes over memory than the eager one's.

There every key and value is copied once for each query head that shares it, the softmax is kept in float32 beside its
16-bit copy, and a rotation takes ten tensors. Here queries, keys and values come out of one product and are rotated
in one operation, the heads of a group are rows of one product over the shared key, and the softmax, which sums in
float32 inside, is kept once.
"""

import functools

import torch

from .norms import norm_gradient, norm_weight, normed
from .products import products


@functools.cache
def attention_class(library_class):
    """transformers' attention `library_class`, whose `joined` holds its first three weights below each other; heads are
    normed first where it has norms for them."""

    class Attention(library_class):
        def forward(
            self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **kwargs
        ):  # (B, T, C), cos and sin (B or 1, T, D), additive (B, 1, T, S) or None
            B, T, _ = hidden_states.shape
            joined = products(hidden_states, self.joined, self.q_proj, self.k_proj, self.v_proj)
            heads = joined.view(B, T, -1, self.head_dim)  # (B, T, H + 2 G, D)
            query, key, value = Heads.apply(heads, *position_embeddings, self.num_key_value_groups, *_head_norm(self))
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)  # (B, G, S, D)
            dropout = self.attention_dropout if self.training else 0.0
            mixed, weights = grouped_attention(query, key, value, attention_mask, self.scaling, dropout)
            return self.o_proj(mixed.reshape(B, T, -1)), weights  # (B, T, C), (B, H, T, S)

    Attention.__name__ = library_class.__name__
    return Attention


def _head_norm(attention):
    """(weights (H + G, D) of the query and key heads, eps), or (None, None) for heads without norms."""
    if not hasattr(attention, "q_norm"):
        return None, None
    (query, eps), (key, _) = norm_weight(attention.q_norm), norm_weight(attention.k_norm)  # (D,)
    groups = attention.config.num_key_value_heads
    return torch.cat([query.expand(groups * attention.num_key_value_groups, -1), key.expand(groups, -1)]), eps


def grouped_attention(query, key, value, attention_mask, scaling, dropout=0.0):
    """softmax(scaling Q K^T + mask) V with heads in groups (Ainslie et al. 2023, arXiv 2305.13245).

    (B, H, T, D), (B, G, S, D), (B, G, S, D), additive mask (B, 1, T, S) or None -> (B, T, H, D), (B, H, T, S).
    """
    B, H, T, D = query.shape
    G, S = key.shape[1:3]
    rows = (query * scaling).reshape(B, G, H // G * T, D)  # the heads of a group lie side by side
    scores = (rows @ key.transpose(2, 3)).view(B, H, T, S)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.nn.functional.dropout(torch.softmax(scores, dim=-1), dropout)  # (B, H, T, S)
    mixed = weights.view(B, G, H // G * T, S) @ value  # (B, G, H / G * T, D)
    return mixed.view(B, H, T, D).transpose(1, 2).contiguous(), weights


class Heads(torch.autograd.Function):
    """Queries and keys with rotary positions (arXiv 2104.09864), and values, from their heads side by side.

    (B, T, H + 2 G, D), cos and sin (B or 1, T, D), H / G, frozen norm weights (H + G, D) or None, eps ->
    (B, H, T, D), (B, G, T, D), (B, G, T, D).
    """

    @staticmethod
    def forward(ctx, heads, cos, sin, shared, weight, eps):
        G = heads.size(2) // (shared + 2)
        turning, value = heads.split([(shared + 1) * G, G], 2)  # (B, T, H + G, D), (B, T, G, D)
        ctx.save_for_backward(cos, sin, turning, weight)
        if weight is not None:
            turning, ctx.scale = normed(turning, weight, eps)  # (B, T, H + G, 1)
        query, key = turning.transpose(1, 2).split([shared * G, G], 1)
        return _turned(query, cos, sin, 1), _turned(key, cos, sin, 1), value.transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx, grad_query, grad_key, grad_value):
        cos, sin, turning, weight = ctx.saved_tensors
        parts = _turned(grad_query, cos, sin, -1), _turned(grad_key, cos, sin, -1), grad_value
        grad = torch.cat([part.transpose(1, 2) for part in parts], 2)  # (B, T, H + 2 G, D)
        if weight is not None:
            part = grad[:, :, : turning.size(2)]
            part.copy_(norm_gradient(part, turning, weight, ctx.scale))
        return grad, None, None, None, None, None


def _turned(x, cos, sin, sign):
    """Channels i and i + D / 2 turned by their angle: (B, H, T, D), (B or 1, T, D) -> (B, H, T, D)."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # (B or 1, 1, T, D)
    half = x.shape[-1] // 2
    y = torch.mul(x, cos, out=x.new_empty(x.shape))
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return y
