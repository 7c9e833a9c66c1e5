"""Frozen 4-bit layers, their LoRA adapters and a Llama's norms on a CPU, without the work that repeats.

bitsandbytes unpacks every NF4 weight again in each forward and backward pass, and PEFT copies, scales and adds
tensors of full width for each adapter. Here the weights are unpacked once (the same values, two or four bytes a
weight), the adapter's product is added in place, and a frozen norm has a backward of its own. A GPU has fused
kernels of its own and is left alone.
"""

import functools
import math

import torch
import torch.nn.functional as F

# Measured with torch's oneDNN on 2 cores: up to how many columns it happens, and from how many rows on no longer.
PART_ROWS, MANY_ROWS, NARROW = 512, 1408, 640


def speed_up(model) -> None:
    """Speed up a loaded base, in place; what its layers are and compute stays the same up to rounding."""
    from bitsandbytes.functional import dequantize_4bit

    if model.config.model_type == "llama":
        from .cpu_attention import use_grouped_attention

        use_grouped_attention(model)
        for norm in [module for module in model.modules() if type(module).__name__ == "LlamaRMSNorm"]:
            norm.__class__ = _frozen_norm_class()
    for layer in [module for module in model.modules() if type(module).__name__ == "Linear4bit"]:
        dense = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        layer.register_buffer("dense", dense.to(layer.compute_dtype or dense.dtype), persistent=False)
        layer.__class__ = _unpacked_class()
    # The head gets the last positions as a strided slice, for which torch copies the head's weight once a row.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


def add_in_place(model) -> None:
    """Let the adapters of `model` over unpacked layers, and over layers that were never packed, add their product in
    place, whichever adapter is active."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.bnb import Linear4bit

    for module in model.modules():
        unpacked = type(module) is Linear4bit and hasattr(module.base_layer, "dense")
        if unpacked or (type(module) is Linear and module.base_layer.weight.device.type == "cpu"):
            module.__class__ = _in_place_class(type(module))


class LowRankSum(torch.autograd.Function):
    """y = x W^T + s (x A^T) B^T for a frozen W: (N, K), (M, K), (r, K), (M, r) -> (N, M); arXiv 2106.09685, eq. 3."""

    @staticmethod
    def forward(ctx, x, weight, a, b, scale):
        rows = x.reshape(-1, x.size(-1))  # (N, K)
        low = rows @ a.t()  # (N, r)
        y = sum_of_products(rows, weight.t(), low, b.t(), scale)  # (N, M)
        ctx.save_for_backward(rows, weight, a, b, low)
        ctx.scale, ctx.needs_x = scale, ctx.needs_input_grad[0]
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        rows, weight, a, b, low = ctx.saved_tensors
        flat = grad.reshape(-1, grad.size(-1))  # (N, M)
        grad_low = (flat @ b).mul_(ctx.scale)  # (N, r)
        grad_b = (flat.t() @ low).mul_(ctx.scale)  # (M, r)
        grad_x = None
        if ctx.needs_x:
            grad_x = sum_of_products(flat, weight, grad_low, a, 1).view(*grad.shape[:-1], -1)  # (..., K)
        return grad_x, None, grad_low.t() @ rows, grad_b, None


def sum_of_products(x, w, low, b, scale):
    """x w + s low b: (N, K), (K, M), (N, r), (r, M) -> (N, M).

    oneDNN computes a bfloat16 product of some more than 512 rows and few columns on one core only: such in parts.
    """
    y = x.new_empty(len(x), w.size(1))  # (N, M)
    parts = math.ceil(len(x) / PART_ROWS) if w.size(1) <= NARROW and len(x) < MANY_ROWS else 1
    for x_part, low_part, y_part in zip(x.chunk(parts), low.chunk(parts), y.chunk(parts), strict=True):
        torch.mm(x_part, w, out=y_part).addmm_(low_part, b, alpha=scale)
    return y


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
def _unpacked_class():
    from bitsandbytes.nn import Linear4bit

    class Unpacked(Linear4bit):
        def forward(self, x):  # (..., K)
            return F.linear(x.to(self.dense.dtype), self.dense, self.bias).to(x.dtype)  # (..., M)

    Unpacked.__name__ = Linear4bit.__name__  # libraries look for it
    return Unpacked


@functools.cache
def _in_place_class(library_class):
    class InPlace(library_class):
        def forward(self, x, *args, **kwargs):  # (..., K)
            if self.disable_adapters or args or kwargs or not self._is_plain(x):
                return super().forward(x, *args, **kwargs)  # (..., M)
            (name,) = self.active_adapters
            a, b = self.lora_A[name].weight, self.lora_B[name].weight
            return LowRankSum.apply(x, _dense(self.base_layer), a, b, self.scaling[name])  # (..., M)

        def _is_plain(self, x) -> bool:
            """One active adapter without dropout, bias or variant, all in one type: what `LowRankSum` computes."""
            if self.merged or len(self.active_adapters) != 1 or self.active_adapters[0] not in self.lora_A:
                return False
            name, dense = self.active_adapters[0], _dense(self.base_layer)
            dropout, weights = self.lora_dropout[name], (self.lora_A[name].weight, self.lora_B[name].weight)
            return (
                name not in self.lora_variant
                and (isinstance(dropout, torch.nn.Identity) or not self.training)
                and self.lora_B[name].bias is None
                and self.base_layer.bias is None
                and all(t.dtype == dense.dtype for t in (x, *weights))
            )

    InPlace.__name__ = library_class.__name__
    return InPlace


def _dense(layer):
    """(M, K), unpacked."""
    return layer.dense if hasattr(layer, "dense") else layer.weight
