"""A frozen 4-bit Llama on a CPU, without the work that repeats.

bitsandbytes unpacks every NF4 weight again in each forward and backward pass. Here the weights are unpacked once (the
same values, two or four bytes a weight), and norms, attention and gated layers are computed in few passes over memory.
A GPU has fused kernels of its own and is left alone.
"""

import functools

import torch
import torch.nn.functional as F

from .attention import attention_class
from .products import join, products


def speed_up(model) -> None:
    """Speed up a loaded base, in place; what its layers are and compute stays the same up to rounding."""
    from bitsandbytes.functional import dequantize_4bit

    for layer in [module for module in model.modules() if type(module).__name__ == "Linear4bit"]:
        dense = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        layer.register_buffer("dense", dense.to(layer.compute_dtype or dense.dtype), persistent=False)
        layer.__class__ = _unpacked_class()
    if model.config.model_type == "llama":
        _speed_up_llama(model)
    # The head gets the last positions as a strided slice, for which torch copies the head's weight once a row.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


def _speed_up_llama(model) -> None:
    for module in list(model.modules()):
        name = type(module).__name__
        if name == "LlamaRMSNorm":
            module.__class__ = _frozen_norm_class()
        elif name == "LlamaAttention" and not model.config.attention_bias:
            _share_input(module, attention_class(), module.q_proj, module.k_proj, module.v_proj)
        elif name == "LlamaMLP" and not model.config.mlp_bias and model.config.hidden_act == "silu":
            _share_input(module, _gated_class(), module.gate_proj, module.up_proj)


def _share_input(module, short_cut, *layers) -> None:
    module.register_buffer("joined", join(*layers), persistent=False)
    module.__class__ = short_cut


class GatedUnit(torch.autograd.Function):
    """silu(g) u for g and u side by side: (..., 2 M) -> (..., M); arXiv 2002.05202."""

    @staticmethod
    def forward(ctx, joined):
        ctx.save_for_backward(joined)
        gate, up = joined.chunk(2, -1)  # (..., M)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        (joined,) = ctx.saved_tensors
        gate, up = joined.chunk(2, -1)  # (..., M)
        grad_joined = torch.empty_like(joined)
        grad_gate, grad_up = grad_joined.chunk(2, -1)
        torch.mul(grad, F.silu(gate), out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return grad_joined


class FrozenNorm(torch.autograd.Function):
    """w x / sqrt(mean(x^2) + eps) for a frozen w: (..., C) -> (..., C), in float32 inside; arXiv 1910.07467."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        wide = x.to(torch.float32, copy=True)
        scale = torch.rsqrt(torch.linalg.vecdot(wide, wide).unsqueeze(-1) / x.size(-1) + eps)  # (..., 1)
        ctx.save_for_backward(x, weight, scale)
        return wide.mul_(scale).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx, grad):
        x, weight, scale = ctx.saved_tensors
        inner, wide = (grad * weight).float(), x.float()
        along = torch.linalg.vecdot(inner, wide).unsqueeze(-1) * scale.pow(3) / -x.size(-1)  # (..., 1)
        return inner.mul_(scale).addcmul_(wide, along).to(x.dtype), None, None


@functools.cache
def _frozen_norm_class():
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    class Norm(LlamaRMSNorm):
        def forward(self, x):  # (..., C)
            if self.weight.requires_grad:
                return super().forward(x)
            return FrozenNorm.apply(x, self.weight, self.variance_epsilon)  # (..., C)

    Norm.__name__ = LlamaRMSNorm.__name__
    return Norm


@functools.cache
def _gated_class():
    from transformers.models.llama.modeling_llama import LlamaMLP

    class Gated(LlamaMLP):
        def forward(self, x):  # (..., K)
            return self.down_proj(GatedUnit.apply(products(x, self.joined, self.gate_proj, self.up_proj)))  # (..., K)

    Gated.__name__ = LlamaMLP.__name__
    return Gated


@functools.cache
def _unpacked_class():
    from bitsandbytes.nn import Linear4bit

    class Unpacked(Linear4bit):
        def forward(self, x):  # (..., K)
            return F.linear(x.to(self.dense.dtype), self.dense, self.bias).to(x.dtype)  # (..., M)

    Unpacked.__name__ = Linear4bit.__name__  # libraries look for it
    return Unpacked
