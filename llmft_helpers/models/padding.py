"""The token that fills rows of a batch, never the end token, which would then not be learned; and what ends a text."""

from ..errors import UserError

PADDING = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<pad>", "<unk>")
# A tokenizer names one end token. An instruct model's is the end of its turn, and it still ends a plain text with its
# base's: by name, as in llama.cpp, the ends of Llama 3, Qwen (with its files' ends) and SmolLM2, and Gemma.
ENDS = (
    "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|im_end|>", "<|file_sep|>", "<|repo_name|>",
    "<eos>", "<end_of_turn>",
)  # fmt: skip


def set_padding(tokenizer) -> None:
    """Pad on the right, with a token that is neither begin nor end; UserError if the tokenizer has no such one."""
    tokenizer.padding_side = "right"
    taken = (tokenizer.eos_token, tokenizer.bos_token)
    if tokenizer.pad_token is not None and tokenizer.pad_token not in taken:
        return
    control = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]
    named = [name for name in PADDING if name in tokenizer.get_vocab()]
    free = [name for name in (*named, *sorted(control, key=lambda name: "pad" not in name)) if name not in taken]
    if not free:
        raise UserError("the tokenizer has no token to pad with besides its end token; add a pad token to it")
    tokenizer.pad_token = free[0]


def end_tokens(tokenizer) -> list[int]:
    """Ids of the tokens after which nothing belongs to an answer, the tokenizer's own end token first."""
    ids = dict(zip(ENDS, tokenizer.convert_tokens_to_ids(list(ENDS)), strict=True))  # an unknown one's is <unk>'s
    known = [i for name, i in ids.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == name]
    return list(dict.fromkeys([tokenizer.eos_token_id, *known]))
