"""Tiny random GGUF files of every architecture and kind of tokenizer that are read; the same bytes each time."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

SPACE = "\u2581"
WORDS = [
    "Spanish", "English:", "the", "station", "house", "water", "where", "what", "¿Dónde", "está", "la", "estación",
    "niña", "years", "return", "self", "for", "range", "numbers", "def", "sum", "list", "12", "2024", "don't", "I'll",
    "we're", "\n\n", "\t\t", "====", "漢字", "🤖",
]  # fmt: skip
# file: (architecture, kind of tokenizer)
FILES = {
    "llama-bpe": ("llama", "llama-bpe"),
    "llama-smollm": ("llama", "smollm"),
    "llama-sentencepiece": ("llama", "sentencepiece"),
    "llama3-rope": ("llama", "llama-bpe"),
    "qwen2": ("qwen2", "qwen2"),
    "qwen3": ("qwen3", "qwen2"),
    "gemma3": ("gemma3", "gemma"),
}
WIDTH, HEADS, GROUPS, HEAD, HIDDEN, WINDOW = 32, 4, 2, 16, 48, 8
THETA = 100_000.0
UNMERGEABLE = "Ġunmergeable"  # a token that no merge makes: Llama 3 takes it as it is


def write(path: Path, name: str) -> Path:
    """The file `name` of FILES: 2 layers (6 of Gemma, whose sixth sees everything), weights that bfloat16 holds."""
    architecture, kind = FILES[name]
    writer = GGUFWriter(path, architecture)
    if kind in ("sentencepiece", "gemma"):
        tokens = _sentencepiece(writer, runs=["\n", "\n\n", "  ", "   ", "    ", "<td>"] if kind == "gemma" else [])
    else:
        tokens = _byte_level(writer, kind)
    layers = 6 if architecture == "gemma3" else 2
    head = WIDTH // HEADS if architecture == "qwen2" else HEAD
    _describe(writer, architecture, layers, head)
    _add_weights(writer, architecture, layers, head, tokens)
    if name == "llama3-rope":
        writer.add_tensor("rope_freqs.weight", llama3_stretch(head))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shaken_adapter(base: Path, folder: Path, task: str = "translation"):
    """(profile, folder of an adapter that does something) of the profile tiny with another base."""
    import torch

    from llmft_helpers.models import loading
    from llmft_helpers.models.notes import adapter_note
    from llmft_helpers.profiles import PRESETS, load_profile

    folder.mkdir(parents=True)
    preset = (PRESETS / "tiny.toml").read_text()
    # bitsandbytes cannot pack layers as narrow as these
    mine = preset.replace('name = "random"', f'name = "{base}"\nload_in_4bit = false')
    (folder / "mine.toml").write_text(mine)
    profile = load_profile(str(folder / "mine.toml"))
    model, _ = loading.load_base_model(profile.model)
    model = loading.add_lora(model, profile.lora, profile.seed)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    loading.save_adapter(model, folder / "adapter", adapter_note(profile, task))
    return profile, folder / "adapter"


def _describe(writer: GGUFWriter, architecture: str, layers: int, head: int) -> None:
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(THETA)
    if architecture != "qwen2":  # whose heads share the width
        writer.add_key_length(head)
        writer.add_value_length(head)
    if architecture == "llama":
        writer.add_rope_dimension_count(head)
    if architecture == "gemma3":
        writer.add_sliding_window(WINDOW)


def _add_weights(writer: GGUFWriter, architecture: str, layers: int, head: int, tokens: int) -> None:
    draw = np.random.default_rng(0)
    one = np.float32(architecture == "gemma3")  # which holds its norms in bfloat16 without the 1

    def add(tensor: str, *shape: int) -> None:
        writer.add_tensor(tensor, _bfloat16(1.5 / np.sqrt(shape[-1]) * draw.standard_normal(shape)))

    def add_norm(tensor: str, size: int) -> None:
        writer.add_tensor(tensor, _bfloat16(1 - one + 0.2 * draw.standard_normal(size)) + one)

    add("token_embd.weight", tokens, WIDTH)
    add_norm("output_norm.weight", WIDTH)
    if architecture != "gemma3":
        add("output.weight", tokens, WIDTH)
    for block in (f"blk.{layer}" for layer in range(layers)):
        more = ("post_attention_norm", "post_ffw_norm") if architecture == "gemma3" else ()
        for norm in ("attn_norm", "ffn_norm", *more):
            add_norm(f"{block}.{norm}.weight", WIDTH)
        for name, heads in {"attn_q": HEADS, "attn_k": GROUPS, "attn_v": GROUPS}.items():
            add(f"{block}.{name}.weight", heads * head, WIDTH)
            if architecture == "qwen2":
                add(f"{block}.{name}.bias", heads * head)
            elif architecture != "llama" and name != "attn_v":
                add_norm(f"{block}.{name}_norm.weight", head)
        add(f"{block}.attn_output.weight", WIDTH, HEADS * head)
        add(f"{block}.ffn_gate.weight", HIDDEN, WIDTH)
        add(f"{block}.ffn_up.weight", HIDDEN, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, HIDDEN)


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded towards zero, as float32."""
    return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def llama3_stretch(head: int) -> np.ndarray:
    """By how much Llama 3.2 divides each frequency, as llama.cpp's converter writes it: (head / 2,)."""
    factor, low, high, length = 32.0, 1.0, 4.0, 8192
    waves = 2 * np.pi * THETA ** (np.arange(0, head, 2) / head)
    smooth = (length / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < length / high, 1.0, np.where(waves > length / low, factor, between)).astype(np.float32)


def _byte_level(writer: GGUFWriter, kind: str) -> int:
    """Bytes, and the beginnings of each word with its merges; returns the number of tokens."""
    printable = [
        *range(33, 127),
        *range(161, 173),
        *range(174, 256),
    ]  # GPT-2's sign for a byte is its own or a later one
    signs = {byte: chr(byte) for byte in printable}
    signs |= {byte: chr(256 + i) for i, byte in enumerate(sorted(set(range(256)) - set(printable)))}
    spelled = ["".join(signs[byte] for byte in f"{lead}{word}".encode()) for word in WORDS for lead in ("", " ")]
    merges = list(dict.fromkeys((word[:cut], word[cut]) for word in spelled for cut in range(1, len(word))))
    normal = [*signs.values(), *dict.fromkeys("".join(pair) for pair in merges), UNMERGEABLE]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    pad = "<|endoftext|>" if kind == "qwen2" else "<|pad|>"  # transformers adds it to a Qwen 2 that has none
    writer.add_token_list([*normal, "<|end|>", "<|begin|>", pad, "<tool>"])
    writer.add_token_types([TokenType.NORMAL] * len(normal) + [TokenType.CONTROL] * 3 + [TokenType.USER_DEFINED])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(len(normal))
    if kind == "llama-bpe":  # begins texts with it without being told so
        writer.add_bos_token_id(len(normal) + 1)
    if kind == "qwen2":  # as Qwen's files have it
        writer.add_pad_token_id(len(normal))
    return len(normal) + 4


def _sentencepiece(writer: GGUFWriter, runs: list[str]) -> int:
    """Control tokens, `runs`, bytes, and pieces of the words; Gemma's way with `runs`. Returns the number of tokens."""
    words = [f"{lead}{word}" for word in WORDS if word.strip() for lead in ("", SPACE)]
    pieces = [word[start:end] for word in words for start in (0, 1, 3) for end in range(start + 2, len(word) + 1)]
    pieces = sorted(dict.fromkeys(pieces), key=len) + list(dict.fromkeys("".join(words)))
    control = ["<pad>", "<eos>", "<bos>"]
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = {
        TokenType.CONTROL: control, TokenType.UNKNOWN: ["<unk>"], TokenType.USER_DEFINED: runs,
        TokenType.BYTE: every_byte, TokenType.NORMAL: pieces,
    }  # fmt: skip
    tokens = [token for group in kinds.values() for token in group]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * (len(tokens) - len(pieces)) + [-float(i) for i in range(len(pieces))])
    writer.add_token_types([kind for kind, group in kinds.items() for _ in group])
    for role, index in {"pad": 0, "eos": 1, "bos": 2, "unk": 3}.items():
        getattr(writer, f"add_{role}_token_id")(index)
    if runs:
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)
    return len(tokens)
