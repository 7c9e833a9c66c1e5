"""transformers' tokenizers over bytes in GGUF's terms, for models that came from a hub: Llama 3, Qwen, SmolLM2.

The way back of gguf_tokenizer.py. SentencePiece's are not written: their scores are not in what a hub's folder holds.
"""

import json

from tokenizers import Regex, pre_tokenizers

from ..errors import UserError
from .gguf_tokenizer import CUTS, Kind

# numbers, contractions, runs of spaces and breaks, marks, other scripts: no two of CUTS leave the same pieces
SAMPLE = (
    "I'll don'T 1 12 123 1234567 3.14 ½²\n\n\n \t x  y\r\n¡Niña! «años» cafe\u0301 漢字 Русский 🤖👩‍👩‍👧 "
    "====--- a_b(c)[0]     return self.x  # end \n"
)


def write_tokenizer(writer, tokenizer, rows: int) -> None:
    """Tokens, kinds, merges and special ids of `tokenizer` for an embedding of `rows` tokens; UserError if llama.cpp
    has no tokenizer, of those that are read here, which cuts texts in the same way."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cutting(tokenizer, model))
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    writer.add_token_list([names.get(index, f"[PAD{index}]") for index in range(rows)])
    writer.add_token_types([_kind(index, names, added) for index in range(rows)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    for role in ("bos", "eos", "pad", "unk"):
        index = getattr(tokenizer, f"{role}_token_id")
        if index is not None:
            getattr(writer, f"add_{role}_token_id")(index)
    writer.add_add_bos_token(tokenizer("").input_ids == [tokenizer.bos_token_id])


def _kind(index: int, names: dict[int, str], added: dict) -> Kind:
    if index in added:
        return Kind.CONTROL if added[index].special else Kind.USER_DEFINED
    return Kind.NORMAL if index in names else Kind.UNUSED


def _cutting(tokenizer, model: dict) -> str:
    """llama.cpp's name for the way in which `tokenizer` cuts texts before merging."""
    backend = tokenizer.backend_tokenizer
    if model["type"] == "BPE" and backend.pre_tokenizer is not None:
        pieces = _pieces(backend.pre_tokenizer)
        for name, cuts in CUTS.items():
            # as gguf_tokenizer.py reads them
            same = (backend.normalizer is not None, bool(model["ignore_merges"])) == (
                "qwen" in name,
                name == "llama-bpe",
            )
            if same and pieces == _pieces(_bytes_after(cuts)):
                return name
    raise UserError(
        "this model's tokenizer is not written as GGUF here, only those over bytes that cut texts as "
        f"{', '.join(CUTS)} do: train on a GGUF file of the same base (model.name), whose tokenizer is taken over, or "
        "export --format merged and convert that with llama.cpp's convert_hf_to_gguf.py"
    )


def _bytes_after(cuts: list[str]):
    splits = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in cuts]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _pieces(cutter) -> list[str]:
    return [piece for piece, _ in cutter.pre_tokenize_str(SAMPLE)]
