"""How much memory of a card a profile's training needs, by calculation from the shape of its model."""

from dataclasses import dataclass

from ..profiles import Profile
from .findings import Finding

# Tokens of a row in the fullest of many random batches: pairs of Tatoeba and news, problems of LeetCodeDataset.
ROW_TOKENS = {"translation": 60, "leetcode": 650}
QUANTISED = 0.5 + 1 / 64  # bytes a weight in NF4, with one 8-bit scale for 64 of them
LOSS_GB = 1.0  # Unsloth forms logits in chunks and takes half of what is free, up to 4 GB


@dataclass(frozen=True)
class CardMemory:
    """GB (1e9 bytes) of training; `activations` are those of `tokens` tokens without padding."""

    weights: float
    adapter: float
    activations: float
    tokens: int

    @property
    def total(self) -> float:
        return self.weights + self.adapter + self.activations + LOSS_GB


def projections(config) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each linear layer of a block."""
    width, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    queries, keys = head * config.num_attention_heads, head * config.num_key_value_heads
    return {
        "q_proj": (width, queries), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (queries, width),
        "gate_proj": (width, inner), "up_proj": (width, inner), "down_proj": (inner, width),
    }  # fmt: skip


def token_bytes(config, checkpointing: bool) -> float:
    """Bytes of activations a token that Unsloth's fused Llama keeps for the backward pass, in 16 bits.

    A block keeps its input, the two normed inputs, the stream between, queries, keys, values, attention's output, gate
    and up; the last norm its input and output. With checkpointing a block keeps only its input, and one at a time, with
    its gradients, is computed again.
    """
    shape = projections(config)
    width, queries, keys, inner = config.hidden_size, shape["q_proj"][1], shape["k_proj"][1], config.intermediate_size
    block = 2 * (4 * width + 2 * queries + 2 * keys + 2 * inner)
    blocks = config.num_hidden_layers * 2 * width + 2 * block if checkpointing else config.num_hidden_layers * block
    return blocks + 2 * 2 * width


def card_memory(profile: Profile, config, checkpointing: bool | None = None) -> CardMemory:
    """What training by `profile` needs on one card; `checkpointing`: the profile's where it is not given."""
    shape = projections(config)
    layers, lora = config.num_hidden_layers, profile.lora
    linear = layers * sum(inputs * outputs for inputs, outputs in shape.values())
    embeddings = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    trained = layers * lora.rank * sum(sum(shape[name]) for name in lora.target_modules if name in shape)
    checkpointing = lora.gradient_checkpointing if checkpointing is None else checkpointing
    tokens = max(
        getattr(profile, task).train.batch_size * min(row, profile.model.max_length) for task, row in ROW_TOKENS.items()
    )
    return CardMemory(
        weights=(linear * (QUANTISED if profile.model.load_in_4bit else 2) + embeddings * 2) / 1e9,
        adapter=trained * 16 / 1e9,  # weight, gradient and Adam's two states in float32
        activations=tokens * token_bytes(config, checkpointing) / 1e9,
        tokens=tokens,
    )


def memory_finding(profile: Profile) -> Finding:
    """The profile's need beside what the card has free, and the setting to lower where it will not fit."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(profile.model.name, revision=profile.model.revision)
    except OSError:
        return Finding("GPU memory needed", "not known without the model's configuration")
    config = config.get_text_config()
    need = card_memory(profile, config)
    free, total = (value / 1e9 for value in torch.cuda.mem_get_info())
    value = (
        f"about {need.total:.1f} GB by calculation: weights {need.weights:.1f}, adapter and optimizer "
        f"{need.adapter:.1f}, a step of {need.tokens:,} tokens {need.activations:.1f}, loss {LOSS_GB:.0f}"
    )
    return Finding("GPU memory needed", value, _advice(profile, config, free, total))


def _advice(profile: Profile, config, free: float, total: float) -> str:
    if card_memory(profile, config).total <= free:
        return ""
    if card_memory(profile, config).total <= total:
        return "another program holds memory of the card: end it (nvidia-smi lists them)"
    if card_memory(profile, config, checkpointing=True).total <= total and not profile.lora.gradient_checkpointing:
        return "set lora.gradient_checkpointing = true in a copy of the profile"
    return "set lora.gradient_checkpointing = true and halve train.batch_size of both tasks in a copy of the profile"
