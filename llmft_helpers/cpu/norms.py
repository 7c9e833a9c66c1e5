"""RMS norms with frozen weights (arXiv 1910.07467), in few passes over memory."""

import torch


class FrozenNorm(torch.autograd.Function):
    """w x / sqrt(mean(x^2) + eps) for a frozen w: (..., C) -> (..., C), in float32 inside."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        y, scale = normed(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx, grad):
        return norm_gradient(grad, *ctx.saved_tensors), None, None


def normed(x, weight, eps):
    """(w x s, s = 1 / sqrt(mean(x^2) + eps) in float32 (..., 1)); rounded before w is multiplied if w is rounded."""
    wide = x.to(torch.float32, copy=True)
    scale = torch.rsqrt(torch.linalg.vecdot(wide, wide).unsqueeze(-1) / x.size(-1) + eps)  # (..., 1)
    return wide.mul_(scale).to(weight.dtype).mul_(weight).to(x.dtype), scale


def norm_gradient(grad, x, weight, scale):
    """The gradient of `normed` to x: all (..., C) but weight (C,) or (heads, C) and scale (..., 1)."""
    inner, wide = (grad * weight).float(), x.float()
    along = torch.linalg.vecdot(inner, wide).unsqueeze(-1) * scale.pow(3) / -x.size(-1)  # (..., 1)
    return inner.mul_(scale).addcmul_(wide, along).to(x.dtype)


def norm_weight(norm) -> tuple[torch.Tensor, float]:
    """(w, eps) of a library's norm: Gemma's holds w - 1 and multiplies in float32."""
    if hasattr(norm, "variance_epsilon"):
        return norm.weight, norm.variance_epsilon
    return 1.0 + norm.weight.float(), norm.eps
