"""Where a prompt ends, in tokens: for training, scores and answers alike."""


def as_asked(tokenizer, prompt: str) -> str:
    """The prompt, with the line break after a closed docstring where the tokenizer makes one token of both.

    Llama 3's and Qwen's do. Asked without it, a base goes on from a token that it seldom saw before a line break, and a
    model that was trained on the whole has never seen its prompt end there. SmolLM2's joins the line break with the
    indentation that follows, and Gemma's with nothing.
    """
    joined = prompt.endswith('"""') and len(tokenizer(prompt + "\n").input_ids) == len(tokenizer(prompt).input_ids)
    return prompt + "\n" if joined else prompt


def after_docstring(tokenizer) -> str:
    """What `as_asked` puts behind a prompt that ends in a docstring: a line break, or nothing."""
    closed = 'x\n"""'
    return as_asked(tokenizer, closed).removeprefix(closed)


def split(tokenizer, prompt: str, completion: str) -> tuple[str, str]:
    """(the prompt as it is asked, what is left of the completion then)."""
    begin, whole = as_asked(tokenizer, prompt), prompt + completion
    return (begin, whole.removeprefix(begin)) if whole.startswith(begin) else (prompt, completion)


def encode(tokenizer, prompt: str, completion: str) -> tuple[list[int], int]:
    """(tokens of prompt and completion without an end token, how many of them are the prompt's as it is asked).

    The two are tokenized together, as some tokenizers begin every text with a sign of its own; but apart where a token
    would still reach over the end of the prompt.
    """
    begin, rest = split(tokenizer, prompt, completion)
    known, whole = tokenizer(begin).input_ids, tokenizer(prompt + completion).input_ids
    if whole[: len(known)] != known:
        whole = known + tokenizer(rest, add_special_tokens=False).input_ids
    return whole, len(known)
