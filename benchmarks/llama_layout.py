"""Llama 3.2's shape and special-token layout with random weights: to rehearse the full profile without a download.

Numbers from the published configuration of Llama 3.2 1B; the weights and the vocabulary are not Meta's.
"""

from collections.abc import Iterable
from pathlib import Path

import torch

SPECIAL_TOKENS = 256  # the last ids of the vocabulary
NAMED = {
    0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>", 6: "<|start_header_id|>",
    7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>", 10: "<|python_tag|>",
}  # fmt: skip
# Llama 3's pre-tokenizer: contractions, words, up to three digits, punctuation, line breaks, white space.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
LLAMA_3_2_1B = {
    "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "initializer_range": 0.02,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    },
}  # fmt: skip


def special_tokens() -> list[str]:
    """The 256 special tokens in the order of their ids."""
    reserved = iter(f"<|reserved_special_token_{number}|>" for number in range(SPECIAL_TOKENS))
    return [NAMED.get(place) or next(reserved) for place in range(SPECIAL_TOKENS)]


def llama_tokenizer(texts: Iterable[str], vocabulary_size: int):
    """A byte-level BPE learned from `texts` with Llama 3.2's special tokens at the end of `vocabulary_size` ids.

    As there: begin-of-text is put before every text, end-of-text ends one, and padding has a token of its own.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    ordinary = vocabulary_size - SPECIAL_TOKENS
    learned = Tokenizer(models.BPE())
    splitting = [
        pre_tokenizers.Split(Regex(WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    learned.pre_tokenizer = pre_tokenizers.Sequence(splitting)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=min(ordinary, 8192), initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator(texts, trainer)
    vocabulary = learned.get_vocab()
    # Ids up to the special tokens exist but are never produced, as the learned vocabulary is smaller.
    vocabulary |= {f"<|unused_{number}|>": number for number in range(len(vocabulary), ordinary)}
    merges = _merges(learned)
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    backend.pre_tokenizer, backend.decoder = learned.pre_tokenizer, decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens()])
    begin = NAMED[0]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, ordinary)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token=NAMED[1], pad_token=NAMED[4], padding_side="left"
    )


def _merges(tokenizer) -> list[tuple[str, str]]:
    import json

    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def write_random_llama(folder: Path, texts: Iterable[str], shape: dict, seed: int = 0) -> None:
    """Save a random Llama of `shape` (LlamaConfig's names) in bfloat16, and its tokenizer, to `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = llama_tokenizer(texts, shape["vocab_size"])
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(**shape, **ids, dtype=torch.bfloat16)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
