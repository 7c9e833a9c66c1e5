"""Prompt and completion in tokens, for training and scores alike: as a model is asked."""


def encode(tokenizer, prompt: str, completion: str) -> tuple[list[int], int]:
    """(tokens of both without an end token, how many of them are the prompt's).

    The two are tokenized together, as some tokenizers begin every text with a sign of its own; but apart where the
    prompt's last token would take in the completion's first sign. Llama 3's and Qwen's join the marks that end a
    docstring with the line break after them: trained on that token, a model would never have seen the end of a prompt.
    """
    asked, whole = tokenizer(prompt).input_ids, tokenizer(prompt + completion).input_ids
    if whole[: len(asked)] != asked:
        whole = asked + tokenizer(completion, add_special_tokens=False).input_ids
    return whole, len(asked)
