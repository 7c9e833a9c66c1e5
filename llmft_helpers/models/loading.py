"""Models: the 4-bit base, its LoRA adapters.

There is one path for CPU and GPU, Unsloth's `FastLanguageModel`; nothing here loads 4-bit weights around
it, because bitsandbytes' own CPU path repacks weights after an evaluation and then trains wrongly.
`unsloth` is imported before transformers, peft and trl, as it asks.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ..cpu.int8 import int8_is_much_faster
from ..cpu.products import add_in_place, round_to_int8
from ..cpu.speed import speed_up
from ..data.hub import hub_advice
from ..device import compute_dtype, has_card
from ..errors import WRITE_ERRORS, UserError, reason
from ..profiles import LoraSettings, ModelSettings, Profile
from ..runs import cache_dir
from ..storage import read_json, whole_folder, write_json
from .embedded import EMBEDDED, embedded_model, present_name, random_model, terms
from .endings import end_tokens
from .gguf_files import gguf_model
from .loftq import begin_at_rounding_error
from .padding import set_padding
from .whole_files import refuse_torn, write_manifest

ADAPTER_NOTE = "llmft.json"
COPY_AGAIN = "copy the whole folder again, or name another model"

# Unsloth fetches three repositories at each load to count its users; a slow proxy turns that into a failed load.
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")


def load_base_model(settings: ModelSettings):
    """(model, tokenizer) of the profile's base; prints what was loaded and whether 4-bit took.

    The tokenizer's pad token differs from its end token, so that the end token is learned.
    """
    from unsloth import FastLanguageModel

    if terms(settings.name):
        print(terms(settings.name))
    path = model_path(settings)
    if Path(settings.name).is_dir():
        refuse_torn(Path(settings.name), COPY_AGAIN)
    quiet_libraries()
    try:
        with _never_rounded(settings.keep_16bit):
            model, tokenizer = FastLanguageModel.from_pretrained(
                str(path),
                max_seq_length=context(path, settings.revision) if has_card() else settings.max_length,
                dtype=compute_dtype(),
                load_in_4bit=settings.load_in_4bit,
                revision=settings.revision,
                use_gradient_checkpointing=False,
                use_exact_model_name=True,  # or the name would stand for another, pre-quantised repository
                # Unsloth names no attention implementation on CPU; `speed_up` replaces a Llama's, Qwen's and Gemma's.
                **({} if has_card() else {"attn_implementation": "eager"}),
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a parser may raise anything over a broken file; Unsloth wraps it on a GPU
        cause = error if isinstance(error, OSError) else error.__cause__
        if Path(path).is_dir():
            raise UserError(f"model {path} cannot be read ({_brief(error)}): {COPY_AGAIN}") from error
        if not isinstance(cause, OSError):
            raise
        raise UserError(_loading_advice(settings, cause)) from error
    rows = model.get_input_embeddings().num_embeddings
    if max(tokenizer.get_vocab().values()) >= rows:
        raise UserError(f"model {path}: its tokenizer has tokens beyond the {rows:,} of its weights: {COPY_AGAIN}")
    unknown = [
        kept for kept in settings.keep_16bit if not any(name.endswith(kept) for name, _ in model.named_modules())
    ]
    if unknown:
        raise UserError(f"model.keep_16bit: no layer of {settings.name!r} ends in {unknown[0]!r}")
    set_special_tokens(model, tokenizer)
    model.precision = settings.precision if is_4bit(model) else "16-bit"  # an adapter notes what it was trained on
    if settings.load_in_4bit and not is_4bit(model):
        print("4-bit weights do not work on this machine: the base is loaded in 16 bits instead.")
    elif settings.load_in_4bit and settings.keep_16bit:
        share = share_in_4bit(model)
        print(f"{share:.0%} of the weights between embedding and head are in 4 bits, the rest is not rounded.")
    if not has_card():
        speed_up(model)
    return model, tokenizer


def context(path: str | Path, revision: str | None = None) -> int:
    """Tokens that the model at `path` can hold. Unsloth's forward on a card cuts what is longer than the length it was
    loaded with, and stretches positions if that is longer than this."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(path), revision=revision).get_text_config().max_position_embeddings


@contextlib.contextmanager
def _never_rounded(names: tuple[str, ...]) -> Iterator[None]:
    """Lengthen Unsloth's list of layers that stay in 16 bits by `names`; its loader takes no list of a caller's."""
    from unsloth_zoo.peft_utils import SKIP_QUANTIZATION_MODULES

    before = len(SKIP_QUANTIZATION_MODULES)
    SKIP_QUANTIZATION_MODULES.extend(names)
    try:
        yield
    finally:
        del SKIP_QUANTIZATION_MODULES[before:]


def quiet_libraries() -> None:
    """Without the progress bars of loading and mapping, which take a second and fill a report."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def _brief(error: Exception) -> str:
    """Type and first sentence of a library's error."""
    return f"{type(error).__name__}: {reason(error)[:200]}"


def _loading_advice(settings: ModelSettings, error: OSError) -> str:
    advice = hub_advice(error, "without a network use the profile demo, or a local folder as model.name")
    return f"model {settings.name!r} could not be loaded: {str(error).strip().splitlines()[0]} ({advice})"


def is_4bit(model) -> bool:
    return any(type(module).__name__ == "Linear4bit" for module in model.modules())


def share_in_4bit(model) -> float:
    """Share of the base's weights in linear layers, the head left out, that are held in 4 bits."""
    sizes = {True: 0, False: 0}
    for name, module in model.named_modules():
        own = "lora_" not in name and module is not model.get_output_embeddings()
        if own and isinstance(module, torch.nn.Linear):
            sizes[type(module).__name__ == "Linear4bit"] += module.in_features * module.out_features
    return sizes[True] / sum(sizes.values())


def set_special_tokens(model, tokenizer) -> None:
    """Make sure that padding is not the end token; generation settings follow the tokenizer."""
    set_padding(tokenizer)
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = end_tokens(tokenizer)  # what TRL and a merged model's users go by
    model.generation_config.max_length = None


def model_path(settings: ModelSettings) -> str | Path:
    """What to hand to from_pretrained: a made or converted local folder, or the name as it is."""
    name = present_name(settings.name)
    if name in EMBEDDED:
        return embedded_model(name, cache_dir())
    if name == "random":
        return random_model(cache_dir())
    return gguf_model(Path(name), cache_dir()) if name.endswith(".gguf") else name


def add_lora(model, settings: LoraSettings, seed: int):
    """A PEFT model with fresh LoRA weights (Hu et al. 2021, arXiv 2106.09685); the base stays frozen.

    With `settings.loftq` they do not begin at zero: see `loftq.py`.
    """
    from unsloth import FastLanguageModel

    model = FastLanguageModel.get_peft_model(
        model,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.use_rslora,
        target_modules=list(settings.target_modules),
        bias="none",
        use_gradient_checkpointing=settings.gradient_checkpointing,
        random_state=seed,
    )
    if settings.loftq and is_4bit(model):
        share = begin_at_rounding_error(model, Path(model.config._name_or_path))
        print(f"LoRA begins where it gives back {share:.0%} of the squared error of 4-bit rounding.")
    model.int8_products = settings.int8_products and not has_card() and int8_is_much_faster(model.dtype)
    if model.int8_products:
        round_to_int8(model)
        dtype = str(model.dtype).removeprefix("torch.")
        print(f"Training multiplies with the frozen weights in 8-bit integers, scores and answers are in {dtype}.")
    model.loftq = settings.loftq  # part of what a checkpoint must agree with
    add_in_place(model)
    return model


def trainable_parameters(model) -> tuple[int, int]:
    """(trainable, all) numbers of parameters, 4-bit weights counted unpacked."""
    trainable = total = 0
    for parameter in model.parameters():
        count = parameter.numel()
        if type(parameter).__name__ == "Params4bit":
            count = parameter.quant_state.shape.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def save_adapter(model, path: Path, note: dict, weights: dict | None = None) -> None:
    """Write adapter and note (of `adapter_note`, and the base's precision) beside `path`, then put them in its place.

    `weights`: the state of a model that is sharded over processes, gathered.
    """
    try:
        with whole_folder(path) as partial:
            model.save_pretrained(partial, state_dict=weights)
            write_json(partial / ADAPTER_NOTE, note | {"precision": model.precision})
            write_manifest(partial)
    except WRITE_ERRORS as error:
        raise UserError(f"cannot save the adapter in {path}: {reason(error)}; free some space and run again") from error


def read_adapter_note(path: Path) -> dict:
    """The note of `save_adapter`; UserError if `path` is no adapter of this suite."""
    if not (path / "adapter_config.json").is_file():
        raise UserError(f"{path} holds no adapter (adapter_config.json is missing); train one with notebook 02 or 03")
    if not (path / ADAPTER_NOTE).is_file():
        raise UserError(
            f"{path} was not trained by this suite ({ADAPTER_NOTE} is missing): train one with notebook 02 or 03"
        )
    refuse_torn(path, "copy it again, or train it again")
    note = read_json(path / ADAPTER_NOTE)
    if not isinstance(note, dict) or "base_model" not in note:
        raise UserError(
            f"{path / ADAPTER_NOTE} does not name the base model: copy the adapter again, or train it again"
        )
    return note


def load_adapter(model, path: Path, base: ModelSettings, name: str = "default"):
    """`model` with the adapter on top; UserError if the adapter was trained on another base."""
    from peft import PeftModel
    from safetensors.torch import load_file

    refuse_other_base(model, path, base)
    try:
        weights = load_file(path / "adapter_model.safetensors")
        if isinstance(model, PeftModel):
            model.load_adapter(str(path), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(path), adapter_name=name)
            if has_card():
                take_fused_kernels(model)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"adapter {path} does not fit {base.name!r} ({_brief(error)}): train it again") from error
    # PEFT loads into float32; adapters are measured and saved in 16 bits.
    cast_adapter(model, next(iter(weights.values())).dtype, name)
    add_in_place(model)
    return model.eval()


def refuse_other_base(model, path: Path, base: ModelSettings) -> None:
    """UserError if `path` is no adapter of this suite, or was trained on another base than `model`."""
    note = read_adapter_note(path)
    if present_name(note["base_model"]) != present_name(base.name):
        raise UserError(
            f"adapter {path} was trained on {note['base_model']!r}, the loaded base is {base.name!r}: "
            "choose the profile it was trained with"
        )
    if note.get("precision", model.precision) != model.precision:  # notes of old do not say it
        advice = "choose the profile it was trained with"
        if model.precision != base.precision:
            advice = "4-bit weights do not work on this machine; train the adapter here, or use it elsewhere"
        raise UserError(
            f"adapter {path} was trained on {note['precision']} weights, the base is loaded in {model.precision}: "
            + advice
        )


def take_fused_kernels(model) -> None:
    """Compute a loaded adapter with what computes it in training, Unsloth's fused LoRA, and not with PEFT's forward:
    in 16 bits they round differently. Nothing where the architecture has none: both are PEFT's then."""
    from unsloth.models.llama import FastLlamaModel

    if any(hasattr(module, "apply_qkv") for module in model.modules()):
        FastLlamaModel.patch_peft_model(model, use_gradient_checkpointing=False)


def cast_adapter(model, dtype: torch.dtype, name: str = "default") -> None:
    """Turn the LoRA weights of the adapter `name` into `dtype`, in place."""
    for key, parameter in model.named_parameters():
        if "lora_" in key and f".{name}." in key:
            parameter.data = parameter.data.to(dtype)


@contextlib.contextmanager
def adapters_off(model) -> Iterator[None]:
    """The bare base inside the block, whatever adapters `model` carries."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
    else:
        yield


def load_for_inference(profile: Profile, adapter: Path | None):
    """(model, tokenizer) of the profile's base, with the adapter if one is named."""
    if adapter is not None:
        read_adapter_note(adapter)  # before minutes of loading
    model, tokenizer = load_base_model(profile.model)
    if adapter is not None:
        model = load_adapter(model, adapter, profile.model)
    return model.eval(), tokenizer
