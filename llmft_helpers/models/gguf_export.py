"""A merged model as GGUF files for llama.cpp, Ollama and LM Studio: the way back of gguf_files.py.

Conventions are those of llama.cpp's converter: rotated channels of Llama's heads are neighbours, Gemma's norms hold the
1 that transformers adds, a tied head is left out, and vectors stay in float32. Checked with llama.cpp:
benchmarks/gguf_export.py.
"""

import math
from pathlib import Path

import numpy
import torch

from ..errors import UserError
from .gguf_files import MODEL_TYPES, GgufFile
from .gguf_vocabulary import write_tokenizer

KINDS = ("f16", "q8_0")
LAYERS = {"full_attention"}  # what llama.cpp computes for a model whose file does not speak of a window


def write_gguf(folder: Path, name: str, model, tokenizer, base: GgufFile | None, chat_template: str) -> None:
    """Write model-f16.gguf and model-q8_0.gguf: float32 weights of `model`, each rounded once.

    `base`: the file that the model came from, whose tokenizer and description hold; without one they are written from
    what transformers says. `chat_template` (Jinja) stands for the base's, whose form a tuned model never saw. UserError
    for an architecture, positions or a tokenizer that cannot be told in GGUF here.
    """
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    architecture = _architecture(model.config)
    tensors = _tensors(model, architecture, base)
    for kind in KINDS:
        writer = GGUFWriter(folder / f"model-{kind}.gguf", architecture)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_file_type(LlamaFileType[f"MOSTLY_{kind.upper()}"])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        if base is None:
            write_tokenizer(writer, tokenizer, model.get_input_embeddings().num_embeddings)
            _describe(writer, model.config)
        else:
            _take_over(writer, base)
        writer.add_chat_template(chat_template)
        _write(writer, tensors, kind)


def _architecture(config) -> str:
    known = {model_type: architecture for architecture, model_type in MODEL_TYPES.items()}
    if config.model_type not in known:
        raise UserError(
            f"a model of the type {config.model_type!r} is not written as GGUF here; these are: {', '.join(known)}; "
            "export --format merged, and convert that with llama.cpp's convert_hf_to_gguf.py"
        )
    return known[config.model_type]


def _tensors(model, architecture: str, base: GgufFile | None) -> dict[str, torch.Tensor]:
    """The file's tensors by name, as llama.cpp wants them."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    known = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(known, model.config.num_hidden_layers)
    tensors = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if own is None:
            raise UserError(f"the weight {name} has no place in a GGUF file of the architecture {architecture}")
        tensors[own] = _weight(own, weight.float(), architecture, model.config)
    stretch = _stretch(model.config) if base is None else _stretch_in(base)
    return tensors if stretch is None else tensors | {"rope_freqs.weight": stretch}


def _weight(name: str, weight: torch.Tensor, architecture: str, config) -> torch.Tensor:
    if architecture == "gemma3" and name.endswith("norm.weight"):
        return weight + 1
    if architecture == "llama" and ".attn_q." in name:
        return _neighbours(weight, config.num_attention_heads)
    if architecture == "llama" and ".attn_k." in name:
        return _neighbours(weight, config.num_key_value_heads)
    return weight


def _neighbours(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """transformers turns channels half a head apart, llama.cpp those that are neighbours: (heads D, ...)."""
    halves = weight.view(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])  # (heads, 2, D / 2, ...)
    return halves.transpose(1, 2).reshape(weight.shape)


def _stretch_in(base: GgufFile) -> torch.Tensor | None:
    tensor = base.tensors.get("rope_freqs.weight")
    return None if tensor is None else torch.from_numpy(tensor.data.copy())


def _stretch(config) -> torch.Tensor | None:
    """By how much Llama 3 divides each frequency, (head size / 2); None for positions as they are."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if config.rope_parameters.get("rope_type") != "llama3":  # Gemma has two kinds of positions
        return None
    size = _head_size(config)
    even = config.rope_parameters["rope_theta"] ** (-torch.arange(0, size, 2) / size)  # (size / 2)
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    return even / frequencies


def _head_size(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _take_over(writer, base: GgufFile) -> None:
    """Tokenizer, description of the architecture and licence as they stand in `base`."""
    from gguf import GGUFValueType

    for key, field in base.reader.fields.items():
        if key.startswith("tokenizer.chat_template"):
            continue
        if key.startswith(("tokenizer.", f"{base.architecture}.", "general.license")):
            of_array = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=of_array)


def _describe(writer, config) -> None:
    """The architecture's fields from transformers' configuration of a Llama or Qwen."""
    from gguf import RopeScalingType

    if not LAYERS.issuperset(getattr(config, "layer_types", None) or LAYERS):
        raise UserError("attention within a sliding window is not written as GGUF from a hub model; use a GGUF file")
    rope, size = config.rope_parameters, _head_size(config)
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        raise UserError(f"rotary positions of the kind {rope['rope_type']!r} are not written as GGUF here")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _write(writer, tensors: dict[str, torch.Tensor], kind: str) -> None:
    """Everything into the writer's file; a tensor is rounded when its turn comes, as all of them take much memory."""
    from gguf import quant_shape_to_byte_shape, quantize

    types = {name: _type(tensor, kind) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        size = math.prod(quant_shape_to_byte_shape(shape, types[name]))
        writer.add_tensor_info(name, shape, numpy.dtype("float32"), size, types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in tensors.items():
            writer.write_tensor_data(quantize(tensor.detach().cpu().numpy(), types[name]))
    finally:
        writer.close()


def _type(tensor: torch.Tensor, kind: str):
    """Vectors, which are few and matter much, in float32; rows that no blocks of 8-bit weights fill in float16."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    wanted = GGMLQuantizationType[kind.upper()]
    if tensor.ndim == 1:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.F16 if tensor.shape[-1] % GGML_QUANT_SIZES[wanted][0] else wanted
