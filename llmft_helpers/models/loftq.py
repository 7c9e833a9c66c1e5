"""LoRA weights that begin where 4-bit rounding left a gap (LoftQ, Li et al. 2023, arXiv 2310.08659).

PEFT has the same as `replace_lora_weights_loftq`, for CUDA only.
"""

from pathlib import Path

import torch
from safetensors import safe_open

from ..errors import UserError


@torch.no_grad()
def begin_at_rounding_error(model, folder: Path) -> float:
    """Set each adapter over a 4-bit layer to the best product of its rank for what rounding took from the weights in
    `folder`/model.safetensors; returns the mean share of the squared error that it gives back, 0 to 1.

    The base stays as it is, so that the model without adapters is the one that was loaded. UserError if the weights
    are not there.
    """
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora.bnb import Linear4bit

    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"lora.loftq needs the unrounded weights, and there is no {path}: set it to false")
    shares = []
    with safe_open(path, framework="pt") as weights:
        for name, layer in model.get_base_model().named_modules():
            if isinstance(layer, Linear4bit):
                rounded = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
                error = weights.get_tensor(f"{name}.weight").to(rounded) - rounded  # (M, K)
                shares.append(_set_product(layer, error))
    return sum(shares) / len(shares)


def _set_product(layer, error) -> float:
    """Let scale * B A be the truncated singular value decomposition of `error` (M, K), its values split evenly."""
    (name,) = layer.active_adapters
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight  # (r, K), (M, r)
    wide = error if len(error) <= error.size(1) else error.t()  # (m, n), m <= n
    squares, left = torch.linalg.eigh(wide @ wide.t())  # (m,) ascending, (m, m): a fraction of the time of an svd
    rank = min(len(a), len(squares))
    left, root = left[:, -rank:], squares[-rank:].clamp(min=torch.finfo(squares.dtype).tiny) ** 0.25  # (m, r), (r,)
    factors = left * root, (left.t() @ wide) / root[:, None]  # (m, r), (r, n)
    tall, flat = factors if wide is error else (factors[1].t(), factors[0].t())  # (M, r), (r, K)
    b[:, :rank], a[:rank] = tall / layer.scaling[name], flat
    return (squares[-rank:].sum() / squares.sum()).item()
