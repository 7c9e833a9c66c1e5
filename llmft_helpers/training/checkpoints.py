"""What a run that was killed goes on from: which checkpoint is whole, its adapter put back, the used ones deleted."""

import shutil
from pathlib import Path

from ..errors import UserError
from ..storage import read_json

MARK = "resume.json"  # written last, and names the other files: a checkpoint without it, or one of them, is not whole


def last_checkpoint(folder: Path, key: str) -> Path | None:
    """The newest whole checkpoint of the run `key`; what is left of other runs, or torn, is deleted."""
    whole = {}
    for checkpoint in folder.glob("checkpoint-*"):
        mark = read_json(checkpoint / MARK) if (checkpoint / MARK).is_file() else {}
        if mark.get("key") == key and all((checkpoint / name).exists() for name in mark["files"]):
            whole[mark["step"]] = checkpoint
        else:
            shutil.rmtree(checkpoint)
    return whole[max(whole)] if whole else None


def restore_adapter(model, checkpoint: Path) -> None:
    """Copy saved LoRA weights into the parameters as they are; PEFT's `load_adapter` turns bfloat16 into float32."""
    from peft import set_peft_model_state_dict  # not at the top: Unsloth wants to be imported first
    from safetensors.torch import load_file

    result = set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"))
    missing = [key for key in result.missing_keys if "lora_" in key]
    if missing or result.unexpected_keys:
        raise UserError(f"checkpoint {checkpoint} is of another adapter; delete the folder and run again")


def delete_checkpoints(trainer) -> None:
    """Once the adapter is saved: until then a kill costs no more than the way from the last checkpoint."""
    trainer.accelerator.wait_for_everyone()
    if trainer.accelerator.is_main_process:
        for used in Path(trainer.args.output_dir).glob("checkpoint-*"):
            shutil.rmtree(used)
