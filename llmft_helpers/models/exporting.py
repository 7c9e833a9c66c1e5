"""Take a fine-tune home: adapter and base merged into one model that needs neither PEFT nor this suite."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..errors import WRITE_ERRORS, UserError, reason
from ..profiles import Profile
from ..storage import read_json, whole_folder, write_json, write_text
from .boundary import after_docstring
from .embedded import EMBEDDED, present_name, put_together
from .endings import end_tokens
from .gguf_export import write_gguf
from .gguf_files import GgufFile
from .loading import ADAPTER_NOTE, is_4bit, load_adapter, load_base_model, read_adapter_note
from .model_card import model_card
from .notes import noted_task
from .ollama import chat_template, modelfile
from .whole_files import refuse_torn, write_manifest


def export(profile: Profile, adapter: Path, output: Path, file_format: str) -> None:
    """Write base plus adapter in one of FORMATS, with a card, to a new folder `output`.

    The base is the 4-bit one that was trained on and measured, dequantised: merged into the original 16-bit
    weights, the adapter would correct errors that are not there. The sum is rounded once, from float32.
    """
    if file_format == "merged_4bit":
        raise UserError(
            "a merged 4-bit model is not written: merging would round base plus adapter to 4 bits again and lose "
            "part of what was learned; keep the adapter, or export --format merged, which has 16 bits"
        )
    write, room = FORMATS[file_format]
    if output.exists():
        raise UserError(f"{output} exists already: name a new folder, or remove it")
    note = read_adapter_note(adapter)
    merged, tokenizer = merged_in_float32(profile, adapter)
    try:
        with whole_folder(output) as partial:
            write(partial, merged, tokenizer, note, profile, output.name)
            if (adapter.parent / "manifest.json").is_file() and (adapter.parent / "metrics.json").is_file():
                # not where the adapter was moved, or trained in shards or by GRPO
                card = model_card(adapter.parent, note, str(output), file_format, tokenizer)
                write_text(partial / "README.md", card)
    except WRITE_ERRORS as error:
        raise UserError(f"cannot write {output}: {reason(error)}; {room} have to fit on the disk") from error


def merged_in_float32(profile: Profile, adapter: Path):
    """(model, tokenizer): dequantised base plus adapter, nothing of it rounded."""
    model, tokenizer = load_base_model(profile.model)
    model = load_adapter(_dequantised(model), adapter, profile.model)
    return model.float().merge_and_unload(), tokenizer


def _write_merged(folder: Path, model, tokenizer, note: dict, *_) -> None:
    """bfloat16 weights, tokenizer and note: what `read_merged_note` asks for."""
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / ADAPTER_NOTE, note | {"merged": True})
    write_manifest(folder)


def _write_gguf(folder: Path, model, tokenizer, note: dict, profile: Profile, name: str) -> None:
    """Two GGUF files, and a Modelfile that asks the model as it was trained."""
    task, after = noted_task(note), after_docstring(tokenizer)
    template = chat_template(task, after)
    write_gguf(folder, name, model, tokenizer, _base_file(profile.model.name, folder), template)
    longest = getattr(profile, task.name).max_new_tokens
    ends = tokenizer.convert_ids_to_tokens(end_tokens(tokenizer))
    text = modelfile(task, ends, model.config.max_position_embeddings, longest, after)
    write_text(folder / "Modelfile", text)


def _base_file(name: str, folder: Path) -> GgufFile | None:
    """The GGUF file that the model `name` was read from; None for a model that came otherwise."""
    if present_name(name) in EMBEDDED:
        path = put_together(present_name(name), folder / "base.gguf")
        base = GgufFile(path)
        path.unlink()  # what was opened can be read as long as `base` lives
        return base
    return GgufFile(Path(name)) if name.endswith(".gguf") else None


FORMATS: dict[str, tuple[Callable, str]] = {
    "merged": (_write_merged, "16 bits a parameter"),
    "gguf": (_write_gguf, "4 bytes a parameter"),
}


def read_merged_note(path: Path) -> dict:
    """The note of a merged export; UserError if `path` is no merged model of this suite."""
    if not (path / "config.json").is_file() or not (path / ADAPTER_NOTE).is_file():
        raise UserError(f"{path} holds no merged model (config.json or {ADAPTER_NOTE} is missing); export one first")
    refuse_torn(path, "copy it again, or export it again")
    return read_json(path / ADAPTER_NOTE)


def _dequantised(model):
    """The same weights in float32, none of them packed any more; a model in 16 bits as it is."""
    return model.dequantize(dtype=torch.float32) if is_4bit(model) else model
