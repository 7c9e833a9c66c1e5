"""What ends a text, for every kind of model that is read here."""

# A tokenizer names one end token. An instruct model's is the end of its turn, and it still ends a plain text with its
# base's: the ends of Llama 3, of Qwen, whose code models know files too, of SmolLM2 and of Gemma, by name.
NAMES = (
    "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|im_end|>", "<|file_sep|>", "<|repo_name|>",
    "<|fim_pad|>", "<eos>", "<end_of_turn>",
)  # fmt: skip


def end_tokens(tokenizer) -> list[int]:
    """Ids of the tokens after which nothing belongs to an answer, the tokenizer's own end token first."""
    ids = dict(zip(NAMES, tokenizer.convert_tokens_to_ids(list(NAMES)), strict=True))  # an unknown one's is <unk>'s
    known = [i for name, i in ids.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == name]
    return list(dict.fromkeys([tokenizer.eos_token_id, *known]))
