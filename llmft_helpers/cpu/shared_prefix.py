"""What all rows of a batch begin with, such as the solved examples of a few-shot prompt, is read once."""

import os

import torch

from ..device import has_card
from .cache import roomy_cache

WORTH = 32  # tokens: fewer are read faster with their rows than in a call of their own


def causal_lm(model):
    """transformers' model, with the layers of whichever adapter is active, out of PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.inference_mode()
def read_shared_prefix(model, rows: list[list[int]], at_most: int):
    """(P, the keys and values of P tokens, once for each row): these tokens, no more than `at_most`, begin all `rows`.

    (0, None) where it is not worth it, and on a GPU, which reads a batch about as fast as a row and where Unsloth
    keeps a cache of its own.
    """
    length = min(len(os.path.commonprefix(rows)), at_most)
    if len(rows) == 1 or length < WORTH or has_card():
        return 0, None
    cache = roomy_cache()
    causal_lm(model).model(input_ids=torch.tensor([rows[0][:length]]), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(rows))
    return length, cache


@torch.inference_mode()
def read_for_all(model, ids, mask, cache, known: int, places) -> None:
    """Read all but `known` tokens and the last of each row (D, T), padded on the left; keep their keys and values as
    often as `places` (B,) names the row; nothing on a GPU, as above."""
    if cache is None:
        return
    if known < ids.shape[1] - 1:
        positions = (mask.cumsum(1) - 1).clamp(min=0)  # (D, T)
        causal_lm(model).model(
            input_ids=ids[:, known:-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, known:-1],
            past_key_values=cache,
            use_cache=True,
        )
    cache.batch_select_indices(places)
