"""Models: the 4-bit base, its LoRA adapters, and the small model that comes with the suite.

There is one path for CPU and GPU, Unsloth's `FastLanguageModel`; nothing here loads 4-bit weights around
it, because bitsandbytes' own CPU path repacks weights after an evaluation and then trains wrongly.
`unsloth` is imported before transformers, peft and trl, as it asks.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from ..cpu.int8 import int8_is_much_faster
from ..cpu.products import add_in_place, round_to_int8
from ..cpu.speed import speed_up
from ..data.hub import hub_advice
from ..device import compute_dtype
from ..errors import WRITE_ERRORS, UserError, reason
from ..profiles import LoraSettings, ModelSettings, Profile
from ..runs import cache_dir, read_json, write_json
from .embedded import EMBEDDED, embedded_model, present_name, random_model, terms
from .gguf_files import gguf_model
from .loftq import begin_at_rounding_error
from .padding import set_padding

ADAPTER_NOTE = "llmft.json"

# bitsandbytes misses an optional package that would compute the same.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def load_base_model(settings: ModelSettings):
    """(model, tokenizer) of the profile's base; prints what was loaded and whether 4-bit took.

    The tokenizer's pad token differs from its end token, so that the end token is learned.
    """
    from unsloth import FastLanguageModel

    if terms(settings.name):
        print(terms(settings.name))
    path = model_path(settings)
    quiet_libraries()
    try:
        with _never_rounded(settings.keep_16bit):
            model, tokenizer = FastLanguageModel.from_pretrained(
                str(path),
                max_seq_length=settings.max_length,
                dtype=compute_dtype(),
                load_in_4bit=settings.load_in_4bit,
                revision=settings.revision,
                use_gradient_checkpointing=False,
                use_exact_model_name=True,  # or the name would stand for another, pre-quantised repository
                # Unsloth names no attention implementation on CPU; `speed_up` replaces a Llama's.
                **({} if torch.cuda.is_available() else {"attn_implementation": "eager"}),
            )
    except OSError as error:
        raise UserError(_loading_advice(settings, error)) from error
    except RuntimeError as error:  # how Unsloth wraps the same on a GPU
        if not isinstance(error.__cause__, OSError):
            raise
        raise UserError(_loading_advice(settings, error.__cause__)) from error
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
    if not torch.cuda.is_available():
        speed_up(model)
    return model, tokenizer


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
    model.int8_products = settings.int8_products and not torch.cuda.is_available() and int8_is_much_faster(model.dtype)
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
    partial = path.with_name(path.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial, state_dict=weights)
        write_json(partial / ADAPTER_NOTE, note | {"precision": model.precision})
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    except WRITE_ERRORS as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot save the adapter in {path}: {reason(error)}; free some space and run again") from error


def read_adapter_note(path: Path) -> dict:
    """The note of `save_adapter`; UserError if `path` is no adapter of this suite."""
    if not (path / "adapter_config.json").is_file():
        raise UserError(f"{path} holds no adapter (adapter_config.json is missing); train one with notebook 02 or 03")
    if not (path / ADAPTER_NOTE).is_file():
        raise UserError(
            f"{path} was not trained by this suite ({ADAPTER_NOTE} is missing): train one with notebook 02 or 03"
        )
    return read_json(path / ADAPTER_NOTE)


def load_adapter(model, path: Path, base: ModelSettings, name: str = "default"):
    """`model` with the adapter on top; UserError if the adapter was trained on another base."""
    from peft import PeftModel
    from safetensors.torch import load_file

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
    if isinstance(model, PeftModel):
        model.load_adapter(str(path), adapter_name=name)
    else:
        model = PeftModel.from_pretrained(model, str(path), adapter_name=name)
    # PEFT loads into float32; adapters are measured and saved in 16 bits.
    cast_adapter(model, next(iter(load_file(path / "adapter_model.safetensors").values())).dtype, name)
    add_in_place(model)
    return model.eval()


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
