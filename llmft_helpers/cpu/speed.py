"""A frozen 4-bit Llama, Qwen or Gemma 3 on a CPU, without the work that repeats.

bitsandbytes unpacks every NF4 weight again in each forward and backward pass. Here the weights are unpacked once (the
same values, two or four bytes a weight), and norms, attention and gated layers are computed in few passes over memory.
A GPU has fused kernels of its own and is left alone.
"""

import functools
import re
import types

import torch
import torch.nn.functional as F

from .attention import attention_class
from .loss import speed_up_loss
from .norms import FrozenNorm, norm_weight
from .products import join, product, products

MODEL_TYPES = ("llama", "qwen2", "qwen3", "gemma3_text")
FAMILIES = re.compile("Llama|Qwen[23]|Gemma3")  # how the names of their classes begin
SOFT_CAP = "attn_logit_softcapping"  # of Gemma 2's attention
ACTIVATIONS = {  # name in the configuration: function, and its derivative times a gradient
    "silu": (F.silu, torch.ops.aten.silu_backward.grad_input),
    "gelu_pytorch_tanh": (
        functools.partial(F.gelu, approximate="tanh"),
        functools.partial(torch.ops.aten.gelu_backward.grad_input, approximate="tanh"),
    ),
}


def speed_up(model) -> None:
    """Speed up a loaded base, in place; what its layers are and compute stays the same up to rounding."""
    from bitsandbytes.functional import dequantize_4bit

    for layer in [module for module in model.modules() if type(module).__name__ == "Linear4bit"]:
        dense = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        layer.register_buffer("dense", dense.to(layer.compute_dtype or dense.dtype), persistent=False)
        layer.__class__ = _unpacked_class()
    if model.config.model_type in MODEL_TYPES:
        _speed_up_layers(model)
        speed_up_loss(model, MODEL_TYPES)
    head = model.get_output_embeddings()
    # It gets the last positions as a strided slice, for which torch copies the head's weight once a row.
    head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    head.forward = types.MethodType(_head_forward, head)  # its class has to stay: libraries ask for it


def _head_forward(self, x):  # (..., C)
    return product(x, self.weight, self.bias)  # (..., V)


def _speed_up_layers(model) -> None:
    """One short cut for each kind of layer; what differs between families is an argument of it."""
    for module in list(model.modules()):
        kind = FAMILIES.sub("", type(module).__name__, count=1)
        if kind == "RMSNorm":
            module.__class__ = _frozen_norm_class(type(module))
        elif kind == "Attention" and not getattr(module, SOFT_CAP, None):
            _share_input(module, attention_class(type(module)), module.q_proj, module.k_proj, module.v_proj)
        elif kind == "MLP" and module.gate_proj.bias is None and activation_name(model.config) in ACTIVATIONS:
            _share_input(module, _gated_class(type(module)), module.gate_proj, module.up_proj)


def _share_input(module, short_cut, *layers) -> None:
    module.register_buffer("joined", join(*layers), persistent=False)
    module.__class__ = short_cut


def activation_name(config) -> str:
    return getattr(config, "hidden_activation", None) or config.hidden_act


class GatedUnit(torch.autograd.Function):
    """f(g) u for g and u side by side, f one of ACTIVATIONS: (..., 2 M) -> (..., M); arXiv 2002.05202."""

    @staticmethod
    def forward(ctx, joined, activation):
        ctx.save_for_backward(joined)
        ctx.activation = activation
        gate, up = joined.chunk(2, -1)  # (..., M)
        return ACTIVATIONS[activation][0](gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        (joined,) = ctx.saved_tensors
        function, derivative = ACTIVATIONS[ctx.activation]
        gate, up = joined.chunk(2, -1)  # (..., M)
        grad_joined = torch.empty_like(joined)
        grad_gate, grad_up = grad_joined.chunk(2, -1)
        torch.mul(grad, function(gate), out=grad_up)
        derivative(grad * up, gate, grad_input=grad_gate)
        return grad_joined, None


@functools.cache
def _frozen_norm_class(library_class):
    class Norm(library_class):
        def forward(self, x):  # (..., C)
            if self.weight.requires_grad:
                return super().forward(x)
            return FrozenNorm.apply(x, *norm_weight(self))  # (..., C)

    Norm.__name__ = library_class.__name__
    return Norm


@functools.cache
def _gated_class(library_class):
    class Gated(library_class):
        def forward(self, x):  # (..., K)
            joined = products(x, self.joined, self.gate_proj, self.up_proj)
            return self.down_proj(GatedUnit.apply(joined, activation_name(self.config)))  # (..., K)

    Gated.__name__ = library_class.__name__
    return Gated


@functools.cache
def _unpacked_class():
    from bitsandbytes.nn import Linear4bit

    class Unpacked(Linear4bit):
        def forward(self, x):  # (..., K)
            return product(x.to(self.dense.dtype), self.dense, self.bias).to(x.dtype)  # (..., M)

    Unpacked.__name__ = Linear4bit.__name__  # libraries look for it
    return Unpacked
