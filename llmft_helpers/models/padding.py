"""The token that fills rows of a batch: never the end token, which would then not be learned."""

from ..errors import UserError

NAMES = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<pad>", "<unk>")


def set_padding(tokenizer) -> None:
    """Pad on the right, with a token that is neither begin nor end; UserError if the tokenizer has no such one."""
    tokenizer.padding_side = "right"
    taken = (tokenizer.eos_token, tokenizer.bos_token)
    if tokenizer.pad_token is not None and tokenizer.pad_token not in taken:
        return
    control = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]
    named = [name for name in NAMES if name in (*control, tokenizer.unk_token)]  # Qwen spells <unk> as any word
    free = [name for name in (*named, *sorted(control, key=lambda name: "pad" not in name)) if name not in taken]
    if not free:
        raise UserError("the tokenizer has no token to pad with besides its end token; add a pad token to it")
    tokenizer.pad_token = free[0]
