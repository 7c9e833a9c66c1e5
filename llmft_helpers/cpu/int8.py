"""Products with frozen weights in 8-bit integers, for training on a CPU that multiplies these much faster than floating
point numbers (a Xeon without AMX: four times as fast as float32).

Each row of the input, and each row or column of the weight, is scaled to whole numbers from -127 to 127, in the forward
pass and again for the gradient (arXiv 2208.07339, section 2, without its outlier columns). What LoRA adds, scores and
answers are computed as always: nothing here runs where no gradient is wanted.
"""

from typing import NamedTuple

import torch

from ..device import shortest_seconds

LARGEST, TINY, MUCH_FASTER = 127, 1e-30, 3


class EightBit(NamedTuple):
    """A matrix (K, M): `values` times `inner` (K,) or `outer` (M,), whichever is not None."""

    values: torch.Tensor
    inner: torch.Tensor | None
    outer: torch.Tensor | None

    def t(self) -> "EightBit":
        return EightBit(self.values.t(), self.outer, self.inner)


def round_weight(weight: torch.Tensor) -> EightBit:
    """(K, M), scaled along its shorter side, for which fewer numbers have to be multiplied in every product."""
    columns = weight.size(1) <= weight.size(0)
    scale = (weight.abs().amax(0 if columns else 1, keepdim=True).float() / LARGEST).clamp_(min=TINY)
    values, scale = (weight / scale).round_().to(torch.int8), scale.flatten()
    return EightBit(values, None, scale) if columns else EightBit(values, scale, None)


def int8_product(x: torch.Tensor, matrix: EightBit) -> torch.Tensor:
    """x w: (N, K), (K, M) -> (N, M) in the type of x. Scales are float32, in which nothing scaled exceeds 127."""
    scaled = x if matrix.inner is None else x * matrix.inner  # (N, K)
    largest = torch.maximum(scaled.amax(1, keepdim=True), scaled.amin(1, keepdim=True).neg_())  # (N, 1)
    largest = largest.float().clamp_(min=TINY)
    rounded = (scaled * (LARGEST / largest)).round_().to(torch.int8)
    y = torch._int_mm(rounded, matrix.values).float().mul_(largest / LARGEST)  # (N, M)
    return (y if matrix.outer is None else y.mul_(matrix.outer)).to(x.dtype)


def int8_is_much_faster(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies 8-bit integers at least three times as fast as `dtype`: less would not pay for the
    rounding. Timed, as flags do not say it."""
    x, weight = torch.ones(512, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    whole, whole_weight = x.to(torch.int8), weight.to(torch.int8)
    floats, integers = shortest_seconds(lambda: x @ weight, lambda: torch._int_mm(whole, whole_weight))
    return floats >= MUCH_FASTER * integers
