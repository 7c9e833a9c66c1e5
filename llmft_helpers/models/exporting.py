"""Take a fine-tune home: adapter and base merged into one model that needs neither PEFT nor this suite."""

from pathlib import Path

import torch

from ..errors import WRITE_ERRORS, UserError, reason
from ..profiles import Profile
from ..runs import read_json, whole_folder, write_json, write_text
from .loading import ADAPTER_NOTE, is_4bit, load_adapter, load_base_model, read_adapter_note
from .model_card import model_card
from .whole_files import refuse_torn, write_manifest


def refuse(file_format: str, output: Path) -> None:
    """UserError, with the reason and the way round, for the formats that are not written here."""
    if file_format == "merged_4bit":
        raise UserError(
            "a merged 4-bit model is not written: merging would round base plus adapter to 4 bits again and lose "
            "part of what was learned; keep the adapter, or export --format merged, which has 16 bits"
        )
    if file_format == "gguf":
        raise UserError(
            "GGUF is written by llama.cpp's converter, which is not part of this suite: export --format merged "
            f"--output {output}, then git clone https://github.com/ggml-org/llama.cpp and run "
            f"python llama.cpp/convert_hf_to_gguf.py {output} --outfile {output}.gguf --outtype q8_0"
        )


def export_merged(profile: Profile, adapter: Path, output: Path) -> None:
    """Write base plus adapter as one bfloat16 model, with tokenizer, note and card, to a new folder `output`.

    The base is the 4-bit one that was trained on and measured, dequantised: merged into the original 16-bit
    weights, the adapter would correct errors that are not there. The sum is rounded once, from float32.
    """
    if output.exists():
        raise UserError(f"{output} exists already: name a new folder, or remove it")
    note = read_adapter_note(adapter)
    model, tokenizer = load_base_model(profile.model)
    model = load_adapter(_dequantised(model), adapter, profile.model)
    merged = model.float().merge_and_unload().to(torch.bfloat16)
    try:
        with whole_folder(output) as partial:
            merged.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            write_json(partial / ADAPTER_NOTE, note | {"merged": True})
            write_manifest(partial)
            if (adapter.parent / "metrics.json").is_file():  # not where the adapter was moved, or trained in shards
                write_text(partial / "README.md", model_card(adapter.parent, note, str(output), merged=True))
    except WRITE_ERRORS as error:
        raise UserError(
            f"cannot write {output}: {reason(error)}; 16 bits a parameter have to fit on the disk"
        ) from error


def read_merged_note(path: Path) -> dict:
    """The note of `export_merged`; UserError if `path` is no merged model of this suite."""
    if not (path / "config.json").is_file() or not (path / ADAPTER_NOTE).is_file():
        raise UserError(f"{path} holds no merged model (config.json or {ADAPTER_NOTE} is missing); export one first")
    refuse_torn(path, "copy it again, or export it again")
    return read_json(path / ADAPTER_NOTE)


def _dequantised(model):
    """The same weights in float32, none of them packed any more; a model in 16 bits as it is."""
    return model.dequantize(dtype=torch.float32) if is_4bit(model) else model
