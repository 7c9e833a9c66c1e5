"""What ends a text, for every kind of model that is read here."""

from collections.abc import Sequence

# A tokenizer names one end token. An instruct model's is the end of its turn, and it still ends a plain text with its
# base's: the ends of Llama 3, of Qwen, whose code models know files too, of SmolLM2 and of Gemma, by name.
NAMES = (
    "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|im_end|>", "<|file_sep|>", "<|repo_name|>",
    "<|fim_pad|>", "<eos>", "<end_of_turn>",
)  # fmt: skip


def end_tokens(tokenizer) -> list[int]:
    """Ids of the tokens after which nothing belongs to an answer, the tokenizer's own end token first."""
    return list(dict.fromkeys([tokenizer.eos_token_id, *_known(tokenizer, NAMES).values()]))


def start_of_text(tokenizer) -> int:
    """What stands before a text where the tokenizer begins texts with nothing: the end of the text before it, which of
    Qwen and SmolLM2 is not the end of a turn."""
    return _known(tokenizer, ["<|endoftext|>"]).get("<|endoftext|>", tokenizer.eos_token_id)


def _known(tokenizer, names: Sequence[str]) -> dict[str, int]:
    """Name -> id, of those in the vocabulary."""
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(names)), strict=True))  # an unknown one's is <unk>'s
    return {name: i for name, i in ids.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == name}
