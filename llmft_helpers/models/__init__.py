"""The 4-bit base, its LoRA adapters, what they answer, and how they are saved with a card that says what they are.

One path for CPU and GPU, through Unsloth. May use `reports`, `data`, `cpu` and what is below.
"""

from .generation import generate
from .loading import (
    adapters_off,
    add_lora,
    load_adapter,
    load_base_model,
    load_for_inference,
    save_adapter,
    share_in_4bit,
    trainable_parameters,
)
from .model_card import write_model_card
from .notes import adapter_note
from .sampling import Sampling

__all__ = [
    "Sampling",
    "adapter_note",
    "adapters_off",
    "add_lora",
    "generate",
    "load_adapter",
    "load_base_model",
    "load_for_inference",
    "save_adapter",
    "share_in_4bit",
    "trainable_parameters",
    "write_model_card",
]
