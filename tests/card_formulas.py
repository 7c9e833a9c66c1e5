"""Unsloth's CUDA path on a CPU: its Triton kernels replaced by torch formulas of the same shape.

Everything above the kernels is Unsloth's own: loader, fast forward, fast generate, fused LoRA, generated trainer. To be
imported before the package's rooms, in a process of its own; Unsloth changes libraries for the whole process.
"""

import os
from types import SimpleNamespace

os.environ |= {"UNSLOTH_ALLOW_CPU": "1", "TORCHDYNAMO_DISABLE": "1", "UNSLOTH_COMPILE_DISABLE": "1"}

import torch

from llmft_helpers import device

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
computes_in = [torch.float32]
device.has_card = lambda: True
device.compute_dtype = lambda: computes_in[0]


def make_a_card() -> None:
    """What is asked of a card: an A100 with 80 GB, almost all of it free."""
    from transformers import training_args

    properties = SimpleNamespace(name="a card", total_memory=80 * 10**9, major=8, minor=0, multi_processor_count=108)
    torch.cuda.get_device_properties = lambda *_: properties
    torch.cuda.get_device_capability = lambda *_: (8, 0)
    torch.cuda.get_device_name = lambda *_: properties.name
    torch.cuda.mem_get_info = lambda *_: (78 * 10**9, 80 * 10**9)
    torch.cuda.current_device = lambda: 0
    torch.cuda.max_memory_allocated = lambda *_: 0
    training_args.is_torch_bf16_gpu_available = lambda: True


def rms_forward(x, weight, eps, gemma, wrap, multirow=None):  # (N, C), (C,)
    inverse = torch.rsqrt(x.float().square().mean(-1) + eps)  # (N,)
    return (x.float() * inverse[:, None]).to(weight.dtype) * weight, inverse


def rms_backward(dy, dx, x, weight, inverse, eps, gemma, wrap, multirow=None, train_w=False, from_y=False):
    normed, scaled = x.float() * inverse[:, None], (dy * weight).float()  # (N, C) both
    dx.copy_(inverse[:, None] * (scaled - normed * (scaled * normed).mean(-1, keepdim=True)))


def rotate(x, cos, sin):  # (B, H, T, D)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def rope(q, k, cos, sin, positions=None):  # (B, H, T, D) both, cos and sin (positions, D)
    cos, sin = cos.squeeze(), sin.squeeze()
    if positions is None:
        cos, sin = cos[: q.shape[-2]], sin[: q.shape[-2]]
    else:
        cos, sin = (table[positions.view(-1, q.shape[-2])].unsqueeze(1) for table in (cos, sin))
    return rotate(q, cos.to(q.dtype), sin.to(q.dtype)), rotate(k, cos.to(q.dtype), sin.to(q.dtype))


def dequantize(packed, state=None, out=None, use_global_buffer=False, dtype=None):
    from bitsandbytes.functional import dequantize_4bit

    if state is None:
        return packed
    weight = dequantize_4bit(packed.reshape(-1, 1), state)  # (M, K)
    return weight.t() if packed.shape[0] == 1 else weight


def product(x, packed, state, out=None):  # (1, 1, K)
    result = x @ dequantize(packed.reshape(-1, 1), state).t().to(x.dtype)  # (1, 1, M)
    return result if out is None else out.copy_(result)


def swiglu(e, g):  # (B, T, F) both
    return (e.float() * torch.sigmoid(e.float())).to(g.dtype) * g


def use_formulas() -> None:
    import unsloth  # noqa: F401
    from bitsandbytes.nn import Linear4bit
    from unsloth.kernels import fast_lora, rms_layernorm, utils
    from unsloth.kernels import swiglu as swiglu_kernels
    from unsloth.models import _utils, llama, loader

    rms_layernorm._rms_forward, rms_layernorm._rms_backward = rms_forward, rms_backward
    fast_lora.swiglu_fg_kernel = swiglu
    fast_lora.swiglu_DWf_DW_dfg_kernel = swiglu_kernels._DWf_DW_dfg_traced
    utils._fast_dequantize_bnb, utils._fast_gemv_bnb, utils._USE_NF4_KERNELS = dequantize, product, False
    llama.fast_rope_embedding = rope
    llama._base_weight_dtype = lambda projection: torch.bfloat16  # float32, which hides no fault, too
    llama.DEVICE_COUNT, llama.DEVICE_TYPE_TORCH, _utils.SUPPORTS_BFLOAT16 = 1, "cpu", True
    llama.get_current_device, loader.ALLOW_BITSANDBYTES = lambda: "cpu", True
    ensure = llama._PerDeviceRopeCache._ensure_rope_cache
    llama._PerDeviceRopeCache._ensure_rope_cache = lambda self, index: ensure(self, index or 0)
    llama._PerDeviceRopeCache._build_rope_cache = build_rope_cache
    # bitsandbytes turns weights into a CPU's own layout after an evaluation
    initialise = Linear4bit.__init__

    def without_own_layout(self, *arguments, **named):
        initialise(self, *arguments, **named)
        self.support_avx512bf16_for_cpu = False

    Linear4bit.__init__ = without_own_layout


def build_rope_cache(self, index: int) -> None:
    size = self.current_rope_size
    with self._rope_build_mode():
        self._set_cos_sin_cache(self._rope_cache_rows(), torch.device("cpu", index), self._rope_cache_dtype)
    self.current_rope_size = size
    self._rope_cache_versions[index] = self._rope_cache_version
    self._mark_rope_build(index)


def generate_the_trainer() -> None:
    """Unsloth leaves TRL's trainer alone where UNSLOTH_ALLOW_CPU is set; on a card it replaces it."""
    from unsloth.models import rl
    from unsloth.trainer import _patch_trl_trainer

    rl.patch_trl_disable_gradient_checkpointing()
    rl._patch_trl_rl_trainers_impl("sft_trainer")
    _patch_trl_trainer()


use_formulas()
make_a_card()
generate_the_trainer()
