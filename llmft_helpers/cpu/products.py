"""Products of an input with frozen weights and their LoRA adapters, in few and large operations.

PEFT copies, scales and adds tensors of full width for each adapter, and a Llama's layers that share an input are
multiplied one after the other. Here the adapter's product is added in place, and layers that share an input are one.
"""

import functools
import math

import torch
import torch.nn.functional as F

from .int8 import EightBit, int8_product, round_weight

# Measured with torch's oneDNN on 2 cores: up to how many columns it happens, and from how many rows on no longer.
PART_ROWS, MANY_ROWS, NARROW = 512, 1408, 640


def product(x, weight, bias=None):
    """x W^T + b for a frozen W: (..., K), (M, K), (M,) -> (..., M). Without a gradient and in float32 by oneDNN, which
    takes from half to all of the time of MKL, which torch would choose."""
    plain = x.dtype == torch.float32 == weight.dtype and torch.backends.mkldnn.is_available()
    if torch.is_grad_enabled() or not plain:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class LowRankSums(torch.autograd.Function):
    """x W_i^T + b_i + s_i (x A_i^T) B_i^T for each i, side by side; the frozen W_i lie below each other in `weight`.

    (..., K), (sum of M_i, K), frozen biases (sum of M_i,) or None, the weight's EightBit or None, (s_1, ...),
    A_1 (r, K), B_1 (M_1, r), A_2, ... ->
    (..., sum of M_i); arXiv 2106.09685, eq. 3. Factors may be of a wider type than x and `weight`; all is computed in
    theirs, but x W^T, and the gradient's product with W, in 8-bit integers if W is given so.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, integers, scales, *factors):
        factors = [factor.to(x.dtype) for factor in factors]
        rows, a = x.reshape(-1, x.size(-1)), torch.cat(factors[::2])  # (N, K), (R, K)
        low, bs = rows @ a.t(), [b.t() for b in factors[1::2]]  # (N, R), [(r, M_i)]
        if integers is None and x.dtype == torch.float32:
            y = add_products(product(rows, weight), low, bs, scales)  # (N, M)
        else:
            weight = weight if integers is None else integers
            y = sum_of_products(rows, weight.t(), low, bs, scales)  # (N, M)
        y = y if bias is None else y.add_(bias)
        ctx.save_for_backward(rows, a, low, *factors[1::2])
        ctx.weight, ctx.scales, ctx.needs_x = weight, scales, ctx.needs_input_grad[0]
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        rows, a, low, *bs = ctx.saved_tensors
        flat, grad_low = grad.reshape(-1, grad.size(-1)), torch.empty_like(low)  # (N, M), (N, R)
        ranks, heights = [b.size(1) for b in bs], [len(b) for b in bs]
        ys, lows, grads_low = flat.split(heights, 1), low.split(ranks, 1), grad_low.split(ranks, 1)
        grads_b = []
        for y, its_low, its_grad_low, b, scale in zip(ys, lows, grads_low, bs, ctx.scales, strict=True):
            torch.mm(y, b, out=its_grad_low).mul_(scale)  # (N, r)
            grads_b.append((y.t() @ its_low).mul_(scale))  # (M_i, r)
        grads_a = (grad_low.t() @ rows).split(ranks)  # (r, K) each
        grad_x = None
        if ctx.needs_x:
            grad_x = sum_of_products(flat, ctx.weight, grad_low, [a], [1]).view(*grad.shape[:-1], -1)  # (..., K)
        return grad_x, None, None, None, None, *(grad for pair in zip(grads_a, grads_b, strict=True) for grad in pair)


def sum_of_products(x, w, low, bs, scales):
    """x w + [s_1 low_1 b_1, s_2 low_2 b_2, ...]: (N, K), (K, M), (N, R), [(r, M_1), ...], [...] -> (N, M).

    oneDNN computes a bfloat16 product of some more than 512 rows and few columns on one core only: such in parts.
    """
    if isinstance(w, EightBit):
        return add_products(int8_product(x, w), low, bs, scales)
    y = x.new_empty(len(x), w.size(1))  # (N, M)
    parts = math.ceil(len(x) / PART_ROWS) if w.size(1) <= NARROW and len(x) < MANY_ROWS else 1
    for x_part, low_part, y_part in zip(x.chunk(parts), low.chunk(parts), y.chunk(parts), strict=True):
        torch.mm(x_part, w, out=y_part)
        add_products(y_part, low_part, bs, scales)
    return y


def add_products(y, low, bs, scales):
    """y (N, M) itself, with [s_1 low_1 b_1, s_2 low_2 b_2, ...] added: (N, M), (N, R), [(r, M_1), ...], [...]."""
    ranks, columns = [len(b) for b in bs], [b.size(1) for b in bs]
    for y_i, low_i, b, scale in zip(y.split(columns, 1), low.split(ranks, 1), bs, scales, strict=True):
        y_i.addmm_(low_i, b, alpha=scale)
    return y


def products(x, weight, *layers):
    """Each layer's output side by side: (..., K), (sum of M_i, K) as `join` made it -> (..., sum of M_i).

    Layers whose weights are no longer part of `weight`, as after an export's `float()`, compute for themselves.
    """
    if x.dtype == weight.dtype and all(_is_part(getattr(layer, "base_layer", layer), weight) for layer in layers):
        adapters = [_plain_adapter(layer, x) for layer in layers]
        if all(adapters):
            scales, factors = [s for _, _, s in adapters], [factor for a, b, _ in adapters for factor in (a, b)]
            return LowRankSums.apply(x, weight, _biases(layers), rounded(weight), scales, *factors)
        if all(_is_bare(layer) for layer in layers):
            return product(x, weight, _biases(layers))
    return torch.cat([layer(x) for layer in layers], -1)


def _biases(layers):
    """(sum of M_i,), or None: layers that share an input have all a bias, or none has."""
    biases = [getattr(layer, "base_layer", layer).bias for layer in layers]
    return None if biases[0] is None else torch.cat(biases)


def join(*layers) -> torch.Tensor:
    """(sum of M_i, K): the unpacked weights of the layers below each other; the layers' own become views."""
    weight = torch.cat([dense(layer) for layer in layers])
    for layer, part in zip(layers, weight.split([layer.out_features for layer in layers]), strict=True):
        if hasattr(layer, "dense"):
            layer.dense = part
        else:
            layer.weight.data = part
    return weight


def dense(layer):
    """(M, K), unpacked."""
    return layer.dense if hasattr(layer, "dense") else layer.weight.detach()


def rounded(weight) -> EightBit | None:
    """What `round_to_int8` left at a weight, while gradients are wanted: scores and answers are never rounded."""
    return getattr(weight, "int8", None) if torch.is_grad_enabled() else None


def round_to_int8(model) -> None:
    """Let training multiply the unpacked and the joined weights of `model` in 8-bit integers, a view with its whole."""
    for module in model.modules():
        for name in ("joined", "dense"):
            weight = getattr(module, name, None)
            if weight is not None and not weight._is_view():
                weight.int8 = round_weight(weight)


def _is_part(layer, weight) -> bool:
    return dense(layer).untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()


def _is_bare(layer) -> bool:
    """No adapter computes in it."""
    return not hasattr(layer, "lora_A") or (layer.disable_adapters and not layer.merged)


def _plain_adapter(layer, x):
    """(A (r, K), B (M, r), scale) of a layer with one active adapter without dropout, bias or variant, over frozen
    weights in the type of x: what `LowRankSums` computes; else None."""
    if (
        _is_bare(layer)
        or layer.merged
        or len(layer.active_adapters) != 1
        or layer.active_adapters[0] not in layer.lora_A
    ):
        return None
    (name,) = layer.active_adapters
    a, b, dropout = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.lora_dropout[name]
    plain = (
        name not in layer.lora_variant
        and (isinstance(dropout, torch.nn.Identity) or not layer.training)
        and layer.lora_B[name].bias is None
        and (layer.base_layer.bias is None or not layer.base_layer.bias.requires_grad)
        and dense(layer.base_layer).dtype == x.dtype
    )
    return (a, b, layer.scaling[name]) if plain else None


def add_in_place(model) -> None:
    """Let the adapters of `model` over unpacked layers, and over layers that were never packed, add their product in
    place, whichever adapter is active."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.bnb import Linear4bit

    for module in model.modules():
        unpacked = type(module) is Linear4bit and hasattr(module.base_layer, "dense")
        if unpacked or (type(module) is Linear and module.base_layer.weight.device.type == "cpu"):
            module.__class__ = _in_place_class(type(module))


@functools.cache
def _in_place_class(library_class):
    class InPlace(library_class):
        def forward(self, x, *args, **kwargs):  # (..., K)
            adapter = None if args or kwargs else _plain_adapter(self, x)
            if adapter is None:
                return super().forward(x, *args, **kwargs)  # (..., M)
            a, b, scale = adapter
            weight = dense(self.base_layer)
            return LowRankSums.apply(x, weight, self.base_layer.bias, rounded(weight), [scale], a, b)  # (..., M)

    InPlace.__name__ = library_class.__name__
    return InPlace
