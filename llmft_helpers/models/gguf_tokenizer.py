"""The tokenizer inside a GGUF file, as the model was trained with it.

transformers reads some of them wrongly: it makes three tokens of "Spanish" for Gemma, and keeps numbers together for
SmolLM2, which reads them digit by digit. Token by token the same as llama.cpp's: benchmarks/gguf_parity.py.
"""

import enum

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import UserError
from .padding import set_padding

SPACE = "▁"  # SentencePiece's sign
WORDS = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# where a text is cut before merging, by the name that llama.cpp gives it (tokenizer.ggml.pre)
CUTS = {
    "llama-bpe": [WORDS.replace("DIGITS", r"\p{N}{1,3}")],
    "smollm": [r"\p{N}", GPT2_WORDS],
    "qwen2": [WORDS.replace("DIGITS", r"\p{N}")],
    "deepseek-r1-qwen": [WORDS.replace("DIGITS", r"\p{N}")],
}
ROLES = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}


class Kind(enum.IntEnum):
    """tokenizer.ggml.token_type"""

    NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def read_tokenizer(file):
    """PreTrainedTokenizerFast of a `gguf_files.GgufFile`; UserError for a kind of tokenizer that is not read here.

    Its padding is not its end token, and it begins texts with BOS where the model was trained so.
    """
    from transformers import PreTrainedTokenizerFast

    kinds = {"gpt2": _byte_level, "llama": _sentencepiece}
    kind, tokens = file.value("tokenizer.ggml.model"), file.value("tokenizer.ggml.tokens")
    if kind not in kinds:
        raise UserError(
            f"{file.path}: tokenizers of the kind {kind!r} are not read here; these are: {', '.join(kinds)}"
        )
    backend, begins = kinds[kind](file, tokens)
    ids = {role: file.value(f"tokenizer.ggml.{role}_token_id", None) for role in ROLES}
    ids["eos"] = file.value("tokenizer.ggml.eos_token_id")
    if file.value("tokenizer.ggml.add_bos_token", begins):
        begin = tokens[file.value("tokenizer.ggml.bos_token_id")]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, ids["bos"])]
        )
    named = {ROLES[role]: tokens[index] for role, index in ids.items() if index is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **named)
    set_padding(tokenizer)
    return tokenizer


def _byte_level(file, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """(BPE over bytes with the file's merges, whether texts begin with BOS if the file does not say)."""
    name = file.value("tokenizer.ggml.pre", None)
    if name not in CUTS:
        raise UserError(f"{file.path}: texts cut like {name!r} are not read here; these are: {', '.join(CUTS)}")
    is_llama = name == "llama-bpe"
    pairs = [tuple(pair.split(" ")) for pair in file.value("tokenizer.ggml.merges")]
    backend = Tokenizer(models.BPE(_vocabulary(tokens), pairs, ignore_merges=is_llama))
    if "qwen" in name:  # llama.cpp leaves this out
        backend.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in CUTS[name]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, to_bytes])
    backend.decoder = decoders.ByteLevel()
    _find_whole(backend, tokens, file)
    return backend, is_llama


def _sentencepiece(file, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """SentencePiece's BPE (arXiv 1808.06226), whose merges are not in the file but follow from its tokens."""
    prefixed = file.value("tokenizer.ggml.add_space_prefix", True)
    if not prefixed:  # Gemma's runs of spaces are in the file as spaces
        tokens = [SPACE * len(token) if set(token) == {" "} else token for token in tokens]
    types, unknown = file.value("tokenizer.ggml.token_type"), file.value("tokenizer.ggml.unknown_token_id", None)
    backend = Tokenizer(
        models.BPE(
            _vocabulary(tokens),
            merges(tokens, types),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = [normalizers.Prepend(SPACE)] if prefixed else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", left=1)] if prefixed else []
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(steps)
    _find_whole(backend, tokens, file)
    return backend, True


def merges(tokens: list[str], types: list[int]) -> list[tuple[str, str]]:
    """All splits of a normal or user-defined token into two of them, in the order of the whole token's id."""
    usable = {token for token, kind in zip(tokens, types, strict=True) if kind in (Kind.NORMAL, Kind.USER_DEFINED)}
    ordered = (token for token in tokens if token in usable)
    splits = ((token[:cut], token[cut:]) for token in ordered for cut in range(1, len(token)))
    return [(left, right) for left, right in splits if left in usable and right in usable]


def _find_whole(backend: Tokenizer, tokens: list[str], file) -> None:
    """Control and user-defined tokens are found in a text before any merge."""
    types = file.value("tokenizer.ggml.token_type")
    backend.add_tokens(
        [
            # a run of spaces is looked for when spaces have got their sign
            AddedToken(token, special=kind == Kind.CONTROL, normalized=set(token) == {SPACE})
            for token, kind in zip(tokens, types, strict=True)
            if kind in (Kind.CONTROL, Kind.USER_DEFINED)
        ]
    )


def _vocabulary(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}
