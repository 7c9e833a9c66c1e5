"""Any GGUF file as a base: read once into a folder that transformers, Unsloth and PEFT understand.

People have such files from Ollama or LM Studio. transformers reads them too, but takes no heed of Llama 3's stretched
rotary positions (`rope_freqs`) and Qwen 3's head size, and leaves out what it does not know; here every weight of the
model has to be in the file and every tensor of the file in the model. Checked against llama.cpp, logit by logit:
benchmarks/gguf_parity.py.
"""

import functools
import hashlib
from pathlib import Path

import numpy
import torch

from ..errors import UserError
from ..storage import file_digest
from .gguf_tokenizer import read_tokenizer
from .whole_files import made_once

# architecture in the file: model type of transformers
MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}
# of Llama 3.1 and 3.2; a file holds what follows from it for each frequency
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LOCAL_ROPE_THETA = 10_000.0  # of Gemma 3's layers with a sliding window
LAYERS_OF_GEMMA_27B = 62
REQUIRED = object()


class GgufFile:
    """Fields and tensors of a GGUF file; UserError if it is none, or of an architecture that is not trained here."""

    def __init__(self, path: Path):
        try:
            self.reader = _reader_class()(path)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path}: not a whole GGUF file ({error})") from error
        self.path = path
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.architecture = self.value("general.architecture")
        if self.architecture not in MODEL_TYPES:
            known = ", ".join(MODEL_TYPES)
            raise UserError(f"{path}: the architecture {self.architecture!r} is not trained here; these are: {known}")

    def value(self, key: str, default=REQUIRED):
        """The field `key`; "*" in it stands for the architecture. UserError if it is missing and has no default."""
        key = key.replace("*", self.architecture) if "*" in key else key
        field = self.reader.get_field(key)
        if field is None and default is REQUIRED:
            raise UserError(f"{self.path}: the GGUF file says nothing of {key}")
        return default if field is None else field.contents()


@functools.cache
def _reader_class():
    """gguf's reader over a plain array: it slices its memory map a million times, which takes three times as long."""
    from gguf import GGUFReader

    class Reader(GGUFReader):
        @property
        def data(self):
            return self._data

        @data.setter
        def data(self, mapped):
            self._data = numpy.asarray(mapped)

    return Reader


def gguf_model(path: Path, cache: Path) -> Path:
    """Folder of the converted model, of its tokenizer too; converts once for each content of the file."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: correct model.name")
    return converted(path.stem, file_digest(path), cache, lambda folder: convert(path, folder))


def converted(name: str, digest: str, cache: Path, make) -> Path:
    """The cache's folder for a file of this SHA-256 as this code reads it."""
    folder = cache / f"{name}-{digest[:12]}-{_code_version()}"
    return made_once(folder, make, f"converting {name} once, into {cache.name}/{folder.name}")


def _code_version() -> str:
    """What the modules that convert say, in eight digits: a folder that older code wrote is not taken."""
    names = ("gguf_files.py", "gguf_tokenizer.py", "padding.py")
    sources = [Path(__file__).with_name(name).read_bytes() for name in names]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:8]


def convert(path: Path, folder: Path) -> None:
    """Write configuration, bfloat16 weights and tokenizer of the GGUF file `path` into `folder`."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    file = GgufFile(path)
    tokenizer = read_tokenizer(file)
    config = _configuration(file, tokenizer)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(_weights(file, model), folder / "model.safetensors", metadata={"format": "pt"})


def _configuration(file: GgufFile, tokenizer):
    """transformers' configuration of the model in `file`."""
    from transformers import AutoConfig

    width, heads = file.value("*.embedding_length"), file.value("*.attention.head_count")
    head_size = file.value("*.attention.key_length", width // heads)
    if file.value("*.rope.dimension_count", head_size) != head_size:
        raise UserError(f"{file.path}: rotary positions on a part of each head are not supported")
    values = {
        "vocab_size": int(file.tensors["token_embd.weight"].shape[1]),
        "hidden_size": width,
        "intermediate_size": file.value("*.feed_forward_length"),
        "num_hidden_layers": file.value("*.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.value("*.attention.head_count_kv", heads),
        "head_dim": head_size,
        "max_position_embeddings": file.value("*.context_length"),
        "rms_norm_eps": file.value("*.attention.layer_norm_rms_epsilon"),
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "bfloat16",
        "rope_parameters": _rope(file),
    }
    if file.architecture == "gemma3":
        values |= _of_gemma(values, file)
    config = AutoConfig.for_model(MODEL_TYPES[file.architecture], **values)
    if "rope_freqs.weight" in file.tensors:
        _set_llama3_rope(config, file)
    return config


def _rope(file: GgufFile) -> dict:
    kind, theta = file.value("*.rope.scaling.type", "none"), file.value("*.rope.freq_base", 10_000.0)
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": file.value("*.rope.scaling.factor")}
    raise UserError(f"{file.path}: rotary positions scaled by {kind!r} are not supported")


def _of_gemma(values: dict, file: GgufFile) -> dict:
    """Gemma 3 (arXiv 2503.19786): five layers of six attend to a window, with rotary positions of their own."""
    layers, every = values["num_hidden_layers"], file.value("*.attention.sliding_window_pattern", 6)
    local = {"rope_type": "default", "rope_theta": file.value("*.rope.freq_base_swa", LOCAL_ROPE_THETA)}
    large = layers == LAYERS_OF_GEMMA_27B
    return {
        "sliding_window": file.value("*.attention.sliding_window"),
        "layer_types": ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(layers)],
        "rope_parameters": {"full_attention": values["rope_parameters"], "sliding_attention": local},
        "query_pre_attn_scalar": values["hidden_size"] // values["num_attention_heads"]
        if large
        else values["head_dim"],
        "final_logit_softcapping": file.value("*.final_logit_softcapping", None),
    }


def _set_llama3_rope(config, file: GgufFile) -> None:
    """Name the scaling that stretches the frequencies as the file does; UserError if it is not Llama 3's."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stretch = torch.from_numpy(file.tensors["rope_freqs.weight"].data.copy())  # (head size / 2)
    theta = config.rope_parameters["rope_theta"]
    even = theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)  # (head size / 2)
    config.rope_parameters = {"rope_type": "llama3", "rope_theta": theta, "factor": stretch.max().item(), **LLAMA3_ROPE}
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    if not torch.allclose(frequencies, even / stretch, rtol=1e-4, atol=0):
        raise UserError(f"{file.path}: rope_freqs are stretched in a way that is not Llama 3's")


def _weights(file: GgufFile, model) -> dict[str, torch.Tensor]:
    """bfloat16 weights by transformers' names; UserError where file and model do not have the same."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == file.architecture)
    names = get_tensor_name_map(architecture, model.config.num_hidden_layers)
    weights, left = {}, set(file.tensors) - {"rope_freqs.weight"}
    for name, wanted in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if own not in left:
            raise UserError(f"{file.path}: the tensor {own} is missing, which a {file.architecture} model needs")
        weights[name] = _weight(file, own, model.config)
        if weights[name].shape != wanted.shape:
            raise UserError(f"{file.path}: {own} is {tuple(weights[name].shape)}, expected {tuple(wanted.shape)}")
        left.discard(own)
    if left:
        raise UserError(
            f"{file.path}: {len(left)} tensors of it, such as {min(left)}, are none of a {file.architecture} model"
        )
    return weights


def _weight(file: GgufFile, name: str, config) -> torch.Tensor:
    from gguf import dequantize

    tensor = file.tensors[name]
    try:
        weight = torch.tensor(dequantize(tensor.data, tensor.tensor_type))  # float32
    except NotImplementedError as error:
        raise UserError(f"{file.path}: weights in {tensor.tensor_type.name} cannot be read: {error}") from error
    if file.architecture == "gemma3" and name.endswith("norm.weight"):
        weight = weight - 1  # transformers adds the 1 again
    if file.architecture == "llama" and ".attn_q." in name:
        weight = _halves(weight, config.num_attention_heads)
    if file.architecture == "llama" and ".attn_k." in name:
        weight = _halves(weight, config.num_key_value_heads)
    return weight.to(torch.bfloat16)


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp turns neighbouring channels of a head, transformers those half a head apart: (heads D, ...)."""
    pairs = weight.view(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])  # (heads, D / 2, 2, ...)
    return pairs.transpose(1, 2).reshape(weight.shape)
